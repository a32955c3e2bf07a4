"""Arrays in memory, .npz files and samples of a torch data set."""

from __future__ import annotations

import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, get_args

import numpy as np

from modicum.data.raw import BLOCK, Array, Desk, Encoded, Inputs, Raw, blocks, checked_ids, rows_per_block
from modicum.dataset import Modality, Task
from modicum.errors import DataError

__all__ = ["ArrayInputs", "from_arrays", "from_samples", "read_npz"]

SPLITS = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "dev": "valid", "test": "test"}
INPUTS = ("inputs", "images", "image", "x", "features", "data", "input")
LABELS = ("targets", "labels", "label", "y", "target")
MAP_FROM = 1 << 20  # bytes; smaller members are simply read
MOST_EXPANSION = 1100  # deflate cannot shrink anything more; a header that claims more lies


@dataclass(frozen=True)
class ArrayInputs:
    """Rows of an array that may be mapped from a file.

    Args:
        array: (n, *shape), as stored.
        rows: The positions that are meant; all when None.
        modality: What the array holds, where the source states it.
    """

    array: Array
    rows: Array | None = None
    modality: Modality | None = None

    def __len__(self) -> int:
        return len(self.array if self.rows is None else self.rows)

    def take(self, rows: Array) -> ArrayInputs:
        """The rows at these positions; nothing is copied yet."""
        if len(rows) == len(self) and bool((rows == np.arange(len(rows))).all()):
            return self
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def encode(self, parts: Mapping[str, Raw], desk: Desk) -> Encoded:
        """Arrays in the layout and types of tensors: (n, channels, height, width) images, floating tables."""
        modality = self.modality or ("image" if self.array.ndim in (3, 4) else "tabular")
        arrays = {}
        for name, raw in parts.items():
            if not isinstance(raw.inputs, ArrayInputs):
                raise DataError(f"{raw.source}: the splits must be of one kind, all arrays or all files of one kind")
            arrays[name] = _finished(name, raw, raw.inputs, modality, desk)
        return Encoded(arrays, {"modality": modality})


def _finished(name: str, raw: Raw, inputs: ArrayInputs, modality: Modality, desk: Desk) -> Array:
    array = _arranged(inputs.array, modality, raw.source)
    dtype = _fitting_type(array, modality, raw.source)
    shape = (len(inputs), *array.shape[1:])
    mapped = isinstance(inputs.array, np.memmap)
    if inputs.rows is None and dtype == array.dtype and (mapped or array.flags.c_contiguous):
        result = array
    else:
        result = _copied(name, array, inputs.rows, shape, dtype, mapped, desk)
    if dtype.kind == "f":
        check_finite(result, raw.ids, raw.source)
    return result


def _copied(
    name: str, array: Array, rows: Array | None, shape: tuple[int, ...], dtype: Any, mapped: bool, desk: Desk
) -> Array:
    if not mapped:
        return np.ascontiguousarray(array if rows is None else array[rows], dtype=dtype)
    step = rows_per_block(shape, dtype)

    def fill(out: Array) -> None:
        for start in range(0, len(out), step):
            part = slice(start, start + step)
            out[part] = array[part if rows is None else rows[part]]

    return desk.lay_out(name, shape, dtype, fill)


def _arranged(array: Array, modality: Modality, source: str) -> Array:
    if modality == "image":
        if array.ndim == 3:
            return array[:, None]
        if array.ndim == 4 and array.shape[3] in (1, 3, 4) and array.shape[1] not in (1, 3):
            return np.moveaxis(array, 3, 1)
        if array.ndim != 4:
            raise DataError(f"{source}: images must have 3 or 4 dimensions, got shape {array.shape}")
        return array
    if modality == "tabular" and array.ndim == 1:
        return array[:, None]
    if array.ndim != 2:
        raise DataError(
            f"{source}: inputs of shape {array.shape} are neither a table (n, columns) nor images "
            "(n, height, width) or (n, channels, height, width); reshape them"
        )
    return array


def _fitting_type(array: Array, modality: Modality, source: str) -> np.dtype[Any]:
    if modality == "text":
        return np.dtype(np.int32)
    if array.dtype == np.uint8 and modality == "image":
        return np.dtype(np.uint8)
    if array.dtype.kind in "fiub":
        return np.dtype(np.float32)
    raise DataError(f"{source}: inputs must be numbers, got dtype {array.dtype}")


