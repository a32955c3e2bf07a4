"""Copies and near-copies inside a data set and across the sources of a mixture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import features as checked_features
from modicum.arrays import unit_rows
from modicum.context import generator
from modicum.data.minhash import near_pairs, shingles
from modicum.data.mixture import concatenate
from modicum.data.overlap import directions, points_of, row_hashes, within
from modicum.data.perceptual import perceptual_hash
from modicum.data.raw import Array
from modicum.dataset import Dataset
from modicum.errors import DataError

__all__ = ["Deduplicated", "Duplicate", "Duplicates", "By", "deduplicate", "duplicates"]

By = Literal["", "text", "pixels", "columns", "code", "features"]
NEAR: dict[str, float] = {"text": 0.8, "pixels": 0.15, "columns": 0.01, "code": 4, "features": 0.1}
KINDS = {"text": ("text",), "image": ("pixels", "code"), "tabular": ("columns",)}
ROWS, PAIRS = 2048, 2048  # of a block


class Duplicate(NamedTuple):
    """A sample for which an earlier one can stand.

    Args:
        id: Of the sample.
        source: Its source, empty where there are none.
        of: Id of the sample that stands for it.
        of_source: That one's source.
        nearness: How near: 0 apart or a Jaccard index of 1 when the inputs are equal (see `duplicates`).
        equal: Whether the inputs are equal.
        same_target: Whether the targets are; None where there are none.
    """

    id: int | str
    source: str
    of: int | str
    of_source: str
    nearness: float
    equal: bool
    same_target: bool | None


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Which samples repeat an earlier one.

    Args:
        dataset: The samples; of several data sets their concatenation.
        first: (n,) position of the sample that stands for each; its own where nothing earlier is near.
        nearness: (n,) float64 how near that one is; NaN where it is the sample itself.
        equal: (n,) whether the inputs of the two are equal.
        by: What was compared.
        near: The threshold.
    """

    dataset: Dataset
    first: Array
    nearness: Array
    equal: Array
    by: str
    near: float

    @property
    def repeated(self) -> Array:
        """(n,) whether an earlier sample stands for it."""
        mask: Array = self.first != np.arange(len(self.first))
        return mask

    def groups(self) -> list[tuple[int | str, ...]]:
        """The ids of each group of two or more, the one that stands for the others first."""
        members = np.flatnonzero(np.bincount(self.first, minlength=len(self.first))[self.first] > 1)
        order = members[np.argsort(self.first[members], kind="stable")]
        cuts = np.flatnonzero(np.diff(self.first[order])) + 1
        return [tuple(self.dataset.ids[part].tolist()) for part in np.split(order, cuts) if len(part)]

    def rows(self) -> list[Duplicate]:
        """What there is to say about every repeated sample, in the order of the data."""
        names, sources = self.dataset.info.sources, self.dataset.sources
        at = np.flatnonzero(self.repeated)
        of, ids = self.first[at], self.dataset.ids

        def source(position: int) -> str:
            return "" if sources is None else names[int(sources[position])]

        same = self._same_target(at, of)
        return [
            Duplicate(
                ids[i].item(),
                source(i),
                ids[j].item(),
                source(j),
                float(self.nearness[i]),
                bool(self.equal[i]),
                None if same is None else bool(same[k]),
            )
            for k, (i, j) in enumerate(zip(at.tolist(), of.tolist(), strict=True))
        ]

    def _same_target(self, at: Array, of: Array) -> Array | None:
        targets = self.dataset.targets
        if targets is None:
            return None
        equal = targets[torch.from_numpy(at)] == targets[torch.from_numpy(of)]
        same: Array = (equal if equal.ndim == 1 else equal.all(1)).numpy()
        return same

    def __str__(self) -> str:
        at = np.flatnonzero(self.repeated)
        same = self._same_target(at, self.first[at])
        other = 0 if same is None else int((~same).sum())
        text = f"{int(self.equal[at].sum())} of {len(self.first)} samples repeat an earlier one and {int((~self.equal[at]).sum())} nearly so"
        sources = self.dataset.sources
        if sources is not None and len(self.dataset.info.sources) > 1:
            across = int((sources[torch.from_numpy(at)] != sources[torch.from_numpy(self.first[at])]).sum())
            text += f", {across} of them one of another source"
        return text + (f"; {other} have another target" if other else "")


