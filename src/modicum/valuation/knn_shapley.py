"""kNN-Shapley: the exact Shapley value of every training sample for a nearest-neighbor classifier."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import Array, NumPy
from modicum.errors import DataError
from modicum.methods import Card
from modicum.reading import labels_of
from modicum.valuation.nearest import (
    Measured,
    Reader,
    classes_of,
    count_of,
    from_ranked,
    labels_for,
    matches,
    mean_and_error,
    nearest,
    points,
    ranked_by_match,
    returned,
    score_by_neighbors,
    taken,
)

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import Features
    from modicum.scores import Scores

__all__ = ["KnnShapley", "knn_shapley"]

UTILITIES = ("hard", "soft")


def knn_shapley(
    train_features: Array,
    train_targets: Array,
    valid_features: Array,
    valid_targets: Array,
    k: int = 5,
    utility: Literal["hard", "soft"] = "hard",
    *,
    weight: Callable[[Tensor], Tensor] | None = None,
    truncate: float | None = None,
    classes: int | None = None,
) -> Array:
    """The exact Shapley value of every training sample for k nearest neighbors.

    For one validation point let `a_i` be 1 for the i-th nearest training point (Euclidean; ties by index) if its label is
    that of the validation point, otherwise 0. The utility of a set S of training points is

    - hard: `v(S) = (1/k) sum_{j <= min(k, |S|)} a_(j)(S)`, and 0 for the empty set: the share of k votes for the label;
    - soft: `v(S) = (1/min(k, |S|)) sum_{j <= min(k, |S|)} a_(j)(S)`, and 1/C for the empty set: the probability of the
      label by those who vote.

    Hard: `s_n = a_n / max(k, n)` and `s_i = s_{i+1} + (a_i - a_{i+1}) / max(k, i)`. Soft: with k at most n, the same plus
    `(H_k - 1) / (n - 1) (a_i - mean(a)) - 1 / (n C)`, where `H_k = 1 + 1/2 + ... + 1/k`; this equals the recursion of Wang
    and Jia, and shows that the two differ by what no distance enters. The result is the mean over the validation
    points, and sums to the mean utility of the whole training set less that of the empty set. Instead of 1 a neighbor of
    the right label may be worth any `weight` of its distance (weights are not normalized: that value has no fast form).

    Truncated, only the `K = max(k, ceil(1/truncate))` nearest are ranked, and `s_K = 0` starts the recursion. As
    `|s_i| <= 1 / max(k, i)`, every value is at most `truncate` off (times the greatest weight).

    Time is one matrix product and one sort a validation point, or one partial sort when truncated. Memory on top of the
    features is `8 d (n + m) + 8 n min(m, max(1, 2^23 / n)) + 80 t max(n, min(m n, 2^17))` bytes with t threads: the features
    in double precision, a block of distances, and what each thread ranks at a time.

    Args:
        train_features: (n, d) finite numbers; distances are made in double precision whatever theirs is, because
            rounding would swap neighbors.
        train_targets: (n,) class indices.
        valid_features: (m, d).
        valid_targets: (m,) class indices; a class that no training sample has is worth nothing to anybody, with a
                warning.
        k: Neighbors that vote; may exceed n.
        utility: `hard` or `soft`.
        weight: What a neighbor of the right label is worth by its squared distance: from a float64 tensor of any shape to
            one of the same shape. It may be called from several threads.
        truncate: The greatest error of a value that is accepted for speed, in (0, 1]; exact when None.
        classes: C, for the soft utility of the empty set; the classes of the training samples when None.

    Returns:
        (n,) values in units of accuracy, higher = more worth keeping.

    Raises:
        DataError: Shapes do not fit, entries are not finite, or an option is out of range.

    Example:
        >>> x, y = np.array([[1.0], [2.0], [3.0]]), np.array([1, 0, 1])
        >>> knn_shapley(x, y, np.array([[0.0]]), np.array([1]), k=1).round(4).tolist()
        [0.8333, -0.1667, 0.3333]

    Reference:
        Jia et al., Efficient Task-Specific Data Valuation for Nearest Neighbor Algorithms, 2019, arXiv 1908.08619.
        Wang, Jia, A Note on "Efficient Task-Specific Data Valuation for Nearest Neighbor Algorithms", 2023,
        arXiv 2304.04258 (soft).
    """
    given = (train_features, train_targets, valid_features, valid_targets)
    return returned(_measure(*given, k, utility, weight, truncate, classes), train_features)


def _measure(
    train_features: Any,
    train_targets: Any,
    valid_features: Any,
    valid_targets: Any,
    k: int,
    utility: str,
    weight: Callable[[Tensor], Tensor] | None = None,
    truncate: float | None = None,
    classes: int | None = None,
    errors: bool = False,
) -> Measured:
    at = points(train_features, valid_features)
    labels, wanted = labels_for(at, train_targets, valid_targets)
    k, n = count_of("k", k), len(labels)
    if utility not in UTILITIES:
        raise DataError(f"utility={utility!r}; expected one of {UTILITIES}")
    keep = n
    if truncate is not None:
        if isinstance(truncate, bool) or not isinstance(truncate, (int, float, np.number)) or not 0 < truncate <= 1:
            raise DataError(f"truncate={truncate!r}; expected the greatest error of a value, in (0, 1], or None")
        keep = min(n, max(k, math.ceil(1 / truncate)))
    weights = 1.0 / np.maximum(np.arange(1, keep + 1), min(k, n) if utility == "soft" else k)
    if keep < n:
        weights[-1] = 0
    read = ranked_by_match(weights)
    if utility == "soft":
        read = _soft(weights, min(k, n), classes_of(labels, classes), weight)
    elif weight is not None:
        read = _weighted(weights, weight)
    return mean_and_error(at, labels, wanted, read, errors)


def _weighted(weights: NumPy, weight: Callable[[Tensor], Tensor]) -> Reader:
    def read(distances: Any, labels: Any, wanted: Any) -> tuple[Any, Any]:
        order = nearest(distances, len(weights))
        worth = matches(labels[order], wanted) * _worth(weight, taken(distances, order))
        return order, from_ranked(worth, weights)

    return read


def _soft(weights: NumPy, k: int, classes: int, weight: Callable[[Tensor], Tensor] | None) -> Reader:
    harmonic = sum(1 / j for j in range(1, k + 1))

    def read(distances: Any, labels: Any, wanted: Any) -> tuple[None, Any]:
        n = distances.shape[1]
        order = nearest(distances, len(weights))
        worth = matches(labels[None], wanted)
        if weight is not None:
            worth *= _worth(weight, distances)
        ranked = from_ranked(taken(worth, order), weights)
        worth -= worth.mean(-1)[:, None]
        worth *= (harmonic - 1) / max(1, n - 1)
        worth -= 1 / (n * classes)
        if isinstance(worth, Tensor):
            return None, worth.scatter_add_(1, order, ranked)
        worth[np.arange(len(order))[:, None], order] += ranked
        return None, worth

    return read


def _worth(weight: Callable[[Tensor], Tensor], distances: Any) -> Any:
    """What a user's function makes of squared distances, checked."""
    given = distances if isinstance(distances, Tensor) else torch.from_numpy(distances)
    found = torch.as_tensor(weight(given), dtype=torch.float64, device=given.device)
    if found.shape != given.shape or not bool(found.isfinite().all()):
        what = f"shape {tuple(found.shape)}" if found.shape != given.shape else "entries that are not finite"
        raise DataError(
            f"weight gave {what} for squared distances of shape {tuple(given.shape)}; expected as many finite weights"
        )
    return found if isinstance(distances, Tensor) else found.numpy()


@dataclass(frozen=True)
class KnnShapley:
    """kNN-Shapley on an encoder's features: no training, exact; negative for samples that mislead.

    Args:
        k: Neighbors that vote.
        encoder: Whose features (see `modicum.measurement.Features`).
        utility: `hard`: the share of k votes for the right label; `soft`: its probability by those who vote.
        truncate: The greatest error of a value that is accepted for speed, such as 0.01; exact when None.
    """

    k: int = 5
    encoder: str = "inputs"
    utility: Literal["hard", "soft"] = "hard"
    truncate: float | None = None

    card: ClassVar[Card] = Card(
        key="knn-shapley",
        title="Exact Shapley values of a nearest-neighbor classifier",
        paper="Jia et al., Efficient Task-Specific Data Valuation for Nearest Neighbor Algorithms, 2019, "
        "arXiv 1908.08619",
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
        classes = data.train.classes or None

        def values(near: Any, own: Any, query: Any, wanted: Any) -> Measured:
            return _measure(near, own, query, wanted, self.k, self.utility, None, self.truncate, classes, errors=True)

        return score_by_neighbors(self.card.key, "validation accuracy", data, ctx, measured[0], targets, values)
