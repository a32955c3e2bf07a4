"""Values from the nearest neighbors of each validation point: one engine, a block of distances at a time.

A method says what a block of distances is worth to the training points, most often by ranking it (`nearest`) and by what
a nearer point takes from a farther one (`from_ranked`). The engine makes the blocks, spreads them over threads or over
an accelerator, and adds up.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import Array, NumPy, back, center_of, class_indices, distinct, features
from modicum.errors import DataError
from modicum.reading import by_id, rows_of
from modicum.scores import Scores

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits

__all__ = [
    "Measured",
    "Points",
    "Reader",
    "classes_of",
    "count_of",
    "distance_to_neighbor",
    "from_ranked",
    "labels_for",
    "matches",
    "mean_and_error",
    "nearest",
    "points",
    "ranked_by_match",
    "returned",
    "score_by_neighbors",
    "taken",
]

BLOCK = 1 << 23  # distances at a time
CHUNK = 1 << 17  # of which so many are read at a time, to stay in the cache
THREADS = 8  # at most; fewer when torch is told to use fewer

Measured: TypeAlias = "tuple[NumPy, NumPy | None]"
Reader: TypeAlias = Callable[[Any, Any, Any], tuple[Any, Any]]
"""(b, n) squared distances of b validation points, the column (n,) of the training points and the column (b,) of these
validation points -> positions (b, r) of training points, and their values (b, r); positions None for all n in order.
Everything is NumPy on a CPU, and tensors on an accelerator."""


class Points(NamedTuple):
    """Checked features, in double precision about a common center.

    Args:
        train: (n, d).
        valid: (m, d).
        repeated: Rows of `train` that repeat an earlier one, and which (see `modicum.arrays.distinct`).
        device: Where the distances are made.
    """

    train: NumPy
    valid: NumPy
    repeated: tuple[NumPy, NumPy]
    device: torch.device


def points(train_features: Any, valid_features: Any) -> Points:
    """Features of both kinds, checked.

    Raises:
        DataError: Shapes do not fit, or entries are not finite.
    """
    train, valid = features("train_features", train_features), features("valid_features", valid_features)
    if train.shape[1] != valid.shape[1]:
        raise DataError(f"valid_features have {valid.shape[1]} columns but train_features have {train.shape[1]}")
    center = center_of(train)
    device = train_features.device if isinstance(train_features, Tensor) else torch.device("cpu")
    return Points(train - center, valid - center, distinct(train), device)


def labels_for(at: Points, train_targets: Any, valid_targets: Any) -> tuple[NumPy, NumPy]:
    """Class indices of both kinds, checked; a validation class that is not trained on gives a warning.

    Raises:
        DataError: Shapes do not fit, or they are no class indices.
    """
    labels = class_indices("train_targets", train_targets, len(at.train))
    wanted = class_indices("valid_targets", valid_targets, len(at.valid))
    unseen = np.setdiff1d(wanted, labels)
    if len(unseen):
        warnings.warn(
            f"valid_targets has class {int(unseen[0])}, which train_targets has not: no training sample can help there",
            stacklevel=4,
        )
    return labels, wanted


def count_of(name: str, value: Any, least: int = 1) -> int:
    """A checked number of things.

    Raises:
        DataError: No integer, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise DataError(f"{name}={value!r}; expected an integer >= {least}")
    return int(value)


def classes_of(labels: NumPy, classes: Any) -> int:
    """How many classes there are to guess from: as told, or those that training samples have.

    Raises:
        DataError: No integer, or fewer than the training samples have.
    """
    there = len(np.unique(labels))
    return there if classes is None else count_of("classes", classes, there)


def returned(measured: Measured, like: Array) -> Array:
    """The means as the kind of array that the features were."""
    return back(measured[0], like)


# -- the engine --------------------------------------------------------------------------------------------------------


def mean_and_error(at: Points, column: NumPy, asked: NumPy, read: Reader, errors: bool = False) -> Measured:
    """The mean over validation points of what each of them gives to the training points.

    Args:
        at: The points.
        column: (n,) what the reader is to know of each training point.
        asked: (m,) what it is to know of each validation point.
        read: Gives values to training points.
        errors: Whether to give the standard errors too.

    Returns:
        Means (n,) and their standard errors (n,), which are None when not asked for or with a single validation point.
    """
    m = len(at.valid)
    sums = _on_cpu if at.device.type in ("cpu", "mps") else _on_accelerator  # mps has no float64
    total, squares = np.zeros(len(at.train)), np.zeros(len(at.train))
    for part, square in sums(at, column, asked, read, errors and m > 1):
        total += part
        if square is not None:
            squares += square
    mean = total / m
    if not errors or m < 2:
        return mean, None
    squares /= m
    squares -= np.square(mean)
    squares /= m - 1
    return mean, np.sqrt(np.maximum(squares, 0, out=squares), out=squares)