class Deduplicated(NamedTuple):
    """A data set without its repetitions.

    Args:
        dataset: The samples that stay, in their order.
        found: Who stands for whom.
    """

    dataset: Dataset
    found: Duplicates


def duplicates(
    data: Dataset | Mapping[str, Dataset], near: float | None = None, *, by: By = "", features: Any = None
) -> Duplicates:
    """Find the samples that equal, or nearly equal, an earlier one.

    In the order of the data each sample is kept unless an earlier *kept* one is near; that one, the first of them, then
    stands for it. So every sample is as near as asked to the one that stands for it, and no chain of small steps joins
    what is far apart. Equal inputs are found by a hash and compared; a text with unknown words equals no other.

    What near means:

    - `text`: Jaccard index of the sets of runs of three tokens >= near (0.8), by MinHash of 128 hash functions; all pairs
      found are right, and 99 % of those at the threshold are found. Time 128 shingles, memory 8 bytes a shingle.
    - `pixels`: distance of images moved to mean 0 and scaled to norm 1, <= near (0.15, a correlation of 0.989).
    - `columns`: distance of standardized rows <= near (0.01) times the median distance of random pairs.
    - `code`: bits that `perceptual_hash` differs in, <= near (4 of 64): survives resizing and compression, but may take
      different small or plain images for one.
    - `features`: distance of given features scaled to norm 1, <= near (0.1, a cosine of 0.995).

    All but texts compare every block with what is kept: time n^2 64 / 2, memory n 64 and blocks.

    Args:
        data: The samples, or several named data sets, which are concatenated; earlier sources have precedence.
        near: The threshold; the number in brackets when None; 0 finds equal inputs only.
        by: What is compared: `text`, `pixels` or `columns` by the modality when empty; `features` when they are given.
        features: (n, d) of the samples in the order of the data, of any encoder.

    Returns:
        For every sample the one that stands for it. `str` of it is one sentence.

    Raises:
        DataError: The threshold is out of range, or cannot be used with these data.

    Example:
        >>> from modicum.data import load
        >>> iris = load("iris", valid=0, test=0).train
        >>> duplicates(iris, near=0).groups()
        [(101, 142)]
    """
    dataset = data if isinstance(data, Dataset) else concatenate(data)
    by = by or ("features" if features is not None else KINDS[dataset.info.modality][0])  # type: ignore[assignment]
    threshold = _checked(dataset, near, by, features)
    first = _equal(dataset)
    nearness = np.where(first != np.arange(len(first)), 1.0 if by == "text" else 0.0, np.nan)
    unique = np.flatnonzero(first == np.arange(len(first)))
    if threshold and len(unique) > 1:
        leader, value = _near(dataset, unique, threshold, by, features)
        first[unique], nearness[unique] = unique[leader], np.where(leader == np.arange(len(unique)), np.nan, value)
        moved = first[first]  # the one that stood for an equal sample may itself be near an earlier one
        changed = moved != first
        nearness[changed] = nearness[first[changed]]
        equal = (first != np.arange(len(first))) & ~changed
        equal[unique] = False
        return Duplicates(dataset, moved, nearness, equal, by, threshold)
    return Duplicates(dataset, first, nearness, first != np.arange(len(first)), by, threshold)


