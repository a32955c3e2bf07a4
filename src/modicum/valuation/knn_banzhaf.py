"""kNN-Banzhaf: the exact Banzhaf value of every training sample for a nearest-neighbor classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from modicum.arrays import Array, NumPy
from modicum.methods import Card
from modicum.reading import labels_of
from modicum.valuation.nearest import (
    Measured,
    count_of,
    labels_for,
    mean_and_error,
    points,
    ranked_by_match,
    returned,
    score_by_neighbors,
)

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import Features
    from modicum.scores import Scores

__all__ = ["KnnBanzhaf", "knn_banzhaf"]


def knn_banzhaf(
    train_features: Array, train_targets: Array, valid_features: Array, valid_targets: Array, k: int = 5
) -> Array:
    """The exact Banzhaf value of every training sample for the accuracy of k nearest neighbors.

    The mean of `v(S + i) - v(S)` over all sets S of the other samples, for the hard utility of `knn_shapley`. With the
    training points ranked by distance and `a_i` 1 for the label of the validation point, otherwise 0,
    `b_n = (a_n / k) P[Bin(n - 1, 1/2) < k]` and `b_i = b_{i+1} + (a_i - a_{i+1}) / k P[Bin(i - 1, 1/2) < k]`. The result is
    the mean over the validation points. Unlike Shapley values they do not sum to the utility.

    The probability halves with nearly every rank, so only the nearest for which it is a normal number of double
    precision are ranked (1,023 for k = 1, 1,058 for k = 5), by a partial sort. Time and memory are those of
    `knn_shapley` with `truncate`.

    Args:
        train_features: (n, d) finite numbers.
        train_targets: (n,) class indices.
        valid_features: (m, d).
        valid_targets: (m,) class indices.
        k: Neighbors that vote; may exceed n.

    Returns:
        (n,) values in units of accuracy, higher = more worth keeping.

    Raises:
        DataError: Shapes do not fit, entries are not finite, or k < 1.

    Example:
        >>> x, y = np.array([[1.0], [2.0], [3.0]]), np.array([1, 0, 1])
        >>> knn_banzhaf(x, y, np.array([[0.0]]), np.array([1]), k=1).tolist()
        [0.75, -0.25, 0.25]

    Reference:
        Wang, Jia, Data Banzhaf: A Robust Data Valuation Framework for Machine Learning, 2023, arXiv 2205.15466 (the
        value; the recursion for nearest neighbors has the form of Jia et al., 2019, arXiv 1908.08619).
    """
    return returned(_measure(train_features, train_targets, valid_features, valid_targets, k), train_features)


def _measure(
    train_features: Any, train_targets: Any, valid_features: Any, valid_targets: Any, k: int, errors: bool = False
) -> Measured:
    at = points(train_features, valid_features)
    labels, wanted = labels_for(at, train_targets, valid_targets)
    return mean_and_error(at, labels, wanted, ranked_by_match(_weights(len(labels), count_of("k", k))), errors)


def _weights(n: int, k: int) -> NumPy:
    """(r,) 1/k times the chance that fewer than k of the nearer points are there, for ranks where it is a normal number."""
    from scipy.special import bdtr

    nearer = np.arange(n)
    chance = np.where(nearer < k, 1.0, bdtr(np.minimum(k - 1.0, nearer), nearer, 0.5))
    weights: NumPy = chance[chance >= np.finfo(np.float64).tiny] / k
    return weights


@dataclass(frozen=True)
class KnnBanzhaf:
    """kNN-Banzhaf on an encoder's features: no training, exact; counts every set of other samples alike.

    Args:
        k: Neighbors that vote.
        encoder: Whose features (see `modicum.measurement.Features`).
    """

    k: int = 5
    encoder: str = "inputs"

    card: ClassVar[Card] = Card(
        key="knn-banzhaf",
        title="Exact Banzhaf values of a nearest-neighbor classifier",
        paper="Wang, Jia, Data Banzhaf: A Robust Data Valuation Framework for Machine Learning, 2023, arXiv 2205.15466",
        saves=("samples", "compute"),
        growth=2.0,
    )

    def needs(self) -> tuple[Features]:
        """Features of the training and the validation samples."""
        from modicum.measurement.features import Features

        return (Features(self.encoder),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Values in units of validation accuracy, with their standard errors over the validation samples."""
        targets = labels_of("train", data.train, classes=2), labels_of("valid", data.valid)

        def values(near: Any, own: Any, query: Any, wanted: Any) -> Measured:
            return _measure(near, own, query, wanted, self.k, errors=True)

        return score_by_neighbors(self.card.key, "validation accuracy", data, ctx, measured[0], targets, values)
