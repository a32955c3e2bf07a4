"""Networks of the recipe, many of them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from modicum.context import Context
from modicum.errors import DataError, TrainingError
from modicum.measurement.learners.problem import Outputs, Problem
from modicum.training.evaluate import forward
from modicum.training.fit import Fit, fit
from modicum.training.many import fit_many

__all__ = ["Network"]


@dataclass(frozen=True)
class Network:
    """The recipe's model trained on each subset, with the same initial weights for all; steps follow the subset's size.

    Models that cannot be stacked (batch normalization, dropout) are trained one after another. Operations are counted as
    they happen, those of the answers too.

    Args:
        together: Models that are trained at once; memory is four times the parameters of each, and its batch.
    """

    together: int = 64

    gives: ClassVar[Outputs] = "logits"
    reads: ClassVar[Literal["features", "inputs"]] = "inputs"
    costly: ClassVar[bool] = True
    any_subset: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if isinstance(self.together, bool) or not isinstance(self.together, int) or self.together < 1:
            raise DataError(f"together={self.together!r}; expected an integer >= 1")

    def outputs(self, problem: Problem, masks: Tensor) -> Tensor:
        """Logits of one network a subset."""
        if problem.train is None or problem.asked is None:
            raise DataError("the learner network trains on inputs, but the problem has only features")
        ctx = (problem.ctx or Context()).with_(show=False)
        made = torch.full(
            (len(masks), len(problem.wanted), problem.columns),
            -torch.inf if problem.classes else 0.0,
            dtype=torch.float64,
        )
        for i, done in enumerate(self._fits(problem, masks, ctx)):
            found = forward(done.model, problem.asked, ctx, phase="choose", what="utilities").double()
            made[i, :, : found.shape[-1]] = found.reshape(len(problem.wanted), -1)
        return made.to(problem.features.device)

    def _fits(self, problem: Problem, masks: Tensor, ctx: Context) -> list[Fit]:
        assert problem.train is not None
        train, recipe = problem.train, problem.recipe
        subsets = [mask.nonzero()[:, 0].cpu() for mask in masks]
        try:
            return fit_many(
                train,
                recipe,
                ctx,
                subsets=subsets,
                seeds=[ctx.seed] * len(subsets),
                together=self.together,
                phase="choose",
            )
        except TrainingError as refusal:
            if "fit the models one after another" not in str(refusal):
                raise
        return [fit(train[at], recipe, ctx, phase="choose") for at in subsets]

    def start(self, problem: Problem, orders: Tensor) -> None:
        """A network is always trained anew."""

    def room(self, problem: Problem) -> int:
        """What `together` bounds."""
        return 0

    def flops(self, problem: Problem, size: float) -> float:
        """They are counted as they happen."""
        return 0.0