def deduplicate(
    data: Dataset | Mapping[str, Dataset], near: float | None = None, *, by: By = "", features: Any = None
) -> Deduplicated:
    """Leave out every sample for which an earlier one stands; the arguments are those of `duplicates`.

    Returns:
        The rest, in its order, and who stands for whom.

    Example:
        >>> from modicum.data import load
        >>> done = deduplicate(load("iris", valid=0, test=0).train, near=0)
        >>> len(done.dataset), done.found.rows()[0].of
        (149, 101)
    """
    found = duplicates(data, near, by=by, features=features)
    return Deduplicated(found.dataset[np.flatnonzero(~found.repeated)], found)


def _checked(dataset: Dataset, near: float | None, by: str, features: Any) -> float:
    if by not in NEAR:
        raise DataError(f"by={by!r}; expected one of {', '.join(map(repr, NEAR))}")
    if by != "features" and by not in KINDS[dataset.info.modality]:
        kinds = ", ".join(map(repr, (*KINDS[dataset.info.modality], "features")))
        raise DataError(f"by={by!r} cannot compare {dataset.info.modality} data; expected one of {kinds}")
    if (by == "features") != (features is not None):
        raise DataError(f"by={by!r} and features {'are' if features is not None else 'are not'} given; expected both")
    if features is not None and len(features) != len(dataset):
        raise DataError(f"features have {len(features)} rows; expected one for each of {len(dataset)} samples")
    threshold, most = NEAR[by] if near is None else near, 64.0 if by == "code" else 2.0 if by == "features" else 1.0
    if not 0 <= threshold <= most:
        raise DataError(f"near={near} must lie between 0 and {most:g} for by={by!r}")
    return threshold


def _equal(dataset: Dataset) -> Array:
    """(n,) the first position with equal inputs."""
    first = np.arange(len(dataset))
    if not len(dataset):
        return first
    hashes = row_hashes(dataset)
    _, group, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    left = np.flatnonzero(counts[group] > 1)
    if dataset.info.modality == "text" and dataset.info.vocabulary:
        known = [(dataset.inputs[torch.from_numpy(p)] != 1).all(1).numpy() for p in _pieces(left, PAIRS)]
        left = left[np.concatenate([*known, np.empty(0, bool)])]
    while len(left):  # more than once only where different inputs have one hash
        _, start, back = np.unique(group[left], return_index=True, return_inverse=True)
        candidate = left[start][back]
        same = np.empty(len(left), bool)
        for piece in _pieces(np.arange(len(left)), PAIRS):
            here, there = (dataset.inputs[torch.from_numpy(x[piece])].flatten(1) for x in (left, candidate))
            same[piece] = (here == there).all(1).numpy()
        first[left[same]] = candidate[same]
        left = left[~same]
    return first


def _near(dataset: Dataset, unique: Array, near: float, by: str, features: Any) -> tuple[Array, Array]:
    """Among different inputs, the position that stands for each, and how near it is."""
    if by == "text":
        vocabulary = bool(dataset.info.vocabulary)
        sets = shingles(dataset.inputs.numpy()[unique], unknown=1 if vocabulary else None)
        return _leaders_of_pairs(len(unique), *near_pairs(sets, near))
    if by == "code":
        bits = torch.cat([perceptual_hash(dataset.inputs[torch.from_numpy(p)]) for p in _pieces(unique, ROWS)])
        signs = (2 * bits.float() - 1) / 8  # ||a - b||^2 is the number of differing bits over 16
        leader, value = _leaders(lambda rows: signs[rows], len(unique), (near / 16) ** 0.5 + 1e-4)
        return leader, np.round(16 * value**2)
    if by == "features":
        rows = torch.from_numpy(unit_rows("features", checked_features("features", features))[unique]).float()
        return _leaders(lambda at: rows[at], len(unique), near)
    places = torch.from_numpy(unique)

    def points(at: Tensor) -> Tensor:
        return points_of(dataset, places[at])

    if by == "pixels":
        return _leaders(points, len(unique), near)
    some = points(torch.randperm(len(unique), generator=generator(0, "duplicates"))[:2048].sort().values)
    half = len(some) // 2
    usual = max(float((some[:half] - some[half : 2 * half]).norm(dim=1).median()), 1e-30)
    leader, value = _leaders(points, len(unique), near * usual)
    return leader, value / usual


