"""Selections that are made class by class."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from modicum.arrays import NumPy
from modicum.errors import BudgetError
from modicum.scores import Budget, as_budget
from modicum.selection.stratified import allocate

__all__ = ["by_class", "count_of"]

Pick: TypeAlias = Callable[[NumPy, int], tuple[NumPy, "NumPy | None"]]


def by_class(labels: NumPy, budget: Budget, pick: Pick) -> tuple[NumPy, NumPy | None]:
    """Ask for a part of each class, the parts in the proportions of the data.

    Args:
        labels: (n,) class indices.
        budget: How much; see `modicum.selection.stratified.allocate`.
        pick: Given the positions of the members of a class and how many are wanted of them, which of the members (as
            places among them), and their weights or None.

    Returns:
        (k,) positions in the order they were picked, class after class, and their weights or None.

    Example:
        >>> picks, _ = by_class(np.array([0, 1, 0, 1]), Budget(per_class=1), lambda members, k: (np.arange(k), None))
        >>> picks.tolist()
        [0, 1]
    """
    given = allocate(np.bincount(labels), budget)
    picks, weights = [], []
    for c in np.flatnonzero(given):
        members = np.flatnonzero(labels == c)
        at, heavy = pick(members, int(given[c]))
        picks.append(members[at])
        if heavy is not None:
            weights.append(heavy)
    return np.concatenate(picks), np.concatenate(weights) if weights else None


def count_of(budget: Budget | float | int | str, n: int) -> int:
    """How many of n samples whose classes are not known.

    Raises:
        BudgetError: More than n, or a budget per class.

    Example:
        >>> count_of(0.25, 8)
        2
    """
    made = as_budget(budget)
    if made.per_class is not None:
        raise BudgetError(f"budget={made} is per class, but no classes are given here; expected a share or a count")
    return made.count(n)
