"""What a learner is given, and what it must do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Dataset
    from modicum.training.recipe import Recipe

__all__ = ["Growing", "Learner", "Outputs", "Problem"]

Outputs = Literal["scores", "logits", "probabilities"]


@dataclass(frozen=True, eq=False)
class Problem:
    """Samples to train on, and queries to answer.

    Args:
        features: (n, d) float64 of the training samples.
        targets: (n,) int64 class indices, or (n,) float64 for regression.
        queries: (m, d) float64.
        wanted: (m,) the right answers, as targets.
        classes: How many there are; 0 for regression.
        train: The training samples in the same order, for learners that train on inputs; None where there are only
            features.
        asked: The queries likewise.
        recipe: How networks are trained.
        ctx: Device, seed and progress of the trainings.
    """

    features: Tensor
    targets: Tensor
    queries: Tensor
    wanted: Tensor
    classes: int
    train: Dataset | None = None
    asked: Dataset | None = None
    recipe: Recipe | None = None
    ctx: Context | None = None

    @property
    def columns(self) -> int:
        """Of the outputs: one per class, or one for regression."""
        return max(1, self.classes)

    def encoded(self) -> Tensor:
        """(n, c) targets for least squares: 1 for the class and -1 for the others; (n, 1) for regression."""
        if not self.classes:
            return self.targets[:, None].double()
        return 2 * torch.nn.functional.one_hot(self.targets, self.classes).double() - 1


class Growing(Protocol):
    """Several training sets that grow by one sample at a time, each with its trained learner."""

    def add(self, at: Tensor) -> Tensor:
        """Add sample `at[b]` to set b, for every b; (b, m, c) outputs for the queries then, good until the next call."""
        ...

    def keep(self, which: Tensor) -> None:
        """Go on with these sets only, by a (b,) boolean mask."""
        ...


@runtime_checkable
class Learner(Protocol):
    """A frozen dataclass: its fields are hyper-parameters.

    A subset it is asked about has at least one sample, and for classification at least two classes: the constant answers
    to others are not its business.

    Attributes:
        gives: What the outputs are: any scores whose greatest is the answer, logits, or probabilities.
        any_subset: Whether it has an answer of its own for sets of one class too, as nearest neighbors have.
        costly: Whether training takes so long that every answer is kept on disk, and that trainings are counted.
    """

    gives: ClassVar[Outputs]
    costly: ClassVar[bool]
    any_subset: ClassVar[bool]

    def outputs(self, problem: Problem, masks: Tensor) -> Tensor:
        """(b, m, c) float64 outputs for the queries after training on each of the (b, n) boolean masks."""
        ...

    def start(self, problem: Problem, sets: int) -> Growing | None:
        """Empty training sets that can grow faster than by training anew; None when there is no such way."""
        ...

    def flops(self, problem: Problem) -> float:
        """Floating-point operations, about, of one training on half of the samples and answering all queries; 0 when they
        are counted as they happen."""
        ...
