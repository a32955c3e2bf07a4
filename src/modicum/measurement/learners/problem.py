"""What a learner is given, and what it must do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from modicum.ledger import Charge

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Dataset
    from modicum.training.recipe import Recipe

__all__ = ["BLOCK", "Growing", "Learner", "Outputs", "Problem", "counts_of", "in_blocks", "packed", "products"]

Outputs = Literal["scores", "logits", "probabilities"]
BLOCK = 1 << 24  # float64 entries that are held at a time


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
        failures: Subsets, as packed bits, on which the learner failed and a constant answer took its place; and why.
        memo: What learners make once for all subsets.
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
    failures: dict[bytes, str] = field(default_factory=dict)
    memo: dict[str, Tensor] = field(default_factory=dict)

    @property
    def columns(self) -> int:
        """Of the outputs: one per class, or one for regression."""
        return max(1, self.classes)

    @property
    def seed(self) -> int:
        """Of trainings that draw numbers: the same for every subset, so that a subset has one value."""
        return self.ctx.seed if self.ctx else 0

    def encoded(self) -> Tensor:
        """(n, c) targets for least squares: 1 for the class and -1 for the others; (n, 1) for regression."""
        if not self.classes:
            return self.targets[:, None].double()
        return 2 * torch.nn.functional.one_hot(self.targets, self.classes).double() - 1

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """What `make` makes, the first time only."""
        if name not in self.memo:
            self.memo[name] = make()
        return self.memo[name]

    def centered(self) -> tuple[Tensor, Tensor]:
        """(n, d) features and (m, d) queries less the mean of the features, so that squares do not cancel."""
        center = self.once("center", lambda: self.features.mean(0))
        return (
            self.once("features", lambda: self.features - center),
            self.once("queries", lambda: self.queries - center),
        )

    def charge(self, what: str, flops: int) -> None:
        """Operations that a learner counts as they happen."""
        if self.ctx is not None:
            self.ctx.ledger.add(Charge("choose", what, extra_flops=flops))

    def fail(self, mask: Tensor, why: str) -> None:
        """Report that the learner failed on a subset (n,)."""
        self.failures[packed(mask[None])[0]] = why


class Growing(Protocol):
    """Several training sets that grow by one sample at a time, each with its trained learner.

    Attributes:
        flops: Floating-point operations, about, of one addition to one set with its answers.
    """

    flops: float

    def step(self) -> Tensor:
        """Add the next sample of every set's order; (b, m, c) outputs for the queries then, good until the next call."""
        ...

    def keep(self, which: Tensor) -> None:
        """Go on with these sets only, by a (b,) boolean mask."""
        ...


@runtime_checkable
class Learner(Protocol):
    """A frozen dataclass: its fields are hyper-parameters.

    A subset it is asked about has at least one sample, and for classification at least two classes: the constant answers
    to others are not its business. A class that no sample of the subset has gets the output -inf, or the probability 0.

    Attributes:
        gives: What the outputs are: any scores whose greatest is the answer, logits, or probabilities.
        reads: `features`, or the `inputs` themselves, for which no features are made.
        any_subset: Whether it has an answer of its own for sets of one class too, as nearest neighbors have.
        costly: Whether training takes so long that every answer is kept on disk.
    """

    reads: ClassVar[Literal["features", "inputs"]]
    any_subset: ClassVar[bool]
    costly: ClassVar[bool]

    @property
    def gives(self) -> Outputs: ...

    def outputs(self, problem: Problem, masks: Tensor) -> Tensor:
        """(b, m, c) float64 outputs for the queries after training on each of the (b, n) boolean masks."""
        ...

    def start(self, problem: Problem, orders: Tensor) -> Growing | None:
        """Empty training sets that will grow in the given (b, n) orders, faster than by training anew; None when there is
        no such way."""
        ...

    def room(self, problem: Problem) -> int:
        """Numbers, of 8 bytes each, that one growing set or one training keeps in memory, without the outputs."""
        ...

    def flops(self, problem: Problem, size: float) -> float:
        """Floating-point operations, about, of one training on so many samples and answering all queries; 0 when they
        are counted as they happen, or are not known."""
        ...


def packed(masks: Tensor) -> list[bytes]:
    """The bits of each (b, n) mask."""
    return [row.tobytes() for row in np.packbits(masks.cpu().numpy(), axis=1)]


def counts_of(problem: Problem, masks: Tensor) -> Tensor:
    """(b, c) float64 number of samples that each subset has of each class."""
    return masks.double() @ torch.nn.functional.one_hot(problem.targets, problem.classes).double()


def products(rows: Tensor, masks: Tensor) -> Tensor:
    """(b, d, d) sums of the products `x x'` over the rows (n, d) of each subset (b, n); right in the lower triangle."""
    n, d = rows.shape
    made = torch.zeros(len(masks), d, d, dtype=torch.float64, device=rows.device)
    if len(masks) < 8 or d > 256:
        for i, mask in enumerate(masks):
            some = rows[mask]
            made[i] = some.T @ some
        return made
    low, high = torch.tril_indices(d, d, device=rows.device)
    step = max(1, BLOCK // len(low))
    total: Tensor | float = 0.0
    for start in range(0, n, step):  # one matrix product for all subsets
        part = slice(start, start + step)
        total = masks[:, part].double() @ (rows[part][:, low] * rows[part][:, high]) + total
    made[:, low, high] = torch.as_tensor(total)
    return made


def in_blocks(masks: Tensor, room: int, answer: Callable[[Tensor], Tensor]) -> Tensor:
    """Answers (b, m, c) a block of the masks at a time, each mask needing so much room."""
    rows = max(1, BLOCK // (room + 2 * masks.shape[1]))
    parts = [answer(part) for part in torch.split(masks, rows)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