def _leaders(points: Callable[[Tensor], Tensor], n: int, reach: float) -> tuple[Array, Array]:
    """For n points the first earlier kept one within reach, or itself; distances are ruled out by projections."""
    some = points(torch.randperm(n, generator=generator(0, "duplicates", "axes"))[:2048].sort().values)
    axes, shift = directions(some - some.mean(0)), some.mean(0)
    kept, projected, size = torch.empty(n, dtype=torch.int64), torch.empty(n, axes.shape[1]), 0
    leader, value = torch.arange(n), torch.zeros(n)
    for start in range(0, n, ROWS):
        rows = torch.arange(start, min(start + ROWS, n))
        block = points(rows)
        low = (block - shift) @ axes
        for begin in range(0, size, 2 * ROWS):
            here = slice(begin, min(begin + 2 * ROWS, size))
            pairs = within(low, projected[here], reach)
            pairs = pairs[leader[rows[pairs[:, 0]]] == rows[pairs[:, 0]]]  # the first stands
            later, earlier, distance = _measured(points, block, pairs, kept[here], reach)
            _first(leader, value, start + later, earlier, distance)
        alone = (leader[rows] == rows).nonzero().flatten()
        pairs = within(low[alone], low[alone], reach) if len(alone) else alone.new_empty(0, 2)
        pairs = alone[pairs[pairs[:, 0] > pairs[:, 1]]]
        later, earlier, distance = _measured(points, block, pairs, rows, reach)
        of, near = _leaders_of_pairs(len(rows), later.numpy(), (earlier - start).numpy(), distance.numpy())
        moved = torch.from_numpy(np.flatnonzero(of != np.arange(len(rows))))
        leader[start + moved], value[start + moved] = (
            start + torch.from_numpy(of)[moved],
            torch.from_numpy(near)[moved].float(),
        )
        stay = (leader[rows] == rows).nonzero().flatten()
        kept[size : size + len(stay)], projected[size : size + len(stay)] = rows[stay], low[stay]
        size += len(stay)
    return leader.numpy(), value.double().numpy()


def _measured(
    points: Callable[[Tensor], Tensor], block: Tensor, pairs: Tensor, names: Tensor, reach: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Of candidate pairs (row of the block, row of `names`) those within reach: row, name, distance."""
    found = []
    for part in torch.split(pairs, PAIRS):
        distance = (block[part[:, 0]] - points(names[part[:, 1]])).norm(dim=1)
        hit = distance <= reach
        found.append((part[hit, 0], names[part[hit, 1]], distance[hit]))
    if not found:
        return pairs[:0, 0], pairs[:0, 1], torch.empty(0)
    later, earlier, distances = zip(*found)
    return torch.cat(later), torch.cat(earlier), torch.cat(distances)


def _first(leader: Tensor, value: Tensor, later: Tensor, earlier: Tensor, distance: Tensor) -> None:
    """Write the least earlier position of each later one that has none yet."""
    order = np.lexsort((earlier.numpy(), later.numpy()))
    rows, start = np.unique(later.numpy()[order], return_index=True)
    at = torch.from_numpy(order[start])
    leader[torch.from_numpy(rows)], value[torch.from_numpy(rows)] = earlier[at], distance[at]


def _leaders_of_pairs(n: int, later: Array, earlier: Array, values: Array) -> tuple[Array, Array]:
    """Keep each of n unless it is paired with an earlier kept one; the first such stands for it. Rounds settle chains."""
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
    hit = hit[np.lexsort((earlier[hit], later[hit]))]
    rows, start = np.unique(later[hit], return_index=True)
    leader[rows], value[rows] = earlier[hit[start]], values[hit[start]]
    return leader, value


def _pieces(rows: Array, size: int) -> Iterator[Array]:
    return (rows[i : i + size] for i in range(0, len(rows), size))
