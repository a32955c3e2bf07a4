"""Data sets of the Hugging Face `datasets` package, in and out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from modicum.data.arrays import SPLITS
from modicum.data.files import Stream
from modicum.data.raw import Options, Raw
from modicum.data.tables import interpret
from modicum.dataset import Dataset
from modicum.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["fetch", "is_huggingface", "read_huggingface", "to_huggingface"]

PIECE = 1024  # rows asked for at a time


def is_huggingface(spec: object) -> bool:
    """Whether an object has the form of a `datasets.Dataset` or a `datasets.DatasetDict`."""
    parts = list(spec.values()) if isinstance(spec, dict) else [spec]
    return bool(parts) and all(hasattr(p, "column_names") and hasattr(p, "with_format") for p in parts)


def fetch(name: str) -> Any:
    """The data set `name`, or `name:configuration`, from the hub or its local cache.

    Raises:
        MissingExtraError: The package is not installed.
        DataError: There is no such data set, or it cannot be reached.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "hf", f"hf:{name}") from None
    path, _, configuration = name.partition(":")
    try:
        return datasets.load_dataset(path, configuration or None)
    except Exception as error:  # the hub client has no common base for what can go wrong on the way
        raise DataError(f"hf:{name} cannot be loaded: {error}") from error


def read_huggingface(spec: Any, options: Options, name: str = "hf") -> dict[str, Raw]:
    """The splits of a data set; a split whose labels are all hidden (-1) has none.

    Raises:
        DataError: There is no training split, or a column is not there.
    """
    parts = spec if isinstance(spec, dict) else {"train": spec}
    found = {SPLITS.get(str(key).lower(), "valid" if str(key) == "validation" else ""): key for key in parts}
    if "train" not in found:
        raise DataError(f"{name} has no split 'train'; it has {list(parts)}; give one of them")
    return {part: _read(parts[key], options, f"{name}:{key}", part) for part, key in found.items() if part}


def _read(data: Any, options: Options, source: str, part: str) -> Raw:
    import dataclasses

    tables = data.with_format("arrow")

    def batches(names: list[str]) -> Iterator[pa.RecordBatch]:
        for start in range(0, len(data), PIECE):
            yield from tables[start : start + PIECE].select(names).to_batches()

    if len(data) == 0:
        raise DataError(f"{source} has no rows")
    raw = interpret(Stream(tables[:1].schema, batches, source), options, labelled=part == "train")
    features = getattr(data, "features", None) or {}
    column = options.label if isinstance(options.label, str) else None
    names = next(
        (tuple(f.names) for key, f in features.items() if getattr(f, "names", None) and key == (column or key)), ()
    )
    if raw.labels is None or raw.labels.dtype.kind not in "iu" or not names:
        return raw
    hidden = part != "train" and bool(np.all(raw.labels == -1))
    return dataclasses.replace(raw, classes=names, labels=None if hidden else raw.labels)


def to_huggingface(dataset: Dataset) -> Any:
    """A `datasets.Dataset` with the columns that `save` writes to Parquet.

    Raises:
        MissingExtraError: The package is not installed.
        DataError: The inputs have no place in such a table.
    """
    from modicum.data.save import table

    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "hf", "to_huggingface") from None
    plain = datasets.Dataset(table(dataset).replace_schema_metadata(None))
    if dataset.info.modality == "image":
        plain = plain.cast_column("image", datasets.Image())
    if dataset.info.classes and dataset.targets is not None and not dataset.targets.is_floating_point():
        plain = plain.cast_column("label", datasets.ClassLabel(names=list(dataset.info.classes)))
    return plain