def check_finite(array: Array, ids: Array, source: str, columns: tuple[str, ...] = ()) -> None:
    """Look for NaN and infinity a block at a time.

    Raises:
        DataError: There is one; its column and sample are named.
    """
    for part, block in blocks(array):
        bad = ~np.isfinite(block)
        if bad.any():
            first = np.argwhere(bad)[0]
            at = tuple(int(i) for i in first[1:])
            where = f"column {columns[at[0]] if columns else at[0]!r}" if len(at) == 1 else f"position {at}"
            raise DataError(
                f"{source}: {where} of sample {ids[part][first[0]].item()!r} is {block[tuple(first)]}; "
                "inputs must be finite: fill in or remove such values"
            )


def from_arrays(inputs: Any, targets: Any, source: str = "arrays") -> Raw:
    """NumPy arrays, tensors or lists as one split.

    Raises:
        DataError: They do not fit together.
    """
    array, labels = as_array(inputs), None if targets is None else as_array(targets)
    if labels is not None and (labels.ndim == 0 or array.ndim == 0 or len(labels) != len(array)):
        raise DataError(f"{source}: targets have shape {labels.shape} but inputs {array.shape}; one row a sample each")
    if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels is not None and labels.ndim > 2:
        raise DataError(f"{source}: targets must have shape (n,) or (n, c), got {labels.shape}")
    if array.dtype.kind == "U" and array.ndim == 1:
        from modicum.data.tables import text_frame

        return Raw(text_frame(array), labels, np.arange(len(array)), source=source)
    return Raw(ArrayInputs(array), labels, np.arange(len(array)), source=source)


