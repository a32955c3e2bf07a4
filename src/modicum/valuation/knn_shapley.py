"""kNN-Shapley: the exact Shapley value of every training sample for a nearest-neighbor classifier."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import Array, NumPy, back, center_of, class_indices, distinct, features
from modicum.errors import DataError
from modicum.methods import Card
from modicum.reading import by_id, labels_of, rows_of
from modicum.scores import Scores

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import Features

__all__ = ["KnnShapley", "knn_shapley"]

BLOCK = 1 << 23  # distances at a time
CHUNK = 1 << 17  # of which so many are ranked at a time, to stay in the cache
THREADS = 2


def knn_shapley(
    train_features: Array, train_targets: Array, valid_features: Array, valid_targets: Array, k: int = 5
) -> Array:
    """The exact Shapley value of every training sample for the accuracy of k nearest neighbors.

    For one validation point the utility of a set S is `v(S) = (1/k) sum_{j <= min(k, |S|)} a_(j)(S)`, where `a` is 1 for
    a neighbor of the same label and 0 otherwise, and `v(empty) = 0`. With the training points ranked by distance
    (Euclidean; ties by index), `s_n = a_n / max(k, n)` and `s_i = s_{i+1} + (a_i - a_{i+1}) / max(k, i)`. The result is
    the mean over the validation points, and sums to the mean utility of the whole training set.

    Time is one matrix product and one sort a validation point; memory is that of the features in double precision
    and about 150 MB, however many validation points there are.

    Args:
        train_features: (n, d) finite numbers; distances are made in double precision whatever theirs is, because
            rounding would swap neighbors.
        train_targets: (n,) class indices.
        valid_features: (m, d).
        valid_targets: (m,) class indices; a class that no training sample has is worth nothing to anybody, with a
                warning.
        k: Neighbors that vote; may exceed n.

    Returns:
        (n,) values in units of accuracy, higher = more worth keeping.

    Raises:
        DataError: Shapes do not fit, entries are not finite, or k < 1.

    Example:
        >>> x, y = np.array([[1.0], [2.0], [3.0]]), np.array([1, 0, 1])
        >>> knn_shapley(x, y, np.array([[0.0]]), np.array([1]), k=1).round(4).tolist()
        [0.8333, -0.1667, 0.3333]

    Reference:
        Jia et al., Efficient Task-Specific Data Valuation for Nearest Neighbor Algorithms, 2019, arXiv 1908.08619.
    """
    train, valid = features("train_features", train_features), features("valid_features", valid_features)
    labels = class_indices("train_targets", train_targets, len(train))
    wanted = class_indices("valid_targets", valid_targets, len(valid))
    if train.shape[1] != valid.shape[1]:
        raise DataError(f"valid_features have {valid.shape[1]} columns but train_features have {train.shape[1]}")
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise DataError(f"k={k!r}; expected an integer >= 1")
    unseen = np.setdiff1d(wanted, labels)
    if len(unseen):
        warnings.warn(
            f"valid_targets has class {int(unseen[0])}, which train_targets has not: no training sample can help there",
            stacklevel=2,
        )
    center = center_of(train)
    device = train_features.device if isinstance(train_features, Tensor) else torch.device("cpu")
    ranked = _on_cpu if device.type in ("cpu", "mps") else _on_accelerator  # mps has no float64
    total = ranked(train - center, labels, valid - center, wanted, int(k), distinct(train), device)
    return back(total / len(valid), train_features)


def _shapley_from_ranked(utilities_sorted: Any, k: int) -> Any:
    """Shapley values of `v(S) = (1/k) sum of the utilities of the k nearest in S`, for any fixed utility per point.

    Args:
        utilities_sorted: (..., n) utility of each training point for a validation point, nearest first; a float64
            tensor or array.
        k: Neighbors that count.

    Returns:
        (..., n) values in the same order.
    """
    n = utilities_sorted.shape[-1]
    weight: Any = 1.0 / np.maximum(np.arange(1, n + 1), k)
    if isinstance(utilities_sorted, Tensor):
        weight = torch.from_numpy(weight).to(utilities_sorted.device)
    steps = utilities_sorted * weight
    steps[..., :-1] -= utilities_sorted[..., 1:] * weight[:-1]
    if isinstance(steps, Tensor):
        return steps.flip(-1).cumsum(-1).flip(-1)
    return np.cumsum(steps[..., ::-1], axis=-1)[..., ::-1]


def _blocks(n: int, m: int) -> Iterator[slice]:
    size = max(1, BLOCK // n)
    yield from (slice(start, min(start + size, m)) for start in range(0, m, size))


def _on_cpu(
    train: NumPy,
    labels: NumPy,
    valid: NumPy,
    wanted: NumPy,
    k: int,
    repeated: tuple[NumPy, NumPy],
    device: torch.device,
) -> NumPy:
    n = len(train)
    again, first = repeated
    norms = np.einsum("ij,ij->i", train, train)
    transposed = torch.from_numpy(train).T  # torch's matrix product is used: it follows the user's thread settings
    rows = max(1, CHUNK // n)
    space = torch.empty(min(len(valid), max(1, BLOCK // n)), n, dtype=transposed.dtype)
    total = np.zeros(n)
    with ThreadPoolExecutor(THREADS) as pool:
        for block in _blocks(n, len(valid)):
            query = valid[block]
            product = torch.mm(torch.from_numpy(-2 * query), transposed, out=space[: len(query)])
            distances = product.numpy()
            distances += norms
            distances += np.einsum("ij,ij->i", query, query)[:, None]
            np.maximum(distances, 0, out=distances)
            distances[:, again] = distances[:, first]
            chunks = [slice(start, start + rows) for start in range(0, len(query), rows)]
            asked = wanted[block]
            parts = [pool.submit(_chunk, distances[c], labels, asked[c], k) for c in chunks]
            for part in parts:  # in the order of the chunks, so that the number of threads changes no bit
                total += part.result()
    return total


def _chunk(distances: NumPy, labels: NumPy, wanted: NumPy, k: int) -> NumPy:
    order = _stable_order(distances)
    values = _shapley_from_ranked((labels[order] == wanted[:, None]).astype(np.float64), k)
    return np.bincount(order.ravel(), weights=values.ravel(), minlength=distances.shape[1])


def _stable_order(distances: NumPy) -> NumPy:
    """argsort by (distance, position) of each row of non-negative float64 numbers."""
    n = distances.shape[1]
    # the bits of such numbers sort like the numbers: with the position in place of their last digits, NumPy's vectorized
    # sort of integers gives the order eight times faster than its stable argsort, but for ties of the other digits
    low = np.uint64((1 << (n - 1).bit_length()) - 1)
    keys = (distances + 0.0).view(np.uint64)
    keys &= ~low
    keys |= np.arange(n, dtype=np.uint64)
    keys.sort(axis=1)
    order = (keys & low).view(np.int64)
    keys |= low
    tied = np.zeros(keys.shape, dtype=bool)
    np.equal(keys[:, 1:], keys[:, :-1], out=tied[:, 1:])
    if tied.any():
        member = tied.copy()
        member[:, :-1] |= tied[:, 1:]
        row, rank = np.nonzero(member)
        at = order[row, rank]
        order[row, rank] = at[np.lexsort((at, distances[row, at], np.cumsum(~tied[row, rank])))]
    return order


def _on_accelerator(
    train: NumPy,
    labels: NumPy,
    valid: NumPy,
    wanted: NumPy,
    k: int,
    repeated: tuple[NumPy, NumPy],
    device: torch.device,
) -> NumPy:
    again, first = (torch.from_numpy(a).to(device) for a in repeated)
    near, own = torch.from_numpy(train).to(device), torch.from_numpy(labels).to(device)
    total = torch.zeros(len(train), dtype=torch.float64, device=device)
    for block in _blocks(len(train), len(valid)):
        query, asked = torch.from_numpy(valid[block]).to(device), torch.from_numpy(wanted[block]).to(device)
        distances = near.square().sum(1) - 2 * query @ near.T
        distances[:, again] = distances[:, first]
        order = distances.sort(dim=1, stable=True).indices
        values = _shapley_from_ranked((own[order] == asked[:, None]).double(), k)
        total += torch.empty_like(values).scatter_(1, order, values).sum(0)
    return total.cpu().numpy()


@dataclass(frozen=True)
class KnnShapley:
    """kNN-Shapley on an encoder's features: no training, exact; negative for samples that mislead.

    Args:
        k: Neighbors that vote.
        encoder: Whose features (see `modicum.measurement.Features`).
    """

    k: int = 5
    encoder: str = "inputs"

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
        """Values in units of validation accuracy; charged for the distances, 2 d operations each and 3 d for norms."""
        labels = labels_of("train", data.train, classes=2)
        wanted = labels_of("valid", data.valid)
        near = rows_of("train features", measured[0].train, data.train)
        query = rows_of("valid features", measured[0].valid, data.valid)
        order = by_id(data.train)
        n, m, d = len(near), len(query), near.shape[1]
        with ctx.ledger.clock("choose", self.card.key, extra_flops=2 * n * m * d + 2 * (n + m) * d + 3 * n * m):
            values = np.empty(n)
            moved = near.to(ctx.device)[order]
            values[order] = (
                knn_shapley(moved, labels[order], query.to(ctx.device), wanted, self.k).double().cpu().numpy()
            )
        return Scores(values, data.train.ids, self.card.key, "value", "validation accuracy", labels=labels.numpy())