def distance_to_neighbor(at: Points, neighbor: int) -> NumPy:
    """(m,) Euclidean distance of each validation point to its nearest, second nearest, ... training point."""
    if at.device.type in ("cpu", "mps"):
        parts = [
            np.partition(complete(slice(None)), neighbor - 1, axis=1)[:, neighbor - 1] for _, complete in _distances(at)
        ]
        found = np.concatenate(parts)
    else:
        found = torch.cat([d.kthvalue(neighbor, dim=1).values for _, d in _distances_there(at)]).cpu().numpy()
    distances: NumPy = np.sqrt(found)
    return distances


def _blocks(at: Points) -> Iterator[slice]:
    m, size = len(at.valid), max(1, BLOCK // len(at.train))
    yield from (slice(start, min(start + size, m)) for start in range(0, m, size))


def _distances(at: Points) -> Iterator[tuple[slice, Callable[[slice], NumPy]]]:
    """Blocks of validation points, and what completes the squared distances of some of a block, once."""
    again, first = at.repeated
    norms = np.einsum("ij,ij->i", at.train, at.train)
    transposed = torch.from_numpy(at.train).T  # torch's matrix product is used: it follows the user's thread settings
    space = torch.empty(min(len(at.valid), max(1, BLOCK // len(norms))), len(norms), dtype=transposed.dtype)
    for block in _blocks(at):
        query = at.valid[block]
        product = torch.mm(torch.from_numpy(-2 * query), transposed, out=space[: len(query)]).numpy()
        lengths = np.einsum("ij,ij->i", query, query)

        def complete(rows: slice, product: NumPy = product, lengths: NumPy = lengths) -> NumPy:
            distances: NumPy = product[rows]
            distances += norms
            distances += lengths[rows, None]
            np.maximum(distances, 0, out=distances)
            distances[:, again] = distances[:, first]
            return distances

        yield block, complete


def _on_cpu(
    at: Points, column: NumPy, asked: NumPy, read: Reader, errors: bool
) -> Iterator[tuple[NumPy, NumPy | None]]:
    n = len(at.train)
    rows = max(1, CHUNK // n)
    with ThreadPoolExecutor(min(THREADS, torch.get_num_threads())) as pool:
        for block, complete in _distances(at):
            own = asked[block]

            def sums(chunk: slice, complete: Any = complete, own: NumPy = own) -> tuple[NumPy, NumPy | None]:
                order, values = read(complete(chunk), column, own[chunk])
                if order is None:
                    return values.sum(0), np.einsum("ij,ij->j", values, values) if errors else None
                places, values = order.ravel(), values.ravel()
                total = np.bincount(places, weights=values, minlength=n)
                return total, np.bincount(places, weights=np.square(values), minlength=n) if errors else None

            chunks = [slice(start, start + rows) for start in range(0, len(own), rows)]
            parts = deque(pool.submit(sums, chunk) for chunk in chunks)
            while parts:  # in the order of the chunks, so that the number of threads changes no bit
                yield parts.popleft().result()


def _distances_there(at: Points) -> Iterator[tuple[slice, Tensor]]:
    again, first = (torch.from_numpy(a).to(at.device) for a in at.repeated)
    near = torch.from_numpy(at.train).to(at.device)
    norms = near.square().sum(1)
    for block in _blocks(at):
        query = torch.from_numpy(at.valid[block]).to(at.device)
        distances = (norms - 2 * query @ near.T + query.square().sum(1, keepdim=True)).clamp_(min=0)
        distances[:, again] = distances[:, first]
        yield block, distances


def _on_accelerator(
    at: Points, column: NumPy, asked: NumPy, read: Reader, errors: bool
) -> Iterator[tuple[NumPy, NumPy | None]]:
    there, own = (torch.from_numpy(a).to(at.device) for a in (column, asked))
    for block, distances in _distances_there(at):
        order, values = read(distances, there, own[block])
        if order is not None:
            values = torch.zeros_like(distances).scatter_(1, order, values)
        yield values.sum(0).cpu().numpy(), values.square().sum(0).cpu().numpy() if errors else None


# -- from distances to values ------------------------------------------------------------------------------------------


def nearest(distances: Any, keep: int) -> Any:
    """Positions (b, keep) of the nearest in each row of non-negative float64 numbers, by (distance, position)."""
    if isinstance(distances, Tensor):
        return distances.sort(dim=1, stable=True).indices[:, :keep]
    n = distances.shape[1]
    # the bits of such numbers sort like the numbers: with the position in place of their last digits, NumPy's vectorized
    # sort of integers gives the order eight times faster than its stable argsort, but for ties of the other digits
    low = np.uint64((1 << (n - 1).bit_length()) - 1)
    keys = (distances + 0.0).view(np.uint64)
    keys &= ~low
    keys |= np.arange(n, dtype=np.uint64)
    if keep >= n:
        keys.sort(axis=1)
        return _untied(keys, low, distances)
    keys.partition(keep - 1, axis=1)
    near = keys[:, :keep]
    torn = near.max(1) | low == keys[:, keep:].min(1) | low
    near = np.sort(near, axis=1)
    order = _untied(near, low, distances)
    if torn.any():  # equal digits on both sides of the cut
        order[torn] = nearest(distances[torn], n)[:, :keep]
    return order


def _untied(keys: NumPy, low: np.uint64, distances: NumPy) -> NumPy:
    """The positions in the last digits of sorted keys, with equal other digits put in the order of (distance, position)."""
    order: NumPy = (keys & low).view(np.int64)
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


def taken(rows: Any, order: Any) -> Any:
    """(b, r) the entries of the rows (b, n) at these positions."""
    return rows.gather(1, order) if isinstance(rows, Tensor) else np.take_along_axis(rows, order, axis=1)


def matches(labels: Any, wanted: Any) -> Any:
    """Float64: 1 where a label is the wanted one, otherwise 0."""
    same = labels == wanted[:, None]
    return same.double() if isinstance(same, Tensor) else same.astype(np.float64)


def from_ranked(utilities: Any, weights: NumPy) -> Any:
    """Semivalues of `v(S) = (1/k) sum of the utilities of the k nearest in S`, for any fixed utility per point.

    A point counts where fewer than k of the nearer ones are in S, and then takes the place of a farther one. So
    `s_i = s_{i+1} + (u_i - u_{i+1}) w_i`, where `w_i` is 1/k times the chance that fewer than k of the i - 1 nearer points
    are in S: `1 / max(k, i)` for the Shapley value, binomial for the Banzhaf value, 1/k up to rank k for leave-one-out.
    With fewer ranks than points the rest is taken to be worth nothing; the last weight is then 0.

    Args:
        utilities: (..., r) of the training points for a validation point, nearest first; float64.
        weights: (r,) the `w_i`.

    Returns:
        (..., r) values in the same order.
    """
    scale: Any = torch.from_numpy(weights).to(utilities.device) if isinstance(utilities, Tensor) else weights
    steps = utilities * scale
    steps[..., :-1] -= utilities[..., 1:] * scale[:-1]
    if isinstance(steps, Tensor):
        return steps.flip(-1).cumsum(-1).flip(-1)
    return np.cumsum(steps[..., ::-1], axis=-1)[..., ::-1]


def ranked_by_match(weights: NumPy) -> Reader:
    """A reader for class labels: a neighbor of the wanted class is worth 1, any other 0."""

    def read(distances: Any, labels: Any, wanted: Any) -> tuple[Any, Any]:
        order = nearest(distances, len(weights))
        return order, from_ranked(matches(labels[order], wanted), weights)

    return read


# -- a method on neighbors ---------------------------------------------------------------------------------------------


def score_by_neighbors(
    key: str,
    unit: str,
    data: Splits,
    ctx: Context,
    measured: Any,
    targets: tuple[Tensor, Tensor],
    values: Callable[[Tensor, Tensor, Tensor, Tensor], Measured],
    again: int = 0,
) -> Scores:
    """Scores of the training samples, worked out in the order of their ids.

    Charged for the distances: 2 d operations each, and 3 d for norms.

    Args:
        key: Of the method.
        unit: Of the values.
        data: What is scored.
        ctx: Where, and what is charged.
        measured: Features of the training and the validation samples.
        targets: Of the training and of the validation samples.
        values: Gives means and standard errors from features and targets of both.
        again: For how many validation points distances are made a second time.
    """
    near = rows_of("train features", measured.train, data.train)
    query = rows_of("valid features", measured.valid, data.valid)
    own, wanted = targets
    order = by_id(data.train)
    n, m, d = len(near), len(query) + again, near.shape[1]
    with ctx.ledger.clock("choose", key, extra_flops=2 * n * m * d + 2 * (n + m) * d + 3 * n * m):
        mean, error = values(near.to(ctx.device)[order], own[order], query.to(ctx.device), wanted)
        back_at = torch.argsort(order).numpy()
    labels = None if own.is_floating_point() else own.numpy()
    errors = None if error is None else error[back_at]
    return Scores(mean[back_at], data.train.ids, key, "value", unit, labels, errors=errors)
