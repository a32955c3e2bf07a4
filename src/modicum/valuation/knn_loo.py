"""Leave-one-out values of a nearest-neighbor classifier, in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np

from modicum.arrays import Array
from modicum.valuation.nearest import (
    Measured,
    count_of,
    labels_for,
    mean_and_error,
    points,
    ranked_by_match,
    returned,
)

__all__ = ["knn_loo", "knn_loo_and_error"]


def knn_loo(
    train_features: Array, train_targets: Array, valid_features: Array, valid_targets: Array, k: int = 5
) -> Array:
    """What the accuracy of k nearest neighbors loses when a training sample is left out.

    For the hard utility v of `knn_shapley`, `v(D) - v(D - i) = (a_i - a_{k+1}) / k` for the k nearest of a validation point
    and 0 for all others, where `a_i` is 1 if the i-th nearest has its label, otherwise 0, and `a_{k+1} = 0` if n <= k.
    The result is the mean over the validation points: a sample that is nowhere among the k nearest is worth exactly 0.

    Time is one matrix product and one partial sort a validation point; memory is that of `knn_shapley`.

    Args:
        train_features: (n, d) finite numbers, n at least 2.
        train_targets: (n,) class indices.
        valid_features: (m, d).
        valid_targets: (m,) class indices.
        k: Neighbors that vote; may exceed n.

    Returns:
        (n,) values in units of accuracy, higher = more worth keeping.

    Raises:
        DataError: Shapes do not fit, entries are not finite, k < 1, or there is one training sample only.

    Example:
        >>> x, y = np.array([[1.0], [2.0], [3.0]]), np.array([1, 0, 1])
        >>> knn_loo(x, y, np.array([[0.0]]), np.array([1]), k=2).tolist()
        [0.0, -0.5, 0.0]

    Reference:
        Ghorbani, Zou, Data Shapley: Equitable Valuation of Data for Machine Learning, 2019, arXiv 1904.02868
        (leave-one-out as the baseline of valuations).
    """
    return returned(knn_loo_and_error(train_features, train_targets, valid_features, valid_targets, k), train_features)


def knn_loo_and_error(
    train_features: Any, train_targets: Any, valid_features: Any, valid_targets: Any, k: int = 5, errors: bool = True
) -> Measured:
    """The values (n,) of `knn_loo` in double precision, and their standard errors over the validation points."""
    at = points(train_features, valid_features)
    labels, wanted = labels_for(at, train_targets, valid_targets)
    n, k = count_of("the number of training samples", len(labels), 2), count_of("k", k)
    weights = np.full(min(n, k + 1), 1 / k)
    weights[k:] = 0
    return mean_and_error(at, labels, wanted, ranked_by_match(weights), errors)
