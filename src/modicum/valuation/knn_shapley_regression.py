"""kNN-Shapley for regression: the exact Shapley value of every training sample for a nearest-neighbor regressor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import Array, NumPy, real
from modicum.errors import DataError
from modicum.methods import Card
from modicum.valuation.nearest import (
    Measured,
    Reader,
    count_of,
    mean_and_error,
    nearest,
    points,
    returned,
    score_by_neighbors,
)

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Dataset, Splits
    from modicum.measurement.features import Features
    from modicum.scores import Scores

__all__ = ["KnnShapleyRegression", "knn_shapley_regression"]


def knn_shapley_regression(
    train_features: Array, train_targets: Array, valid_features: Array, valid_targets: Array, k: int = 5
) -> Array:
    """The exact Shapley value of every training sample for the squared error of k nearest neighbors.

    For one validation point with target t the utility of a set S is `v(S) = -((1/k) sum_{j <= min(k, |S|)} y_(j)(S) - t)^2`, so
    that `v(empty) = -t^2`: fewer than k neighbors predict toward 0. Targets should therefore be centered at what is
    predicted without data, such as their mean. With the training points ranked by distance (Euclidean; ties by index),
    `q_i = min(k, i)` and `Y_i = y_1 + ... + y_i`:

    - `s_n = -(1/n) y_n (y_n / k - 2t + (k - 1) / k Y_{n-1} / (n - 1))`;
    - `s_i = s_{i+1} + (y_{i+1} - y_i) / k^2 (q_i / i (y_i + y_{i+1} + (q_i - 1) / (i - 1) Y_{i-1} - 2tk) + G_{i+2})`, where
      `G_l = g_l y_l + ... + g_n y_n` and `g_l = q_{l-1} min(k - 1, l - 2) / ((l - 1)(l - 2))`.

    This is the recursion of Jia et al. with `t^2 / n` added to every value, without which the values would not sum to
    `v(D) - v(empty)`. The result is the mean over the validation points.

    Time is one matrix product, one sort and four running sums a validation point; memory is that of `knn_shapley`.

    Args:
        train_features: (n, d) finite numbers.
        train_targets: (n,) finite numbers.
        valid_features: (m, d).
        valid_targets: (m,) finite numbers.
        k: Neighbors whose targets are averaged, at most n.

    Returns:
        (n,) values in units of the squared target, higher = more worth keeping.

    Raises:
        DataError: Shapes do not fit, entries are not finite, k < 1 or k > n.

    Example:
        >>> x, y = np.array([[1.0], [2.0]]), np.array([1.0, -1.0])
        >>> knn_shapley_regression(x, y, np.array([[0.0]]), np.array([1.0]), k=1).tolist()
        [2.5, -1.5]

    Reference:
        Jia et al., Efficient Task-Specific Data Valuation for Nearest Neighbor Algorithms, 2019, arXiv 1908.08619.
    """
    return returned(_measure(train_features, train_targets, valid_features, valid_targets, k), train_features)


def _measure(
    train_features: Any, train_targets: Any, valid_features: Any, valid_targets: Any, k: int, errors: bool = False
) -> Measured:
    at = points(train_features, valid_features)
    n = len(at.train)
    own, wanted = _targets("train_targets", train_targets, n), _targets("valid_targets", valid_targets, len(at.valid))
    if count_of("k", k) > n:
        raise DataError(f"k={k} is more than the {n} training samples; expected an integer from 1 to {n}")
    return mean_and_error(at, own, wanted, _reader(n, int(k)), errors)


def _targets(name: str, targets: Any, n: int) -> NumPy:
    checked = real(name, targets, (1,), "(n,), one number a sample")
    if len(checked) != n:
        raise DataError(f"{name} has shape {checked.shape}; expected ({n},), one number a sample")
    return checked.astype(np.float64)


def _reader(n: int, k: int) -> Reader:
    """Values from ranked targets by running sums."""
    rank = np.arange(1, n + 1)
    votes = np.minimum(k, rank)
    share = votes / rank  # that a point is voting when it is the last to come of the first i
    before = share * (votes - 1) / np.maximum(rank - 1, 1)
    after = np.zeros(n)
    after[2:] = votes[1:-1] * np.minimum(k - 1, rank[:-2]) / (rank[1:-1] * rank[:-2])

    def read(distances: Any, own: Any, wanted: Any) -> tuple[Any, Any]:
        order = nearest(distances, n)
        y, t = own[order], wanted[:, None]
        columns: tuple[Any, ...] = (share, before, after)
        if isinstance(y, Tensor):
            columns = tuple(torch.from_numpy(column).to(y.device) for column in columns)
        vote, earlier, later = columns
        sums = y.cumsum(1)
        far = y * later
        far = far[:, 2:].sum(1)[:, None] - far.cumsum(1)  # column l: the weighted sum of those after rank l + 1
        step = sums - y  # of those before
        last = step[:, -1] / max(1, n - 1)
        step *= earlier
        step[:, :-1] += vote[:-1] * (y[:, :-1] + y[:, 1:] - 2 * k * t) + far[:, 1:]
        step[:, :-1] *= (y[:, 1:] - y[:, :-1]) / k**2
        step[:, -1] = y[:, -1] * (2 * t[:, 0] - y[:, -1] / k - (k - 1) / k * last) / n
        if isinstance(step, Tensor):
            return order, step.flip(1).cumsum(1).flip(1)
        return order, np.cumsum(step[:, ::-1], axis=1)[:, ::-1]

    return read


@dataclass(frozen=True)
class KnnShapleyRegression:
    """kNN-Shapley for regression on an encoder's features, with standardized targets: no training, exact.

    Args:
        k: Neighbors whose targets are averaged.
        encoder: Whose features (see `modicum.measurement.Features`).
    """

    k: int = 5
    encoder: str = "inputs"

    card: ClassVar[Card] = Card(
        key="knn-shapley-regression",
        title="Exact Shapley values of a nearest-neighbor regressor",
        paper="Jia et al., Efficient Task-Specific Data Valuation for Nearest Neighbor Algorithms, 2019, "
        "arXiv 1908.08619",
        saves=("samples", "compute"),
        tasks=("regression",),
        growth=2.0,
    )

    def needs(self) -> tuple[Features]:
        """Features of the training and the validation samples."""
        from modicum.measurement.features import Features

        return (Features(self.encoder),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Values in units of the squared standardized target, with their standard errors over the validation samples."""
        targets = _targets_of("train", data.train), _targets_of("valid", data.valid)

        def values(near: Any, own: Any, query: Any, wanted: Any) -> Measured:
            return _measure(near, own, query, wanted, self.k, errors=True)

        return score_by_neighbors(self.card.key, "squared standardized target", data, ctx, measured[0], targets, values)


def _targets_of(name: str, dataset: Dataset) -> Tensor:
    """(n,) standardized targets."""
    if not len(dataset):
        raise DataError(f"{name} has 0 samples; expected at least one")
    if dataset.targets is None or dataset.info.task != "regression":
        raise DataError(f"regression targets are needed, but this data set is for {dataset.info.task}")
    targets = (dataset.targets.double() - dataset.info.target_mean) / dataset.info.target_std
    return targets
