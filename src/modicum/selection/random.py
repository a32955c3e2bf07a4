"""A random subset: the control that every method must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from modicum.errors import DataError
from modicum.methods import Card
from modicum.reading import by_id
from modicum.scores import Budget, Selection, as_budget

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Dataset, Splits

__all__ = ["Random", "random_subset"]


def random_subset(samples: int | Dataset, budget: Budget | float | int | str, generator: torch.Generator) -> Tensor:
    """A simple random sample without replacement; every subset of the size is equally likely.

    Args:
        samples: Their number n, or a data set.
        budget: How much.
        generator: A CPU generator; from one seed, a smaller budget gives the first positions of a larger one.

    Returns:
        (k,) positions, in random order.

    Raises:
        BudgetError: More than n.
        DataError: No samples.

    Example:
        >>> seeded = lambda: torch.Generator().manual_seed(0)
        >>> bool((random_subset(10, 3, seeded()) == random_subset(10, 6, seeded())[:3]).all())
        True

    Reference:
        Cochran, Sampling Techniques, 1977, chapter 2.
    """
    n = samples if isinstance(samples, int) else len(samples)
    if n < 1:
        raise DataError(f"samples={n}; expected at least one sample")
    return torch.randperm(n, generator=generator)[: as_budget(budget).count(n)]


@dataclass(frozen=True)
class Random:
    """A random subset of the same size."""

    card: ClassVar[Card] = Card(
        key="random",
        title="A random subset",
        paper="Cochran, Sampling Techniques, 1977",
        saves=("samples", "compute"),
        tasks=("classification", "regression", "unlabeled"),
    )

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection:
        """A budget per class gives as many samples in all, of whatever class."""
        with ctx.ledger.clock("choose", self.card.key):
            order = by_id(data.train)
            classes = len(np.unique(data.train.labels)) if budget.per_class else 1
            k = budget.count(len(order), classes)
            return Selection.made(order, random_subset(len(order), k, ctx.generator(self.card.key)))
