"""Copies and near-copies inside a data set and across the sources of a mixture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import features as checked_features
from modicum.arrays import unit_rows
from modicum.context import generator
from modicum.data.leaders import leaders_of_codes, leaders_of_pairs, leaders_of_points
from modicum.data.load import load
from modicum.data.minhash import near_pairs, shingles
from modicum.data.mixture import concatenate
from modicum.data.overlap import points_of, row_hashes
from modicum.data.perceptual import packed, perceptual_hash
from modicum.data.raw import Array
from modicum.data.written import Written, written, written_splits
from modicum.dataset import Dataset, Splits
from modicum.errors import DataError

__all__ = ["Deduplicated", "Duplicate", "Duplicates", "By", "deduplicate", "duplicates"]

By = Literal["", "text", "pixels", "columns", "code", "features"]
NEAR: dict[str, float] = {"text": 0.8, "pixels": 0.15, "columns": 0.01, "code": 4, "features": 0.1}
KINDS = {"text": ("text",), "image": ("pixels", "code"), "tabular": ("columns",)}
ROWS = 2048  # of a block
WHOLE: dict[str, Any] = {"valid": 0, "test": 0}  # nothing is cut off a source


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
    data: Any,
    near: float | None = None,
    *,
    by: By = "",
    features: Any = None,
    texts: Sequence[str] | Written | None = None,
    **options: Any,
) -> Duplicates:
    """Find the samples that equal, or nearly equal, an earlier one.

    In the order of the data each sample is kept unless an earlier *kept* one is near; that one, the first of them, then
    stands for it. So every sample is as near as asked to the one that stands for it, and no chain of small steps joins
    what is far apart. Equal inputs are found by a hash and compared.

    What near means:

    - `text`: Jaccard index of the sets of runs of three tokens >= near (0.8), by MinHash of 128 hash functions; all pairs
      found are right, and 99 % of those at the threshold are found. Time 128 shingles, memory 8 bytes a shingle.
    - `pixels`: distance of images moved to mean 0 and scaled to norm 1, <= near (0.15, a correlation of 0.989). Time n^2 64
      / 2, memory n 64 and blocks.
    - `columns`: distance of standardized rows <= near (0.01) times the median distance of random pairs, likewise.
    - `code`: bits that `perceptual_hash` differs in, <= near (4 of 64): survives resizing and compression, but may take
      different small or plain images for one. Time about n^2 / 2000 comparisons of two numbers
      (`modicum.data.leaders.leaders_of_codes`).
    - `features`: distance of given features scaled to norm 1, <= near (0.1, a cosine of 0.995), like pixels.

    Images of one color equal their copies only: they show nothing that could be nearly the same.

    Texts are compared whole and with all their words where they can be read: from what `modicum.load` understands, or from
    `texts`. A data set that was loaded before knows only the words of its vocabulary up to a length: texts that agree that
    far are equal then, and one with an unknown word equals no other.

    Args:
        data: The samples, as a data set or what `modicum.load` understands (its training split, whole where it has no
            others), or several by name, which are concatenated; earlier ones have precedence.
        near: The threshold; the number in brackets when None; 0 finds equal inputs only.
        by: What is compared: `text`, `pixels` or `columns` by the modality when empty; `features` when they are given.
        features: (n, d) of the samples in the order of the data, of any encoder.
        texts: (n,) texts as they were written, in the order of the data.
        options: For `load`, such as `label` or `inputs`.

    Returns:
        For every sample the one that stands for it. `str` of it is one sentence.

    Raises:
        DataError: The threshold is out of range, or cannot be used with these data.

    Example:
        >>> duplicates("iris", near=0).groups()
        [(101, 142)]
        >>> letters = ["dear sir, please send the book", "it is so", "Dear Sir, please send the book"]
        >>> duplicates((letters, [0, 1, 0])).groups()
        [(0, 2)]
    """
    dataset, read = _given(data, options)
    by = by or ("features" if features is not None else KINDS[dataset.info.modality][0])  # type: ignore[assignment]
    threshold = _checked(dataset, near, by, features)
    read = _texts(dataset, read, texts)
    first = _equal(dataset, read)
    nearness = np.where(first != np.arange(len(first)), 1.0 if by == "text" else 0.0, np.nan)
    unique = np.flatnonzero(first == np.arange(len(first)))
    if threshold and by in ("pixels", "code") and len(unique):
        unique = unique[np.concatenate([_shows(dataset, part) for part in _pieces(unique, ROWS)])]
    equal = first != np.arange(len(first))
    if threshold and len(unique) > 1:
        leader, value = _near(dataset, unique, threshold, by, features, read)
        first[unique], nearness[unique] = unique[leader], np.where(leader == np.arange(len(unique)), np.nan, value)
        moved = first[first]  # the one that stood for an equal sample may itself be near an earlier one
        changed = moved != first
        nearness[changed] = nearness[first[changed]]
        return Duplicates(dataset, moved, nearness, equal & ~changed, by, threshold)
    return Duplicates(dataset, first, nearness, equal, by, threshold)


def deduplicate(
    data: Any,
    near: float | None = None,
    *,
    by: By = "",
    features: Any = None,
    texts: Sequence[str] | Written | None = None,
    **options: Any,
) -> Deduplicated:
    """Leave out every sample for which an earlier one stands; the arguments are those of `duplicates`.

    Returns:
        The rest, in its order, and who stands for whom.

    Example:
        >>> done = deduplicate("iris", near=0)
        >>> len(done.dataset), done.found.rows()[0].of
        (149, 101)
    """
    found = duplicates(data, near, by=by, features=features, texts=texts, **options)
    return Deduplicated(found.dataset[np.flatnonzero(~found.repeated)], found)


def _given(data: Any, options: Mapping[str, Any]) -> tuple[Dataset, Written | None]:
    """The samples, and their texts where there are any."""
    given, numbers = dict(data) if isinstance(data, Mapping) else {"": data}, dict[str, int]()
    parts, read = {}, []
    for name, spec in given.items():
        if isinstance(spec, Splits):
            raise DataError(
                f"data{f'[{name!r}]' if name else ''} has three splits; give one of them, or several by name"
            )
        found = {} if isinstance(spec, Dataset) else written(spec, numbers, **options)
        splits = Splits(spec, spec[:0], spec[:0]) if isinstance(spec, Dataset) else load(spec, **WHOLE | dict(options))
        parts[name] = splits.train
        if splits.train.info.modality == "text":
            texts = written_splits(found, splits)
            read.append(texts["train"] if texts else Written.of_dataset(splits.train, numbers))
    whole = concatenate(parts) if isinstance(data, Mapping) else parts[""]
    return whole, Written.joined(read) if read else None


def _texts(dataset: Dataset, read: Written | None, texts: Sequence[str] | Written | None) -> Written | None:
    if texts is None:
        return read
    if dataset.info.modality != "text" or len(texts) != len(dataset):
        kind, n = dataset.info.modality, len(dataset)
        raise DataError(
            f"texts has {len(texts)} entries; expected one for each of {n} samples of text, got {kind} data"
        )
    return texts if isinstance(texts, Written) else Written.of_texts(texts, {})


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


def _equal(dataset: Dataset, read: Written | None) -> Array:
    """(n,) the first position with equal inputs."""
    first = np.arange(len(dataset))
    if not len(dataset):
        return first

    def same_inputs(left: Array, right: Array) -> Array:
        here, there = (dataset.inputs[torch.from_numpy(x)].flatten(1) for x in (left, right))
        same: Array = (here == there).all(1).numpy()
        return same

    hashes, compare = (row_hashes(dataset), same_inputs) if read is None else (read.hashes(), read.same)
    _, group, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    left = np.flatnonzero(counts[group] > 1)
    while len(left):  # more than once only where different inputs have one hash
        _, start, back = np.unique(group[left], return_index=True, return_inverse=True)
        candidate = left[start][back]
        pieces = zip(_pieces(left, ROWS), _pieces(candidate, ROWS), strict=True)
        same = np.concatenate([compare(a, b) for a, b in pieces])
        first[left[same]] = candidate[same]
        left = left[~same]
    return first


def _shows(dataset: Dataset, rows: Array) -> Array:
    """Whether images have more than one color."""
    flat = dataset.inputs[torch.from_numpy(rows)].flatten(2)
    shows: Array = (flat.amax(2) > flat.amin(2)).any(1).numpy()
    return shows


def _near(
    dataset: Dataset, unique: Array, near: float, by: str, features: Any, read: Written | None
) -> tuple[Array, Array]:
    """Among different inputs, the position that stands for each, and how near it is."""
    if by == "text":
        assert read is not None
        return leaders_of_pairs(len(unique), *near_pairs(shingles(read.take(unique)), near))
    if by == "code":
        codes = [packed(perceptual_hash(dataset.inputs[torch.from_numpy(p)])) for p in _pieces(unique, ROWS)]
        return leaders_of_codes(np.concatenate(codes), int(near))
    if by == "features":
        rows = torch.from_numpy(unit_rows("features", checked_features("features", features))[unique]).float()
        return leaders_of_points(lambda at: rows[at], len(unique), near)
    places = torch.from_numpy(unique)

    def points(at: Tensor) -> Tensor:
        return points_of(dataset, places[at])

    if by == "pixels":
        return leaders_of_points(points, len(unique), near)
    some = points(torch.randperm(len(unique), generator=generator(0, "duplicates"))[:2048].sort().values)
    half = len(some) // 2
    usual = max(float((some[:half] - some[half : 2 * half]).norm(dim=1).median()), 1e-30)
    leader, value = leaders_of_points(points, len(unique), near * usual)
    return leader, value / usual


def _pieces(rows: Array, size: int) -> Iterator[Array]:
    return (rows[i : i + size] for i in range(0, len(rows), size))
