"""Copies and near-copies of training samples among the validation and test samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modicum.context import generator
from modicum.data.raw import Array
from modicum.dataset import Dataset, Splits
from modicum.errors import DataError

__all__ = ["Overlap", "Shared", "directions", "overlap", "points_of", "row_hashes", "within"]

NEAR = {"image": 0.15, "tabular": 0.01, "text": 0.8}
DIRECTIONS = 64  # of the projection that rules pairs out
TRAIN_ROWS, OTHER_ROWS, PAIRS = 4096, 2048, 2048  # of a block


@dataclass(frozen=True)
class Shared:
    """What the training split shares with another one.

    Args:
        n: Samples of the other split.
        exact: Pairs (id there, id of a training sample) with equal inputs, one a sample.
        near: Triples (id there, id of the nearest training sample, how near) that are not equal, one a sample: the
            distance of images of norm 1, the share of the usual distance in tables, the Jaccard index of texts.
    """

    n: int
    exact: tuple[tuple[int | str, int | str], ...] = ()
    near: tuple[tuple[int | str, int | str, float], ...] = ()


@dataclass(frozen=True)
class Overlap:
    """What the training split shares with the validation and the test split."""

    valid: Shared
    test: Shared

    def __str__(self) -> str:
        told = [
            f"{len(s.exact)} of {s.n} {name} samples are copies of training samples and {len(s.near)} are nearly so"
            for name, s in (("validation", self.valid), ("test", self.test))
        ]
        return "; ".join(told)


def overlap(splits: Splits, near: float | None = None) -> Overlap:
    """Look for validation and test samples that equal, or nearly equal, a training sample.

    Images: a pair x, y is near when ||x - y|| <= near, with every standardized image moved to mean 0 and scaled to norm
    1, so that ||x - y||^2 = 2 - 2 correlation(x, y), and brightness and contrast do not count. Tables: near when
    ||x - y|| <= near * s, with s the median distance of random pairs of standardized rows. Pairs are ruled out by the
    distance of their projections on 64 orthonormal directions, which is never larger, so none is missed; what remains
    is measured exactly. Texts: the Jaccard index of the sets of known tokens, |A and B| / |A or B| >= near; two such
    sets share one of their |A| - ceil(near |A|) + 1 rarest tokens, and only such pairs are measured. Texts of fewer
    than three different tokens are left out.

    Time n m 64 and memory m 64 plus blocks, with n training and m other samples.

    Args:
        splits: The data.
        near: The threshold; 0.15 for images, 0.01 for tables and 0.8 for texts when None; 0 looks for equal inputs
            only.

    Returns:
        For each of the two splits, the pairs of ids. `str` of it is one sentence.

    Raises:
        DataError: `near` is out of range.

    Example:
        >>> from modicum.data import load
        >>> overlap(load("iris"), near=0).valid.exact  # iris has one flower twice
        ((101, 142),)
    """
    threshold = NEAR[splits.train.info.modality] if near is None else near
    if not 0 <= threshold <= 1:
        raise DataError(f"near={near} must lie between 0 and 1")
    return Overlap(*(_shared(splits.train, other, threshold) for other in (splits.valid, splits.test)))


def _shared(train: Dataset, other: Dataset, threshold: float) -> Shared:
    if len(other) == 0 or len(train) == 0:
        return Shared(len(other))
    twin = _equal(train, other)
    rest = np.flatnonzero(twin < 0)
    exact = tuple((other.ids[i].item(), train.ids[twin[i]].item()) for i in np.flatnonzero(twin >= 0))
    if threshold == 0 or len(rest) == 0:
        return Shared(len(other), exact)
    find = _near_texts if train.info.modality == "text" else _near_points
    rows, partners, values = find(train, other, rest, threshold)
    near = zip(other.ids[rows].tolist(), train.ids[partners].tolist(), values.tolist(), strict=True)
    return Shared(len(other), exact, tuple(near))


def _equal(train: Dataset, other: Dataset) -> Array:
    """(m,) the first training row with equal inputs, or -1."""
    ours, theirs = row_hashes(train), row_hashes(other)
    order = np.argsort(ours, kind="stable")
    place = np.minimum(np.searchsorted(ours[order], theirs), len(ours) - 1)
    twin = np.where(ours[order][place] == theirs, order[place], -1)
    for part in np.array_split(np.flatnonzero(twin >= 0), len(theirs) // PAIRS + 1):
        same = (train.inputs[torch.from_numpy(twin[part])] == other.inputs[torch.from_numpy(part)]).flatten(1).all(1)
        twin[part[~same.numpy()]] = -1
    return twin


def row_hashes(data: Dataset) -> Array:
    """(n,) a 64-bit number for the inputs of each sample; equal inputs have equal ones."""
    out, factors = np.empty(len(data), np.uint64), None
    for part, block in data.batches(OTHER_ROWS):
        signless = block + 0 if block.is_floating_point() else block  # -0 equals 0, but has another bit
        raw = np.ascontiguousarray(signless.numpy()).reshape(len(block), -1).view(np.uint8)
        words = np.pad(raw, ((0, 0), (0, -raw.shape[1] % 8))).view(np.uint64)
        if factors is None:
            drawn = torch.randint(1, 2**62, (words.shape[1],), generator=generator(0, "overlap", "hash"))
            factors = drawn.numpy().astype(np.uint64) * np.uint64(2) + np.uint64(1)
        out[part] = (words * factors).sum(1, dtype=np.uint64)
    return out


# -- images and tables ---------------------------------------------------------------------------------------------


def points_of(data: Dataset, rows: Any) -> Tensor:
    """(m, d) standardized inputs as points; images moved to mean 0 and scaled to norm 1."""
    points = data.prepare(data.inputs[rows]).float().flatten(1)
    if data.info.modality != "image":
        return points
    points = points - points.mean(1, keepdim=True)
    unit: Tensor = points / points.norm(dim=1, keepdim=True).clamp(min=1e-6)
    return unit


def _near_points(train: Dataset, other: Dataset, rest: Array, near: float) -> tuple[Array, Array, Array]:
    sample = points_of(train, torch.randperm(len(train), generator=generator(0, "overlap"))[:2048].sort().values)
    half = len(sample) // 2
    usual = 1.0
    if train.info.modality != "image":
        usual = float((sample[:half] - sample[half : 2 * half]).norm(dim=1).median()) if half else 0.0
    reach, axes = near * usual, directions(sample - sample.mean(0))
    shift = sample.mean(0) @ axes  # smaller numbers, smaller rounding errors
    left = torch.cat([points_of(other, torch.from_numpy(p)) @ axes - shift for p in _pieces(rest, OTHER_ROWS)])
    best = torch.full((len(rest),), float("inf"))
    partner = torch.full((len(rest),), -1)
    for start in range(0, len(train), TRAIN_ROWS):
        points = points_of(train, slice(start, start + TRAIN_ROWS))
        right = points @ axes - shift
        for begin in range(0, len(rest), OTHER_ROWS):
            found = within(left[begin : begin + OTHER_ROWS], right, reach)
            for pairs in (found[i : i + PAIRS] for i in range(0, len(found), PAIRS)):
                rows = torch.from_numpy(rest[begin + pairs[:, 0].numpy()])
                distance = (points_of(other, rows) - points[pairs[:, 1]]).norm(dim=1)
                _improve(best, partner, begin + pairs[:, 0], start + pairs[:, 1], distance)
    hit = ((best <= reach) & (partner >= 0)).nonzero().flatten()
    return rest[hit.numpy()], partner[hit].numpy(), (best[hit] / max(usual, 1e-30)).numpy()


def within(left: Tensor, right: Tensor, reach: float) -> Tensor:
    """Pairs (row of left, row of right) whose distance may be at most `reach`; one product and one comparison."""
    a, b = left.square().sum(1, keepdim=True), right.square().sum(1, keepdim=True)
    slack = 1e-5 * float(a.max() + b.max())  # single precision rounds the difference of large squares
    product = torch.cat([left, a, torch.ones_like(a)], 1) @ torch.cat([right, -0.5 * torch.ones_like(b), -0.5 * b], 1).T
    return (product >= -0.5 * (reach * reach + slack)).nonzero()


def directions(sample: Tensor) -> Tensor:
    """(d, k) orthonormal directions along which the sample varies most, by subspace iteration."""
    k = min(DIRECTIONS, sample.shape[1])
    axes = torch.linalg.qr(torch.randn(sample.shape[1], k, generator=generator(0, "overlap", "axes")))[0]
    for _ in range(2):
        axes = torch.linalg.qr(sample.T @ (sample @ axes))[0]
    return torch.as_tensor(axes)


def _improve(best: Tensor, partner: Tensor, rows: Tensor, others: Tensor, distance: Tensor) -> None:
    order = distance.argsort(descending=True, stable=True)  # of several writes to one place the last one stays
    rows, others, distance = rows[order], others[order], distance[order]
    last = np.unique(rows.numpy()[::-1], return_index=True)[1]
    keep = len(rows) - 1 - torch.from_numpy(last.copy())
    keep = keep[distance[keep] < best[rows[keep]]]
    best[rows[keep]], partner[rows[keep]] = distance[keep], others[keep]


def _pieces(rows: Array, size: int) -> list[Array]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


# -- texts ---------------------------------------------------------------------------------------------------------


def _near_texts(train: Dataset, other: Dataset, rest: Array, near: float) -> tuple[Array, Array, Array]:
    width = max(len(train.info.vocabulary), int(train.inputs.max()) + 1, int(other.inputs.max()) + 1)
    ours, theirs = _token_sets(train, width), _token_sets(other, width)[rest]
    rank = np.empty(width, np.int64)
    rank[np.argsort(np.asarray(ours.sum(0)).ravel(), kind="stable")] = np.arange(width)
    index = _rarest(ours, rank, near).T.tocsr()
    rare = _rarest(theirs, rank, near)
    sizes, other_sizes = np.diff(ours.indptr), np.diff(theirs.indptr)
    best, partner = np.zeros(len(rest)), np.full(len(rest), -1)
    for start in range(0, len(rest), PAIRS):
        found = (rare[start : start + PAIRS] @ index).tocoo()
        a, b = found.row + start, found.col
        fits = np.minimum(sizes[b], other_sizes[a]) >= near * np.maximum(sizes[b], other_sizes[a])
        for piece in _pieces(np.flatnonzero(fits), 1 << 16):
            common = np.asarray(theirs[a[piece]].multiply(ours[b[piece]]).sum(1)).ravel()
            jaccard = common / (sizes[b[piece]] + other_sizes[a[piece]] - common)
            order = np.lexsort((-b[piece], jaccard))
            rows, values = a[piece][order], jaccard[order]
            better = values > best[rows]
            best[rows[better]], partner[rows[better]] = values[better], b[piece][order][better]
    hit = np.flatnonzero(best >= near)
    return rest[hit], partner[hit], best[hit]


def _token_sets(data: Dataset, width: int) -> Any:
    from scipy import sparse

    numbers = data.inputs.numpy()
    rows, places = np.nonzero(numbers > 1)
    pairs = np.unique(rows.astype(np.int64) * width + numbers[rows, places])
    sets = sparse.csr_array(
        (np.ones(len(pairs), np.float32), (pairs // width, pairs % width)), shape=(len(data), width)
    )
    return sets


def _rarest(sets: Any, rank: Array, near: float) -> Any:
    """Of each set the tokens that a set as near as wanted must share one of; none of a set of fewer than three."""
    from scipy import sparse

    sizes = np.diff(sets.indptr)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((rank[sets.indices], rows))
    place = np.arange(len(rows)) - np.repeat(sets.indptr[:-1], sizes)
    most = np.where(sizes >= 3, sizes - np.ceil(near * sizes - 1e-9) + 1, 0)
    kept = place < most[rows]
    columns = sets.indices[order][kept]
    return sparse.csr_array((np.ones(len(columns), np.float32), (rows[kept], columns)), shape=sets.shape)