def as_array(value: Any) -> Array:
    """Tensors, arrays and lists as one array of numbers or texts.

    Raises:
        DataError: They are something else.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    try:
        array = value if isinstance(value, np.ndarray) else np.array(value)
    except ValueError as error:
        raise DataError(f"rows of different shapes cannot be one array: {error}") from error
    if array.dtype.kind == "O" and array.ndim == 1 and all(isinstance(item, str) for item in array):
        array = array.astype(str)
    if array.dtype.kind not in "iufbU":
        raise DataError(f"expected numbers or texts, got an array of dtype {array.dtype}")
    return array


def from_samples(samples: Any) -> Raw:
    """A map-style torch data set of (input, target) samples as one split; each sample is asked for once.

    Raises:
        DataError: It is empty, or its samples are of different shapes.
    """
    n, source = len(samples), type(samples).__name__
    if n == 0:
        raise DataError(f"{source} has no samples")
    targets: list[Any] = []
    array: Array | None = None
    for row in range(n):
        sample = samples[row]
        pair = sample if isinstance(sample, (tuple, list)) else (sample,)
        one = as_array(pair[0] if hasattr(pair[0], "detach") else np.asarray(pair[0]))
        if array is None:
            array = np.empty((n, *one.shape), one.dtype)
        if one.shape != array.shape[1:]:
            raise DataError(
                f"{source}: sample {row} has shape {one.shape} but sample 0 has {array.shape[1:]}; resize them alike"
            )
        array[row] = one
        if len(pair) > 1:
            targets.append(as_array(pair[1] if hasattr(pair[1], "detach") else np.asarray(pair[1])))
    assert array is not None
    return from_arrays(array, np.stack(targets) if targets else None, source)


def read_npz(path: Path, desk: Desk) -> dict[str, Raw]:
    """The splits of an .npz file; members that are not compressed are mapped in place.

    Raises:
        DataError: A member is damaged, lies about its size, or nothing looks like inputs.
    """
    options, found = desk.options, dict[str, dict[str, str]]()
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is not a readable .npz file: {error}") from error
    with archive:
        names = {Path(i.filename).stem if i.filename.endswith(".npy") else i.filename: i for i in archive.infolist()}
        for key in names:
            part, role = _role(key)
            found.setdefault(part, {})[role] = key
        stated = _stated(_member(path, archive, names["info"], desk)) if "info" in names else {}
        result = {}
        for part in ("train", "valid", "test", ""):
            keys = found.get(part, {})
            wanted = options.inputs[:1] or INPUTS
            inputs = next((keys[r] for r in wanted if r in keys), None)
            if inputs is None:
                continue
            labels = [options.label] if isinstance(options.label, str) else LABELS if options.label is None else []
            label = next((keys[r] for r in labels if r in keys), None)
            if label is None and isinstance(options.label, str) and part in ("", "train"):
                raise DataError(f"{path} has no labels named {options.label!r}; it has {sorted(names)}")

            def read(key: str | None) -> Array | None:
                return None if key is None else _member(path, archive, names[key], desk)

            raw = from_arrays(read(inputs), read(label), f"{path.name}:{inputs}")
            ids, weights = read(keys.get("ids")), read(keys.get("weights"))
            result[part or "train"] = replace(
                raw,
                inputs=_told(raw.inputs, stated),
                ids=raw.ids if ids is None else checked_ids(ids, f"{path}:{keys['ids']}"),
                weights=weights,
                sources=read(keys.get("sources")),
                classes=tuple(stated.get("classes", ())),
                info={k: tuple(stated[k]) for k in ("columns", "vocabulary", "sources") if stated.get(k)}
                | ({"task": stated["task"]} if stated.get("task") in get_args(Task) else {}),
            )
    if "train" not in result:
        expected = "train_images and train_labels, x_train and y_train, or inputs and targets"
        raise DataError(f"{path} has no training inputs: expected members such as {expected}, got {sorted(names)}")
    return result


def _told(inputs: Inputs, stated: dict[str, Any]) -> Inputs:
    known = isinstance(inputs, ArrayInputs) and stated.get("modality") in ("image", "tabular", "text")
    return replace(inputs, modality=stated["modality"]) if isinstance(inputs, ArrayInputs) and known else inputs


def _role(key: str) -> tuple[str, str]:
    words = re.split(r"[_.\-]", key.lower())
    for word in (words[0], words[-1]):
        if word in SPLITS and len(words) > 1:
            rest = words[1:] if word == words[0] else words[:-1]
            return SPLITS[word], "_".join(rest)
    return "", key.lower()


def _stated(info: Array) -> dict[str, Any]:
    try:
        stated = json.loads(str(info))
    except ValueError:
        return {}
    return stated if isinstance(stated, dict) else {}


def _member(path: Path, archive: zipfile.ZipFile, item: zipfile.ZipInfo, desk: Desk) -> Array:
    what = f"{path}:{item.filename}"
    if item.file_size > MOST_EXPANSION * max(1, item.compress_size) + 1024:
        raise DataError(f"{what} claims {item.file_size} bytes in {item.compress_size}; the file is damaged or hostile")
    try:
        with archive.open(item) as handle:
            version = np.lib.format.read_magic(handle)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(handle)
            if dtype.hasobject:
                raise DataError(f"{what} holds Python objects, which are never unpickled; save plain numbers or texts")
            header, size = handle.tell(), math.prod(shape) * dtype.itemsize
            if min(shape, default=0) < 0 or header + size != item.file_size:
                raise DataError(f"{what} claims shape {shape} of {dtype} but holds {item.file_size - header} bytes")
            if item.compress_type == zipfile.ZIP_STORED and size >= MAP_FROM:
                while handle.read(BLOCK):  # the archive compares its checksum when the end is reached
                    pass
                order: Any = "F" if fortran else "C"
                return np.memmap(path, dtype, "r", _offset(path, item) + header, shape, order)
            laid = desk.lay_out(
                item.filename.replace("/", "_"),
                shape[::-1] if fortran else shape,
                dtype,
                lambda out: _pour(handle, out),
            )
            return laid.T if fortran else laid
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DataError(f"{what} is damaged: {error}") from error


def _pour(handle: IO[bytes], out: Array) -> None:
    flat = out.reshape(-1)
    step = max(1, BLOCK // out.dtype.itemsize)
    for start in range(0, max(1, flat.size), step):
        piece = flat[start : start + step]
        content = handle.read(piece.nbytes)
        if len(content) != piece.nbytes:
            raise EOFError("it ends too early")
        piece[...] = np.frombuffer(content, out.dtype)
    if handle.read(1):
        raise EOFError("it goes on after its end")


def _offset(path: Path, item: zipfile.ZipInfo) -> int:
    with open(path, "rb") as handle:
        handle.seek(item.header_offset)
        name, extra = struct.unpack("<26x2H", handle.read(30))
    return item.header_offset + 30 + int(name) + int(extra)
