"""A random subset with the class proportions of the data: the harder control."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from modicum.arrays import Array, NumPy, back, class_indices
from modicum.errors import BudgetError
from modicum.methods import Card
from modicum.reading import by_id, labels_of
from modicum.scores import Budget, Selection, as_budget

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits

__all__ = ["Stratified", "allocate", "stratified"]


def allocate(counts: NumPy, budget: Budget) -> NumPy:
    """How many samples each class gets: its share of k, by the method of largest remainders.

    Every class gets `floor(k n_c / n)`, and those with the largest remainders one more until k are given; ties go to the
    lower class. A class that would get none gets one, from the class that is furthest above its share, if k suffices.

    Args:
        counts: (c,) samples of each class; 0 for a class that is absent.
        budget: How much; a budget per class gives every present class as many.

    Returns:
        (c,) counts that sum to k.

    Raises:
        BudgetError: A class has too few samples for a budget per class, or k > n.

    Example:
        >>> allocate(np.array([50, 30, 20]), Budget(keep=5)).tolist()
        [3, 1, 1]
    """
    n, present = int(counts.sum()), counts > 0
    if budget.per_class is not None:
        least = int(counts[present].min())
        if least < budget.per_class:
            raise BudgetError(
                f"{budget} asks for more than the {least} samples of class {int(np.argmax(counts == least))}"
            )
        return np.where(present, budget.per_class, 0)
    k = budget.count(n)
    given, remainders = np.divmod(k * counts.astype(np.int64), n)
    given[np.argsort(-remainders, kind="stable")[: k - int(given.sum())]] += 1
    if k >= present.sum():
        share = k * counts / n
        for c in np.flatnonzero(present & (given == 0)):
            richest = np.argmax(np.where(given > 1, given - share, -np.inf))
            given[richest] -= 1
            given[c] = 1
    return given


def stratified(labels: Array, budget: Budget | float | int | str, generator: torch.Generator) -> Array:
    """A random sample of every class, in the proportions of the data.

    Args:
        labels: (n,) class indices.
        budget: How much; `Budget(per_class=10)` gives every class as many.
        generator: A CPU generator; from one seed, a class gives the first samples of one order, so that a larger subset
            contains a smaller one as long as no class is allotted fewer.

    Returns:
        (k,) sorted positions.

    Raises:
        BudgetError: The budget does not fit.
        DataError: Labels are empty, negative or not integers.

    Example:
        >>> labels = np.array([0, 0, 0, 0, 1, 1])
        >>> np.bincount(labels[stratified(labels, 0.5, torch.Generator().manual_seed(0))]).tolist()
        [2, 1]

    Reference:
        Cochran, Sampling Techniques, 1977, chapter 5.
    """
    of = class_indices("labels", labels)
    given = allocate(np.bincount(of), as_budget(budget))
    present = len(np.unique(of))
    if given.sum() < present:
        warnings.warn(f"budget of {int(given.sum())} is less than the {present} classes: some get none", stacklevel=2)
    order = torch.randperm(len(of), generator=generator).numpy()
    kept = [order[of[order] == c][: given[c]] for c in np.flatnonzero(given)]
    return back(np.sort(np.concatenate(kept)), labels, floating=False)


@dataclass(frozen=True)
class Stratified:
    """A random subset of every class, in the proportions of the data."""

    card: ClassVar[Card] = Card(
        key="stratified",
        title="A random subset with the class proportions of the data",
        paper="Cochran, Sampling Techniques, 1977",
        saves=("samples", "compute"),
    )

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection:
        """As `stratified`, in the order of the ids."""
        labels = labels_of("train", data.train)
        with ctx.ledger.clock("choose", self.card.key, labels=len(labels)):
            order = by_id(data.train)
            return Selection.made(order, stratified(labels[order], budget, ctx.generator(self.card.key)))
