"""Who stands for whom: in a given order, each sample is kept unless an earlier kept one is near."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from modicum.context import generator
from modicum.data.overlap import directions, within
from modicum.data.raw import Array

__all__ = ["leaders_of_codes", "leaders_of_pairs", "leaders_of_points"]

ROWS, PAIRS = 2048, 2048  # of a block of points
CANDIDATES = 1 << 21  # pairs of codes that are compared at a time
BITS = 64
ONES = np.array([bin(i).count("1") for i in range(1 << 8)], np.uint8)
ONES = (ONES[:, None] + ONES).ravel()  # of 16 bits


def leaders_of_pairs(n: int, later: Array, earlier: Array, values: Array) -> tuple[Array, Array]:
    """Who stands for each of n samples, given all pairs that are near; rounds settle chains.

    Args:
        n: Samples.
        later: (m,) positions.
        earlier: (m,) positions, each below that of `later`.
        values: (m,) how near.

    Returns:
        (n,) the first earlier kept position that is near, or its own; (n,) how near that is, 0 for its own.

    Example:
        >>> leaders_of_pairs(3, np.array([1, 2]), np.array([0, 1]), np.array([0.1, 0.2]))[0].tolist()
        [0, 0, 2]
    """
    leader, value = np.arange(n), np.zeros(n)
    kept, settled = np.ones(n, bool), np.ones(n, bool)
    kept[later] = settled[later] = False
    a, b = later, earlier
    while len(a):
        settled[a[kept[b]]] = True  # and not kept
        alive = ~settled[a] & (~settled[b] | kept[b])
        free = np.setdiff1d(a[~settled[a]], a[alive])  # whatever was near them is gone
        kept[free] = settled[free] = True
        again = ~settled[a]
        a, b = a[again], b[again]
    hit = np.flatnonzero(kept[earlier] & ~kept[later])
    _first(leader, value, later[hit], earlier[hit], values[hit])
    return leader, value


def leaders_of_points(points: Callable[[Tensor], Tensor], n: int, reach: float) -> tuple[Array, Array]:
    """The same for n points that are near when their distance is at most `reach`.

    Every block is compared with what is kept; pairs are ruled out by the distance of their projections on 64
    directions, which is never larger. Time n^2 64 / 2 at most, memory n 64 and blocks.

    Args:
        points: Gives the points (m, d) at some positions.
        n: How many there are.
        reach: The distance.
    """
    some = points(torch.randperm(n, generator=generator(0, "duplicates", "axes"))[:2048].sort().values)
    axes, shift = directions(some - some.mean(0)), some.mean(0)
    kept, projected, size = np.empty(n, np.int64), torch.empty(n, axes.shape[1]), 0
    leader, value = np.arange(n), np.zeros(n)
    for start in range(0, n, ROWS):
        rows = torch.arange(start, min(start + ROWS, n))
        block = points(rows)
        low, own = (block - shift) @ axes, leader[start : start + len(rows)]
        for begin in range(0, size, 2 * ROWS):
            here = slice(begin, min(begin + 2 * ROWS, size))
            pairs = within(low, projected[here], reach).numpy()
            pairs = pairs[own[pairs[:, 0]] == start + pairs[:, 0]]  # the first stands
            _first(leader, value, *_measured(points, block, start, pairs[:, 0], kept[here][pairs[:, 1]], reach))
        alone = np.flatnonzero(own == np.arange(start, start + len(rows)))
        pairs = alone[within(low[alone], low[alone], reach).numpy()] if len(alone) else np.empty((0, 2), np.int64)
        pairs = pairs[pairs[:, 0] > pairs[:, 1]]
        later, earlier, distance = _measured(points, block, start, pairs[:, 0], start + pairs[:, 1], reach)
        _settle(leader, value, start, len(rows), later, earlier, distance)
        stay = np.flatnonzero(own == np.arange(start, start + len(rows)))
        kept[size : size + len(stay)], projected[size : size + len(stay)] = start + stay, low[stay]
        size += len(stay)
    return leader, value


def leaders_of_codes(codes: Array, most: int) -> tuple[Array, Array]:
    """The same for n codes of 64 bits that are near when at most so many bits differ.

    Two such codes are equal in one of `most + 1` groups of bits (the pigeonhole principle), so only codes of one bucket
    of a group are compared: every near pair is found, and codes that are spread well take n^2 (most + 1) / 2^(64 /
    (most + 1)) / 2 comparisons instead of n^2 / 2. Where buckets are too full for that, each code is compared with every
    one that is kept. Memory 16 n (most + 1) bytes and blocks.

    Args:
        codes: (n,) uint64.
        most: Bits that may differ.

    Example:
        >>> leaders_of_codes(np.array([0, 7, 1, 7], np.uint64), 1)[0].tolist()
        [0, 1, 0, 1]
    """
    _, first, group = np.unique(codes, return_index=True, return_inverse=True)
    appear = np.argsort(first)
    place = np.empty_like(appear)
    place[appear] = np.arange(len(appear))
    at, different = first[appear], codes[first[appear]]
    buckets = [_buckets(different & _mask(part, most + 1)) for part in range(min(most, BITS - 1) + 1)]
    if sum(int(before.sum()) for _, _, before in buckets) < len(at) * (len(at) - 1) // 4:
        leader, value = _bucketed(different, buckets, most)
    else:
        signs = torch.from_numpy(((different[:, None] >> np.arange(BITS, dtype=np.uint64)) & np.uint64(1)) * 2.0 - 1)
        signs = signs.float() / 8  # ||a - b||^2 is the number of differing bits over 16
        leader, value = leaders_of_points(lambda rows: signs[rows], len(at), (most / 16) ** 0.5 + 1e-4)
        value = np.round(16 * value**2)
    own = place[group]
    return at[leader[own]], value[own]


def _mask(part: int, parts: int) -> np.uint64:
    """Every so manieth bit: neighbors in a code are more alike than bits far apart."""
    return np.uint64(sum(1 << bit for bit in range(part, BITS, parts)))


def _buckets(keys: Array) -> tuple[Array, Array, Array]:
    """Positions sorted by key, where each stands among them, and how many earlier ones have its key."""
    order = np.argsort(keys, kind="stable")
    where = np.empty_like(order)
    where[order] = np.arange(len(order))
    new = np.ones(len(keys), bool)
    new[1:] = keys[order][1:] != keys[order][:-1]
    begin = np.maximum.accumulate(np.where(new, np.arange(len(keys)), 0))
    return order, where, where - begin[where]


def _bucketed(codes: Array, buckets: list[tuple[Array, Array, Array]], most: int) -> tuple[Array, Array]:
    n = len(codes)
    leader, value, kept = np.arange(n), np.zeros(n), np.zeros(n, bool)
    work = np.cumsum(np.sum([before for _, _, before in buckets], axis=0, dtype=np.int64))
    edges = np.unique(np.searchsorted(work, np.arange(0, int(work[-1]) + 1, CANDIDATES)))
    for start, stop in zip(edges, [*edges[1:], n], strict=True):
        found = []
        for order, where, before in buckets:
            counts = before[start:stop]
            offset = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
            later = np.repeat(np.arange(start, stop), counts)
            earlier = order[np.repeat(where[start:stop] - counts, counts) + offset]
            open_ = np.flatnonzero(kept[earlier] | (earlier >= start))
            later, earlier = later[open_], earlier[open_]
            bits = ONES[(codes[later] ^ codes[earlier]).view(np.uint16)].reshape(-1, 4).sum(1)
            near = bits <= most
            found.append((later[near], earlier[near], bits[near]))
        later, earlier, bits = (np.concatenate(parts) for parts in zip(*found, strict=True))
        before_it = earlier < start
        _first(leader, value, later[before_it], earlier[before_it], bits[before_it])
        inside = ~before_it & (leader[later] == later) & (leader[earlier] == earlier)
        _settle(leader, value, start, stop - start, later[inside], earlier[inside], bits[inside])
        kept[start:stop] = leader[start:stop] == np.arange(start, stop)
    return leader, value


def _settle(leader: Array, value: Array, start: int, n: int, later: Array, earlier: Array, values: Array) -> None:
    """Write who stands for whom among n positions from `start`, for those that nobody stands for yet."""
    of, near = leaders_of_pairs(n, later - start, earlier - start, values)
    moved = np.flatnonzero(of != np.arange(n))
    leader[start + moved], value[start + moved] = start + of[moved], near[moved]


def _measured(
    points: Callable[[Tensor], Tensor], block: Tensor, start: int, later: Array, earlier: Array, reach: float
) -> tuple[Array, Array, Array]:
    """Of candidate pairs (row of the block, position) those within reach: position, position, distance."""
    distances = np.empty(len(later), np.float32)
    for i in range(0, len(later), PAIRS):
        part = slice(i, i + PAIRS)
        gap = block[torch.from_numpy(later[part])] - points(torch.from_numpy(earlier[part]))
        distances[part] = gap.norm(dim=1).numpy()
    hit = distances <= reach
    return start + later[hit], earlier[hit], distances[hit]


def _first(leader: Array, value: Array, later: Array, earlier: Array, values: Array) -> None:
    """Write the least earlier position of each later one."""
    order = np.lexsort((earlier, later))
    rows, begin = np.unique(later[order], return_index=True)
    at = order[begin]
    leader[rows], value[rows] = earlier[at], values[at]
