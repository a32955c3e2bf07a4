"""The learning curve: the error on the validation split after training on growing random subsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from modicum.context import Context
from modicum.dataset import Splits
from modicum.errors import DataError, ModicumError
from modicum.measurement.cache import cached
from modicum.models import build
from modicum.reading import by_id, labels_of
from modicum.training.evaluate import evaluate
from modicum.training.fit import fit
from modicum.training.many import fit_many, stackable
from modicum.training.recipe import Recipe

__all__ = ["CurveTable", "LearningCurve", "errors_of_subsets"]

STEPS = ("scaled", "equal")


@dataclass(frozen=True, eq=False)
class CurveTable:
    """What `LearningCurve` measured.

    Args:
        sizes: (p,) training samples, rising.
        of: Training samples that there are.
        errors: (runs, p) share of wrong answers on the validation split.
        valid: Validation samples.
        classes: Number of classes.
        guess: Error of always answering the most frequent class; 1 - 1 / classes when None.
    """

    sizes: Tensor
    of: int
    errors: Tensor
    valid: int
    classes: int
    guess: float | None = None

    @property
    def chance(self) -> float:
        """The error of guessing."""
        return 1 - 1 / self.classes if self.guess is None else self.guess

    @property
    def shares(self) -> Tensor:
        """(p,) sizes as shares of the training samples."""
        return self.sizes.double() / self.of

    @property
    def means(self) -> Tensor:
        """(p,) mean errors over the runs."""
        return self.errors.mean(0)

    @property
    def deviations(self) -> Tensor:
        """(p,) standard errors of the means: of the runs, and of a validation split of this size."""
        return self._covariance.diagonal().sqrt()

    @property
    def correlation(self) -> Tensor:
        """(p, p) of the errors of the means: all shares are tried on the same validation samples, and those that more
        training gets wrong are taken to be among those that less gets wrong."""
        scale = self.deviations
        return self._covariance / (scale[:, None] * scale)

    @property
    def _covariance(self) -> Tensor:
        p = ((self.errors.mean(0) * self.valid + 0.5) / (self.valid + 1)).clamp(0, 1)
        of_runs = self.errors.var(0, correction=1) / len(self.errors) if len(self.errors) > 1 else 0 * p
        return torch.minimum(p[:, None], p) * (1 - torch.maximum(p[:, None], p)) / self.valid + of_runs.diag()


@dataclass(frozen=True)
class LearningCurve:
    """Trainings of the recipe on growing random subsets; those of one run contain each other.

    Args:
        shares: Of the training samples, in (0, 1], rising; at least one sample a subset.
        runs: Repetitions with other subsets and other weights.
        steps: `scaled`: a share f of the samples is trained on for a share f of the recipe's steps, as `modicum compare`
            does, so that every sample is seen as often. `equal`: as many steps for every share, which costs more and
            leaves small shares less undertrained.

    Raises:
        ModicumError: The shares are not rising shares, or another option is out of its range.

    Example:
        >>> LearningCurve((0.25, 0.5), runs=2).trainings()
        1.5
    """

    shares: tuple[float, ...] = (0.03, 0.06, 0.125, 0.25)
    runs: int = 3
    steps: str = "scaled"

    def __post_init__(self) -> None:
        try:
            shares = tuple(float(share) for share in self.shares)
        except (TypeError, ValueError):
            shares = ()
        rising = all(0 < a < b <= 1 for a, b in pairwise(shares))
        if len(shares) < 2 or not rising:
            raise ModicumError(f"shares={self.shares!r}; expected at least two rising shares in (0, 1]")
        object.__setattr__(self, "shares", shares)
        if not isinstance(self.runs, int) or self.runs < 1:
            raise ModicumError(f"runs={self.runs!r}; expected an integer >= 1")
        if self.steps not in STEPS:
            raise ModicumError(f"steps={self.steps!r}; expected 'scaled' or 'equal'")

    def measure(self, data: Splits, recipe: Recipe, ctx: Context) -> CurveTable:
        """Train and evaluate, or read from the cache; charged to `ctx.ledger` as choosing.

        Raises:
            DataError: There are no class labels, or no validation samples.
        """
        if data.train.info.task != "classification":
            raise DataError(f"train is for {data.train.info.task}; a learning curve of errors needs class labels")
        labels = labels_of("train", data.train, classes=2)
        if not len(data.valid):
            raise DataError("valid has 0 samples; a learning curve is measured on the validation split")
        n = len(data.train)
        sizes = sorted({max(1, round(share * n)) for share in self.shares})
        if len(sizes) < 2:
            raise DataError(f"shares={self.shares} of {n} samples are one subset of {sizes[0]}; give larger shares")
        description = {
            **{"train": data.train.fingerprint, "valid": data.valid.fingerprint, "recipe": recipe, "seed": ctx.seed},
            **{"sizes": sizes, "runs": self.runs, "steps": self.steps},
        }
        made, ledger = cached("learning-curve", description, ctx, lambda inner: self._made(data, sizes, recipe, inner))
        ctx.ledger.charges.extend(ledger.charges)
        guess = 1 - int(torch.bincount(labels.long()).max()) / n
        return CurveTable(made["sizes"], n, made["errors"], len(data.valid), data.train.classes, guess)

    def trainings(self) -> float:
        """How many trainings of the recipe on the full data this is."""
        return self.runs * (sum(self.shares) if self.steps == "scaled" else len(self.shares))

    def _made(self, data: Splits, sizes: list[int], recipe: Recipe, ctx: Context) -> dict[str, Tensor]:
        order = torch.as_tensor(by_id(data.train))
        draws = [order[torch.randperm(len(order), generator=ctx.generator("curve", r))] for r in range(self.runs)]
        subsets = [[draw[:size] for draw in draws] for size in sizes]
        errors = errors_of_subsets(data, subsets, recipe, ctx, scaled=self.steps == "scaled", name="curve")
        return {"sizes": torch.tensor(sizes), "errors": errors}


def errors_of_subsets(
    data: Splits, subsets: Sequence[Sequence[Tensor]], recipe: Recipe, ctx: Context, *, scaled: bool, name: str
) -> Tensor:
    """Train on subsets and try the models on the validation split; charged to `ctx.ledger` as choosing.

    Args:
        data: The splits.
        subsets: For each size the positions of the subset of each run; run r has the same seed at all sizes.
        recipe: Of the trainings.
        ctx: Device, seed, ledger and store.
        scaled: Whether a share of the samples is trained on for that share of the steps.
        name: Of the checkpoints in the store.

    Returns:
        (runs, p) shares of wrong answers.
    """
    full, together, columns = recipe.steps_for(len(data.train)), stackable(build(recipe.model, data.train)), []
    for column in subsets:
        size = len(column[0])
        seeds = [ctx.seed + 1_000_003 * run for run in range(len(column))]
        steps = max(1, round(full * size / len(data.train))) if scaled else full
        shorter, own = replace(recipe, steps=steps, rates=()), f"{name}-{size}"
        if together:
            chosen: Any = [at.tolist() for at in column]
            fits = fit_many(data.train, shorter, ctx, subsets=chosen, seeds=seeds, together=8, name=own, phase="choose")
        else:
            fits = [
                fit(data.train[at], shorter, ctx.with_(seed=seed), name=f"{own}-{seed}", phase="choose")
                for at, seed in zip(column, seeds)
            ]
        scores = [evaluate(done.model, data.valid, ctx, phase="choose", what="learning curve") for done in fits]
        columns.append(torch.tensor([1 - found.score for found in scores], dtype=torch.float64))
    return torch.stack(columns, 1)
