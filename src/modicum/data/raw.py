"""What a reader hands over: one split as it was found, and the desk where big inputs are laid out in mapped files."""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from modicum.context import home
from modicum.dataset import Task
from modicum.errors import DataError
from modicum.spec import content_key
from modicum.store import Damage, Store

__all__ = [
    "BLOCK",
    "MAP_ABOVE",
    "Array",
    "Desk",
    "Encoded",
    "Inputs",
    "Options",
    "Raw",
    "blocks",
    "checked_ids",
    "rows_per_block",
    "to_tensor",
]

Array: TypeAlias = "np.ndarray[Any, Any]"

MAP_ABOVE = 1 << 30  # bytes of decoded inputs above which they are laid out in a mapped file instead of memory
BLOCK = 1 << 22  # bytes that a pass over big inputs holds at once


@dataclass(frozen=True)
class Options:
    """What the caller of `load` said about the columns.

    Args:
        inputs: Names of the input columns; empty for all that are not taken otherwise.
        label: Name of the label column, None to look for one, False for none.
        task: To overrule what the labels look like.
        header: Whether the first line of a table names the columns; None to find out.
        size: Height and width that images are resized to; None to take them as they are.
        map_above: Bytes above which inputs are laid out in a mapped file.
        vocabulary: Of texts; learned from the training split, or as the source states it, when empty.
    """

    inputs: tuple[str, ...] = ()
    label: str | bool | None = None
    task: Task | None = None
    header: bool | None = None
    size: tuple[int, int] | None = None
    map_above: int = MAP_ABOVE
    vocabulary: tuple[str, ...] = ()


@dataclass(frozen=True)
class Encoded:
    """Inputs as tensors can hold them, per split, and what that taught about their meaning.

    Args:
        arrays: Per split, (n, *shape).
        info: Fields of `Info` that follow from the inputs: modality, columns, vocabulary.
        dropped: Per split, positions whose inputs could not be decoded and that the arrays leave out.
        damages: Those samples by name, with the reason.
    """

    arrays: Mapping[str, Array]
    info: Mapping[str, Any]
    dropped: Mapping[str, Array] = field(default_factory=dict)
    damages: tuple[Damage, ...] = ()


class Inputs(Protocol):
    """Inputs that are not decoded yet."""

    def __len__(self) -> int: ...

    def take(self, rows: Array) -> Inputs:
        """The rows at these increasing positions."""

    def encode(self, parts: Mapping[str, Raw], desk: Desk) -> Encoded:
        """Decode every split, with what must be learned (categories, vocabulary) learned from `parts["train"]`."""


@dataclass(frozen=True)
class Raw:
    """One split as it was found.

    Args:
        inputs: Not decoded yet.
        labels: (n,) values as written, (n, c) soft labels, or None.
        ids: (n,) unique integers or strings.
        weights: (n,) floats or None.
        classes: Names of the classes where the source states them; integer labels then count into them.
        source: Where it came from, for people.
        info: Fields of `Info` that the source states.
        sources: (n,) index into `info["sources"]` of a mixture, or None.
    """

    inputs: Inputs
    labels: Array | None
    ids: Array
    weights: Array | None = None
    classes: tuple[str, ...] = ()
    source: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    sources: Array | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: Array) -> Raw:
        """The samples at these increasing positions."""

        def pick(column: Array | None) -> Array | None:
            return None if column is None else column[rows]

        return dataclasses.replace(
            self,
            inputs=self.inputs.take(rows),
            labels=pick(self.labels),
            ids=self.ids[rows],
            weights=pick(self.weights),
            sources=pick(self.sources),
        )

    def drop(self, rows: Array) -> Raw:
        """Labels, ids and weights without these positions; the inputs already lack them."""

        def gone(column: Array | None) -> Array | None:
            return None if column is None else np.delete(column, rows, axis=0)

        return dataclasses.replace(
            self,
            labels=gone(self.labels),
            ids=np.delete(self.ids, rows),
            weights=gone(self.weights),
            sources=gone(self.sources),
        )


@dataclass(frozen=True)
class Desk:
    """Where inputs are laid out: memory, or a mapped file of the cache when they are big.

    Args:
        key: Of the data and everything that decides what is laid out; names the folder in the cache.
        options: What the caller said.
        cache: The folder of caches; `cache/data` under `modicum.context.home()` when None.
    """

    key: str
    options: Options = field(default_factory=Options)
    cache: Path | None = None

    @staticmethod
    def at(paths: tuple[Path, ...], options: Options, cache: Path | None, *choices: Any) -> Desk:
        """The desk for files: its key changes with their names, sizes and times, and with every choice."""
        stats = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
        return Desk(content_key(stats, options, choices), options, cache)

    @property
    def store(self) -> Store:
        """The folder of this data in the cache, made when first used."""
        return Store((self.cache or home() / "cache" / "data") / self.key)

    def big(self, shape: tuple[int, ...], dtype: Any) -> bool:
        """Whether such an array belongs in a mapped file."""
        return math.prod(shape) * int(np.dtype(dtype).itemsize) > self.options.map_above

    def lay_out(self, name: str, shape: tuple[int, ...], dtype: Any, fill: Callable[[Array], object]) -> Array:
        """An array that `fill` writes once: in memory, or read-only from `{name}.npy` of the cache when big."""
        if not self.big(shape, dtype):
            out = np.empty(shape, dtype)
            fill(out)
            return out
        store, file = self.store, f"{name}.npy"
        if not store.has(file):
            store.write(file, lambda path: _fill_file(path, shape, dtype, fill))
        return np.load(store.path(file), mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def _fill_file(path: Path, shape: tuple[int, ...], dtype: Any, fill: Callable[[Array], object]) -> None:
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with open(path, "r+b") as handle:
        os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)  # a full disk is an error now, not a signal later
    fill(mapped)
    mapped.flush()


def rows_per_block(shape: tuple[int, ...], dtype: Any) -> int:
    """How many samples of an array of this shape a blocked pass may hold."""
    return max(1, BLOCK // max(1, math.prod(shape[1:]) * int(np.dtype(dtype).itemsize)))


def blocks(array: Array) -> Iterator[tuple[slice, Array]]:
    """Consecutive pieces of a possibly mapped array."""
    step = rows_per_block(array.shape, array.dtype)
    for start in range(0, len(array), step):
        part = slice(start, min(start + step, len(array)))
        yield part, array[part]


def to_tensor(array: Array) -> Tensor:
    """The array as a tensor that shares its memory; a read-only array stays one, by the promise of `Dataset`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(array)


def checked_ids(ids: Array, where: str) -> Array:
    """The ids, when they are unique integers or strings.

    Raises:
        DataError: They are not.
    """
    if ids.ndim != 1 or ids.dtype.kind not in "iuU":
        raise DataError(f"{where}: ids must be one column of integers or texts, got {ids.dtype} of shape {ids.shape}")
    values, counts = np.unique(ids, return_counts=True)
    if len(values) < len(ids):
        twice = values[counts > 1][0]
        rows = np.flatnonzero(ids == twice)[:2].tolist()
        raise DataError(
            f"{where}: the id {twice.item()!r} occurs {int(counts.max())} times (first in rows {rows[0]} and {rows[1]}); "
            "ids must be unique: rename the column, or name the input columns with inputs=[...] to use row numbers"
        )
    return ids
