"""Moderate coreset: samples whose distance to the center of their class is near the median distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from modicum.arrays import Array, NumPy, back, class_indices, to_numpy
from modicum.arrays import features as checked_features
from modicum.errors import BudgetError, ModicumError
from modicum.methods import Card
from modicum.options import check_options
from modicum.reading import by_id, labels_of, rows_of
from modicum.scores import Budget, Selection, as_budget
from modicum.selection.by_class import by_class
from modicum.selection.ranks import first_of

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import Features

__all__ = ["Moderate", "moderate", "prototype_distances"]

BLOCK = 1 << 22  # entries of a block of differences


def prototype_distances(features: Array, targets: Array) -> Array:
    """The distance of every sample to the prototype of its class, the median of the class in every dimension.

    `d_i = ||h_i - median{h_j : y_j = y_i}||_2`. The median, where the paper writes of the class center, is what its
    authors run; a few wrong labels do not move it.

    Time is O(n d), memory that of the features of the largest class
    twice.

    Args:
        features: (n, d).
        targets: (n,) class indices.

    Returns:
        (n,) distances.

    Raises:
        DataError: Shapes do not fit, or a feature is not finite.

    Example:
        >>> prototype_distances(np.array([[0.0], [1.0], [5.0], [7.0]]), np.array([0, 0, 0, 1])).tolist()
        [1.0, 0.0, 4.0, 0.0]

    Reference:
        Xia et al., Moderate Coreset: A Universal Method of Data Selection for Real-world Data-efficient Deep Learning,
        2023 (ICLR).
    """
    rows = checked_features("features", features)
    of = class_indices("targets", targets, len(rows))
    distances = np.empty(len(rows), dtype=rows.dtype)
    step = max(1, BLOCK // rows.shape[1])
    for c in np.unique(of):
        members = np.flatnonzero(of == c)
        prototype = np.median(rows[members], axis=0)
        for start in range(0, len(members), step):
            part = members[start : start + step]
            distances[part] = np.linalg.norm(rows[part] - prototype, axis=1)
    return back(distances, features)


def moderate(
    features: Array,
    targets: Array,
    budget: Budget | float | int | str,
    per_class: bool = False,
    class_balance: float = 0.0,
) -> Array:
    """Keep the block around the median of the distances to the class prototypes.

    The samples are ranked by `prototype_distances`; kept are the k ranks nearest the middle rank (n - 1) / 2, so that as
    many are left out on either side, up to one. Easy samples teach little and far ones are often noise. Equal distances
    rank by position.

    Args:
        features: (n, d).
        targets: (n,) class indices.
        budget: How much; a budget per class ranks class by class.
        per_class: Rank within each class, whose part is that of the data, and not over all classes.
        class_balance: In [0, 1]: every class keeps at least this share of k / c samples; for the joint ranking.

    Returns:
        (k,) sorted positions; a smaller budget gives a subset of a larger one where the ranking is joint.

    Raises:
        BudgetError: The budget does not fit, or class_balance is out of range or given with per_class.
        DataError: Shapes do not fit, or a feature is not finite.

    Example:
        >>> moderate(np.array([[0.0], [1.0], [2.0], [4.0], [9.0]]), np.zeros(5, dtype=int), 3).tolist()
        [0, 1, 3]

    Reference:
        Xia et al., Moderate Coreset: A Universal Method of Data Selection for Real-world Data-efficient Deep Learning,
        2023 (ICLR).
    """
    distances = to_numpy("features", prototype_distances(features, targets))
    of = class_indices("targets", targets)
    if per_class and class_balance:
        raise BudgetError(f"class_balance={class_balance} with per_class=True; expected one, as per_class gives shares")
    kept = _block(distances, of, as_budget(budget), per_class, class_balance)
    return back(np.sort(kept), targets, floating=False)


def _block(distances: NumPy, of: NumPy, budget: Budget, per_class: bool, class_balance: float) -> NumPy:
    if per_class or budget.per_class:
        return by_class(of, budget, lambda members, k: (_outwards(distances[members])[:k], None))[0]
    return first_of(_outwards(distances), budget, of, class_balance)


def _outwards(distances: NumPy) -> NumPy:
    """Positions from the middle rank outwards, the lower rank first."""
    n = len(distances)
    away = np.abs(np.arange(n) - (n - 1) / 2)
    sequence: NumPy = np.argsort(distances, kind="stable")[np.argsort(away, kind="stable")]
    return sequence


@dataclass(frozen=True)
class Moderate:
    """Neither the easiest nor the hardest: those about as far from the center of their class as most.

    The program released with the paper names the two tails of the ranking; these are what is left out, not what is kept.

    Args:
        encoder: Whose features (see `modicum.measurement.Features`).
        per_class: Rank within each class and not over all classes.
        class_balance: Every class keeps at least this share of k / c samples; for the joint ranking.
    """

    encoder: str = "trained"
    per_class: bool = False
    class_balance: float = 0.0

    card: ClassVar[Card] = Card(
        key="moderate",
        title="Samples at a middling distance from the center of their class",
        paper="Xia et al., Moderate Coreset: A Universal Method of Data Selection for Real-world Data-efficient Deep "
        "Learning, 2023 (ICLR)",
        saves=("samples", "compute"),
    )

    def __post_init__(self) -> None:
        check_options(self, shares=("class_balance",))
        if self.per_class and self.class_balance:
            raise ModicumError(
                f"method 'moderate' option class_balance={self.class_balance} is for per_class=False, as per_class=True "
                "gives every class its share; give one of them"
            )

    def needs(self) -> tuple[Features]:
        """Features of the training samples."""
        from modicum.measurement.features import Features

        return (Features(self.encoder),)

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection:
        """A budget per class ranks within each class; charged with 3 n d operations."""
        order = by_id(data.train)
        of = labels_of("train", data.train)[order].numpy()
        rows = rows_of("train features", measured[0].train, data.train)
        with ctx.ledger.clock("choose", self.card.key, extra_flops=3 * rows.numel(), labels=len(of)):
            distances = prototype_distances(checked_features("train features", rows[order]), of)
            kept = _block(distances, of, budget, self.per_class, self.class_balance)
            middle = np.full(of.max() + 1, np.median(distances))
            if self.per_class or budget.per_class:
                middle[np.unique(of)] = [np.median(distances[of == c]) for c in np.unique(of)]
            reasons = np.where(distances < middle[of], "too near its prototype", "too far from its prototype").astype(
                object
            )
            reasons[kept] = "near the median distance"
            return Selection.made(order, kept, values=distances, unit="distance to the class median", reasons=reasons)
