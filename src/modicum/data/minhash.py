"""Near-equal texts by MinHash and locality-sensitive hashing, every candidate measured exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modicum.data.raw import Array
from modicum.data.written import Written, mixed_bits, places
from modicum.errors import DataError

__all__ = ["Shingles", "bands_for", "found_share", "near_pairs", "shingles"]

HASHES, RECALL = 128, 0.99
BLOCK = 1 << 16  # shingles of a pass that stays in the processor's cache
WORDS = 1 << 20  # that are cut into shingles at a time
WINDOW = 32  # in a bucket of more samples, each meets the 32 before it and the first
PAIRS = 1 << 15  # pairs that are measured at a time


@dataclass(frozen=True, eq=False)
class Shingles:
    """The set of shingles of every text.

    Args:
        flat: (total,) uint64 hashes, those of a text together, increasing, each once.
        starts: (n + 1,) where each text begins in `flat`.
    """

    flat: Array
    starts: Array

    def __len__(self) -> int:
        return len(self.starts) - 1


def found_share(similarity: float, bands: int, rows: int) -> float:
    """The S-curve: the probability 1 - (1 - s^r)^b that two sets of Jaccard index s agree in all r rows of one of b bands.

    Args:
        similarity: s in [0, 1].
        bands: b >= 1.
        rows: r >= 1 hashes of a band.

    Returns:
        The probability of becoming a candidate.

    Example:
        >>> [round(found_share(s, bands=21, rows=6), 3) for s in (0.3, 0.5, 0.8)]
        [0.015, 0.282, 0.998]
    """
    return float(1 - (1 - similarity**rows) ** bands)


def bands_for(near: float, hashes: int = HASHES, recall: float = RECALL) -> tuple[int, int]:
    """The bands and rows with the fewest candidates that still find the wanted share of pairs at the threshold.

    The most rows r such that `found_share(near, hashes // r, r) >= recall`: more rows let fewer dissimilar pairs through.

    Args:
        near: The Jaccard index from which pairs are wanted, in (0, 1].
        hashes: Hash functions in all.
        recall: Share of the pairs exactly at the threshold that must be found.

    Returns:
        (bands, rows); one row a band where no choice reaches the recall.

    Raises:
        DataError: A number is outside its range.

    Example:
        >>> bands_for(0.8)
        (21, 6)
    """
    if not 0 < near <= 1 or hashes < 1 or not 0 < recall < 1:
        raise DataError(
            f"near={near}, hashes={hashes}, recall={recall}; expected near in (0, 1], hashes >= 1, recall in (0, 1)"
        )
    rows = [r for r in range(1, hashes + 1) if found_share(near, hashes // r, r) >= recall]
    best = max(rows, default=1)
    return hashes // best, best


def shingles(texts: Array | Written, width: int = 3, unknown: int | None = 1) -> Shingles:
    """The sets of runs of so many tokens; a shorter text is one run.

    Args:
        texts: (n, length) token numbers, 0 for padding; or texts as they are written.
        width: w >= 1 tokens of a shingle.
        unknown: Number of the unknown token: it equals no other, because nobody knows what it was; None when there is none.

    Returns:
        The sets, as 64-bit hashes; an empty text has none.

    Raises:
        DataError: Another shape, or a width below 1.

    Example:
        >>> np.diff(shingles(np.array([[2, 3, 4, 5, 0], [2, 3, 0, 0, 0], [0, 0, 0, 0, 0]])).starts).tolist()
        [2, 1, 0]
    """
    if not isinstance(texts, Written):
        if texts.ndim != 2 or texts.dtype.kind not in "iu":
            raise DataError(f"tokens are {texts.dtype} of shape {texts.shape}; expected integers of shape (n, length)")
        texts = Written.of_rows(texts, unknown)
    if width < 1:
        raise DataError(f"width={width}; expected an integer >= 1")
    edges = np.unique(np.searchsorted(texts.starts, np.arange(0, len(texts.flat) + 1, WORDS)))
    parts, counts = [], [np.zeros(1, np.int64)]
    for first, last in zip(edges, [*edges[1:], len(texts)], strict=True):
        piece = slice(texts.starts[first], texts.starts[last])
        flat, count = _cut(texts.flat[piece], texts.lengths[first:last], width)
        parts.append(flat)
        counts.append(count)
    return Shingles(np.concatenate(parts or [np.empty(0, np.uint64)]), np.cumsum(np.concatenate(counts)))


def near_pairs(sets: Shingles, near: float, hashes: int = HASHES, recall: float = RECALL) -> tuple[Array, Array, Array]:
    """Pairs of sets whose Jaccard index |A and B| / |A or B| is at least `near`.

    Hash function p gives a set the least of `a_p x + b_p mod 2^64` over its elements x; two sets agree in it with
    probability s, their Jaccard index. Sets that agree in all r functions of one of b bands are candidates, with
    probability 1 - (1 - s^r)^b, and every candidate is measured exactly: no pair is wrong, and of those at the threshold
    the share `recall` is found, of nearer ones more. In a bucket of more than 33 sets each meets the 32 before it and
    the first.

    Time hashes x shingles; memory 8 bytes a shingle, 16 a set and 8 a candidate.

    Args:
        sets: Of n texts.
        near: The least Jaccard index, in (0, 1].
        hashes: Hash functions in all.
        recall: See `bands_for`.

    Returns:
        (m,) later positions, (m,) earlier positions, (m,) Jaccard indices; ordered by position.

    Raises:
        DataError: A number is outside its range.

    Example:
        >>> words = np.arange(2, 42)[None].repeat(2, 0)
        >>> words[1, -1] = 99  # one of forty words differs: 37 of 39 shingles are shared
        >>> [x.tolist() for x in near_pairs(shingles(words), near=0.8)[:2]]
        [[1], [0]]

    Reference:
        Broder, On the resemblance and containment of documents, 1997, Compression and Complexity of Sequences;
        Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 2014, chapter 3.
    """
    bands, rows = bands_for(near, hashes, recall)
    draw = np.random.default_rng(0)  # part of the definition, not of a seed
    factors = draw.integers(0, 1 << 63, (bands, rows), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    shifts = draw.integers(0, 1 << 63, (bands, rows), dtype=np.uint64)
    filled = np.flatnonzero(np.diff(sets.starts) > 0)
    n, sizes = len(sets), np.diff(sets.starts)
    found = np.empty(0, np.int64)
    for band in range(bands if len(filled) > 1 else 0):
        keys = _keys(sets, filled, factors[band], shifts[band])
        later, earlier = _bucket_pairs(keys)
        later, earlier = filled[later], filled[earlier]
        alike = np.minimum(sizes[later], sizes[earlier]) >= near * np.maximum(sizes[later], sizes[earlier])
        found = np.union1d(found, later[alike] * n + earlier[alike])
    later, earlier = found // max(1, n), found % max(1, n)
    values = jaccard(sets, later, earlier)
    hit = values >= near
    return later[hit], earlier[hit], values[hit]


def jaccard(sets: Shingles, left: Array, right: Array) -> Array:
    """(m,) |A and B| / |A or B| of pairs of non-empty sets."""
    sizes, out = np.diff(sets.starts), np.empty(len(left))
    for start in range(0, len(left), PAIRS):
        a, b = left[start : start + PAIRS], right[start : start + PAIRS]
        pair = np.concatenate([np.repeat(np.arange(len(x)), sizes[x]) for x in (a, b)])
        values = sets.flat[np.concatenate([places(sets.starts, a), places(sets.starts, b)])]
        order = np.lexsort((values, pair))
        pair, values = pair[order], values[order]
        shared = (pair[1:] == pair[:-1]) & (values[1:] == values[:-1])
        common = np.bincount(pair[1:][shared], minlength=len(a))
        out[start : start + len(a)] = common / (sizes[a] + sizes[b] - common)
    return out


def _cut(tokens: Array, lengths: Array, width: int) -> tuple[Array, Array]:
    """Sorted hashes of the runs of each text, and how many there are."""
    begin, at = np.cumsum(lengths) - lengths, np.arange(len(tokens))
    rows, ends = np.repeat(np.arange(len(lengths)), lengths), np.repeat(begin + lengths, lengths)
    numbers = tokens.astype(np.int64) + (1 << 33)  # positive, and none is that of padding
    padded, hashes = np.concatenate([numbers, np.zeros(width, np.int64)]), np.zeros(len(tokens), np.uint64)
    for k in range(width):
        inside = np.where(at + k < ends, padded[k : k + len(tokens)], 0).astype(np.uint64)
        hashes = mixed_bits(hashes ^ (inside + np.uint64((k + 1) * 0x9E3779B97F4A7C15 % (1 << 64))))
    right = (at + width <= ends) | (at == ends - np.repeat(lengths, lengths))
    rows, hashes = rows[right], hashes[right]
    order = np.lexsort((hashes, rows))
    rows, hashes = rows[order], hashes[order]
    new = np.ones(len(rows), bool)
    new[1:] = (rows[1:] != rows[:-1]) | (hashes[1:] != hashes[:-1])
    return hashes[new], np.bincount(rows[new], minlength=len(lengths))


def _keys(sets: Shingles, filled: Array, factors: Array, shifts: Array) -> Array:
    """(m,) one number a non-empty set, equal where all hash functions of the band agree."""
    starts = sets.starts[filled]
    edges = np.unique(np.searchsorted(starts, np.arange(0, len(sets.flat), BLOCK)))
    keys = np.zeros(len(filled), np.uint64)
    for first, last in zip(edges, [*edges[1:], len(filled)], strict=True):
        if first == last:
            continue
        stop = sets.starts[-1] if last == len(filled) else starts[last]
        piece, at = sets.flat[starts[first] : stop], starts[first:last] - starts[first]
        for factor, shift in zip(factors, shifts, strict=True):
            least = np.minimum.reduceat(piece * factor + shift, at)
            keys[first:last] = mixed_bits(keys[first:last] ^ least)
    return keys


def _bucket_pairs(keys: Array) -> tuple[Array, Array]:
    """Pairs of positions with equal keys, later and earlier."""
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    new = np.ones(len(keys), bool)
    new[1:] = sorted_keys[1:] != sorted_keys[:-1]
    first = np.maximum.accumulate(np.where(new, np.arange(len(keys)), 0))
    place = np.arange(len(keys)) - first
    later, earlier = [], []
    for step in range(1, min(WINDOW, int(place.max(initial=0))) + 1):
        here = np.flatnonzero(place >= step)
        later.append(order[here])
        earlier.append(order[here - step])
    far = np.flatnonzero(place > WINDOW)
    later.append(order[far])
    earlier.append(order[first[far]])
    return np.concatenate(later), np.concatenate(earlier)
