"""Threshold kNN-Shapley: exact Shapley values when all points within a radius vote, in linear time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import Array
from modicum.errors import DataError
from modicum.methods import Card
from modicum.reading import labels_of
from modicum.valuation.nearest import (
    Measured,
    classes_of,
    count_of,
    distance_to_neighbor,
    labels_for,
    matches,
    mean_and_error,
    points,
    returned,
    score_by_neighbors,
)

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import Features
    from modicum.scores import Scores

__all__ = ["ThresholdKnnShapley", "neighbor_radius", "threshold_knn_shapley"]

PROBES = 500  # validation points that a radius is taken from


def threshold_knn_shapley(
    train_features: Array,
    train_targets: Array,
    valid_features: Array,
    valid_targets: Array,
    radius: float,
    classes: int | None = None,
) -> Array:
    """The exact Shapley value of every training sample when all neighbors within a radius vote.

    For one validation point let `a_i` be 1 for a training point of its label, otherwise 0. The utility `v(S)` is the mean of
    `a` over the points of S within the radius, and 1/C if there are none. Points outside are worth 0. With M points inside,
    A of them of the label, and `H_M = 1 + 1/2 + ... + 1/M`, a point inside is worth
    `(1/M) ((a_i - 1/C) + (a_i - (A - a_i) / (M - 1)) (H_M - 1))`. The result is the mean over the validation points, and
    sums to the mean utility of the whole training set less 1/C.

    Time is one matrix product and a few passes over the distances: nothing is sorted. Memory is that of `knn_shapley`.

    Args:
        train_features: (n, d) finite numbers.
        train_targets: (n,) class indices.
        valid_features: (m, d).
        valid_targets: (m,) class indices.
        radius: Euclidean; a point just as far is inside.
        classes: C; the classes of the training samples when None.

    Returns:
        (n,) values in units of the probability of the right label, higher = more worth keeping.

    Raises:
        DataError: Shapes do not fit, entries are not finite, the radius is not positive, or fewer classes than there are.

    Example:
        >>> x, y = np.array([[1.0], [2.0], [9.0]]), np.array([1, 0, 1])
        >>> threshold_knn_shapley(x, y, np.array([[0.0]]), np.array([1]), radius=3).tolist()
        [0.5, -0.5, 0.0]

    Reference:
        Wang, Zhu, Wang, Jia, Mittal, Threshold KNN-Shapley: A Linear-Time and Privacy-Friendly Approach to Data
        Valuation, 2023, arXiv 2308.15709.
    """
    given = (train_features, train_targets, valid_features, valid_targets)
    return returned(_measure(*given, radius, classes), train_features)


def _measure(
    train_features: Any,
    train_targets: Any,
    valid_features: Any,
    valid_targets: Any,
    radius: float,
    classes: int | None = None,
    errors: bool = False,
) -> Measured:
    at = points(train_features, valid_features)
    labels, wanted = labels_for(at, train_targets, valid_targets)
    number = isinstance(radius, (int, float, np.number)) and not isinstance(radius, bool)
    if not number or not 0 < radius < np.inf:
        raise DataError(f"radius={radius!r}; expected a positive finite distance")
    chance, square = 1 / classes_of(labels, classes), float(radius) ** 2
    harmonic = np.concatenate([[0], np.cumsum(1 / np.arange(1, len(labels) + 1))])

    def read(distances: Any, labels: Any, wanted: Any) -> tuple[None, Any]:
        inside, match = distances <= square, matches(labels[None], wanted)
        match *= inside
        members, right = inside.sum(1), match.sum(1)
        table = torch.from_numpy(harmonic).to(distances.device) if isinstance(distances, Tensor) else harmonic
        more = table[members] - 1
        others, members = (members - 1).clip(1), members.clip(1)
        good = ((1 - chance) + (1 - (right - 1) / others) * more) / members
        bad = (-chance - right / others * more) / members
        match *= (good - bad)[:, None]
        match += bad[:, None] * inside
        return None, match

    return mean_and_error(at, labels, wanted, read, errors)


def neighbor_radius(train_features: Any, valid_features: Any, neighbors: int = 10) -> float:
    """The median over validation points of the distance to their k-th nearest training point: half the balls hold k.

    Args:
        train_features: (n, d) finite numbers.
        valid_features: (m, d), of which at most 500, evenly spaced, are looked at.
        neighbors: k; n when there are fewer training points.

    Returns:
        A distance, greater than 0.

    Raises:
        DataError: Shapes do not fit, entries are not finite, or most of the distances are 0.

    Example:
        >>> neighbor_radius(np.array([[0.0], [1.0], [5.0]]), np.array([[0.5], [0.0], [4.0]]), neighbors=2)
        1.0
    """
    at = points(train_features, valid_features[:: _step(len(valid_features))])
    found = float(np.median(distance_to_neighbor(at, min(len(at.train), count_of("neighbors", neighbors)))))
    if not found > 0:
        raise DataError(
            f"half of the validation points lie on {neighbors} or more training points, so that no radius can be taken from "
            "their distances; give radius, or ask for more neighbors"
        )
    return found


def _step(m: int) -> int:
    return max(1, -(-m // PROBES))


@dataclass(frozen=True)
class ThresholdKnnShapley:
    """Threshold kNN-Shapley on an encoder's features: no training, nothing sorted, exact.

    Args:
        radius: Within which training samples vote, in the units of the features; when None, the median over the
            validation samples (at most 500) of the distance to their nearest training sample but `neighbors` - 1.
        neighbors: See `radius`.
        encoder: Whose features (see `modicum.measurement.Features`).
    """

    radius: float | None = None
    neighbors: int = 10
    encoder: str = "inputs"

    card: ClassVar[Card] = Card(
        key="threshold-knn-shapley",
        title="Exact Shapley values when all neighbors within a radius vote",
        paper="Wang et al., Threshold KNN-Shapley: A Linear-Time and Privacy-Friendly Approach to Data Valuation, 2023, "
        "arXiv 2308.15709",
        saves=("samples", "compute"),
        growth=2.0,
    )

    def needs(self) -> tuple[Features]:
        """Features of the training and the validation samples."""
        from modicum.measurement.features import Features

        return (Features(self.encoder),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Values in units of the probability of the right label, with their standard errors over the validation samples."""
        targets = labels_of("train", data.train, classes=2), labels_of("valid", data.valid)

        def values(near: Tensor, labels: Tensor, query: Tensor, wanted: Tensor) -> Measured:
            radius = neighbor_radius(near, query, self.neighbors) if self.radius is None else self.radius
            return _measure(near, labels, query, wanted, radius, data.train.classes or None, errors=True)

        m = len(data.valid)
        again = len(range(0, m, _step(m))) if self.radius is None else 0
        return score_by_neighbors(
            self.card.key, "validation probability", data, ctx, measured[0], targets, values, again
        )
