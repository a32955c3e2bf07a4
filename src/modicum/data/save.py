"""Writers: the same forms that `load` reads, whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modicum.data.arrays import SPLITS
from modicum.data.raw import Array
from modicum.data.tables import SOURCES, WEIGHTS
from modicum.data.text import decode
from modicum.dataset import Dataset, Splits
from modicum.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    import torch.utils.data

__all__ = ["new_folder", "save", "table", "to_torch", "whole"]

ROWS = 1024  # rows of a table that are laid out at a time
ALIGN = 64  # bytes; members of an .npz begin at a multiple, so that a mapped array is aligned


def save(data: Dataset | Splits, path: str | os.PathLike[str]) -> list[Path]:
    """Write a data set so that `load` gives the same inputs, labels and ids again.

    Args:
        data: A `Dataset`, or `Splits` of which empty ones are left out.
        path: `.npz` (anything, one file for all splits), `.parquet` (images as PNG, tables, texts), `.csv`, `.tsv` or
            `.jsonl` (tables, texts; hard labels), or no extension for a folder of PNG images by class. Splits of a
            table become files beside each other, `x-train.csv`, `x-valid.csv` and `x-test.csv` for the path `x.csv`.

    Returns:
        What was written; load the first.

    Raises:
        DataError: The form cannot hold these data, or the folder is not empty.

    Example:
        >>> import tempfile
        >>> from modicum.data import load
        >>> iris = load("iris")
        >>> [file.name for file in save(iris, tempfile.mkdtemp() + "/iris.csv")]
        ['iris-train.csv', 'iris-valid.csv', 'iris-test.csv']
    """
    path = Path(path)
    parts = (
        {n: d for n, d in zip(("train", "valid", "test"), data, strict=True) if len(d)}
        if isinstance(data, Splits)
        else {"": data}
    )
    if not all(len(part) for part in parts.values()) or not parts:
        raise DataError("there are no samples to save")
    kind = path.suffix.lower()
    if kind not in ("", ".npz", ".parquet", ".csv", ".tsv", ".jsonl"):
        raise DataError(
            f"{path} has the extension {path.suffix!r}; expected .npz, .parquet, .csv, .tsv, .jsonl or none"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == ".npz":
        whole(path, lambda to: _write_npz(to, parts))
        return [path]
    if kind == "":
        return [_write_folder(path, parts)]
    write = {".parquet": _write_parquet, ".jsonl": _write_lines}.get(kind, _write_csv)
    written = []
    for name, part in parts.items():
        file = path.with_name(f"{path.stem}-{name}{path.suffix}") if name else path
        whole(file, partial(write, dataset=part, kind=kind))
        written.append(file)
    return written


def to_torch(dataset: Dataset) -> torch.utils.data.Dataset[Any]:
    """A torch data set of (input, target) samples as stored, or of (input,) without targets.

    Example:
        >>> import torch
        >>> len(to_torch(Dataset(torch.rand(3, 2), torch.tensor([0, 1, 0])))[0])
        2
    """
    from torch.utils.data import TensorDataset

    return TensorDataset(dataset.inputs, *([] if dataset.targets is None else [dataset.targets]))


def table(dataset: Dataset) -> pa.Table:
    """The samples as a table: `id`, the inputs, `label`, `sample_weight` and `sample_source`; images as PNG bytes.

    Raises:
        DataError: The inputs have no place in a table.
    """
    import pyarrow as pa

    batches = list(_batches(dataset))
    return pa.Table.from_batches(batches, batches[0].schema)


def _batches(dataset: Dataset) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    info = dataset.info
    stated = {"task": info.task, "classes": info.classes, "vocabulary": info.vocabulary, "sources": info.sources}
    metadata = {b"modicum": json.dumps(stated).encode()}
    for part, _ in dataset.batches(ROWS):
        some = dataset[part]
        columns = {"id": pa.array(some.ids), **_input_columns(some)}
        if some.targets is not None:
            columns["label"] = _label_column(some)
        if some.weights is not None:
            columns[WEIGHTS] = pa.array(some.weights.numpy())
        if some.sources is not None:
            columns[SOURCES] = pa.array(np.array(info.sources or ("0",))[some.sources.numpy()].tolist(), pa.string())
        batch = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
        yield batch.replace_schema_metadata(metadata)


def _input_columns(some: Dataset) -> dict[str, Any]:
    import pyarrow as pa

    if some.info.modality == "image":
        names = [f"{i}.png" for i in some.ids.tolist()]
        pngs = [_png(image) for image in _pixels(some)]
        return {"image": pa.array([{"bytes": b, "path": n} for b, n in zip(pngs, names, strict=True)])}
    if some.info.modality == "text" and some.info.vocabulary:
        return {"text": pa.array([decode(some, row) for row in range(len(some))], pa.string())}
    if some.inputs.ndim != 2:
        raise DataError(f"inputs of shape {tuple(some.inputs.shape[1:])} have no place in a table; save them as .npz")
    names = list(some.info.columns) or [f"column_{i}" for i in range(some.inputs.shape[1])]
    taken = {"id", "label", WEIGHTS, SOURCES} & set(names)
    if taken or len(set(names)) < len(names) or len(names) != some.inputs.shape[1]:
        raise DataError(f"columns {names} must be {some.inputs.shape[1]} different names, none of them {sorted(taken)}")
    return {name: pa.array(column) for name, column in zip(names, some.inputs.numpy().T, strict=True)}


def _label_column(some: Dataset) -> pa.Array:
    import pyarrow as pa

    assert some.targets is not None
    if some.targets.ndim == 2:
        values = np.ascontiguousarray(some.targets.numpy())
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    if some.info.task == "classification" and some.info.classes:
        return pa.array(np.array(some.info.classes)[some.targets.numpy()], pa.string())
    return pa.array(some.targets.numpy())


def _pixels(some: Dataset) -> Array:
    pixels = some.inputs.numpy()
    if pixels.dtype != np.uint8:
        exact = pixels.astype(np.uint8)
        if (exact != pixels).any():
            raise DataError(f"images of type {some.inputs.dtype} are not whole numbers 0..255; save them as .npz")
        pixels = exact
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise DataError(f"images need 1 or 3 channels for PNG, got the shape {pixels.shape[1:]}; save them as .npz")
    return pixels


def _png(image: Array) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))).save(
        buffer, "PNG", compress_level=1
    )
    return buffer.getvalue()


def _write_parquet(path: Path, dataset: Dataset, kind: str) -> None:
    import pyarrow.parquet as pq

    batches = _batches(dataset)
    first = next(batches)
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)


def _plain_batches(dataset: Dataset, kind: str) -> Iterator[pa.RecordBatch]:
    if dataset.info.modality == "image" or (dataset.targets is not None and dataset.targets.ndim == 2):
        raise DataError(f"{kind} cannot hold images or soft labels; save them as .npz or .parquet")
    return _batches(dataset)


def _write_csv(path: Path, dataset: Dataset, kind: str) -> None:
    import pyarrow as pa
    import pyarrow.csv as pc

    batches = _plain_batches(dataset, kind)
    tabs = kind == ".tsv"
    style = pc.WriteOptions(
        include_header=False, delimiter="\t" if tabs else ",", quoting_style="none" if tabs else "needed"
    )
    with open(path, "wb") as handle:
        for i, batch in enumerate(batches):
            if i == 0:
                line = io.StringIO()
                csv.writer(line, delimiter=style.delimiter, lineterminator="\n").writerow(batch.schema.names)
                handle.write(line.getvalue().encode())
            try:
                pc.write_csv(batch, handle, style)
            except pa.ArrowInvalid as error:
                raise DataError(
                    f"{kind} cannot hold a text with tabs or quotation marks ({error}); use .csv"
                ) from error


def _write_lines(path: Path, dataset: Dataset, kind: str) -> None:
    with open(path, "w", encoding="utf-8") as handle:
        for batch in _plain_batches(dataset, kind):
            handle.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())


def _write_npz(path: Path, parts: dict[str, Dataset]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        first = next(iter(parts.values()))
        stated = {
            k: v
            for k, v in asdict(first.info).items()
            if k in ("task", "modality", "classes", "columns", "vocabulary", "sources")
        }
        _add(archive, "info", np.array(json.dumps(stated)))
        for name, data in parts.items():
            prefix = f"{name}_" if name else ""
            _add(archive, prefix + "inputs", data.inputs.numpy())
            for column in ("targets", "ids", "weights", "sources"):
                value = getattr(data, column)
                if value is not None:
                    _add(archive, prefix + column, value if isinstance(value, np.ndarray) else value.numpy())


def _add(archive: zipfile.ZipFile, name: str, array: Array) -> None:
    item = zipfile.ZipInfo(f"{name}.npy")
    item.file_size = array.nbytes
    assert archive.fp is not None
    begin = archive.fp.tell() + 30 + len(item.filename) + 20 + 4  # the fixed header, the 64-bit sizes, our own header
    item.extra = struct.pack("<HH", 0xD935, -begin % ALIGN) + bytes(-begin % ALIGN)
    with archive.open(item, "w", force_zip64=True) as handle:
        description = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(handle, description)
        step = max(1, (1 << 24) // max(1, array[:1].nbytes)) if array.ndim else 1
        for start in range(0, len(array), step) if array.ndim else ():
            handle.write(np.ascontiguousarray(array[start : start + step]).tobytes())
        if array.ndim == 0:
            handle.write(array.tobytes())


def _write_folder(path: Path, parts: dict[str, Dataset]) -> Path:
    def fill(folder: Path) -> None:
        rows = [row for name, data in parts.items() for row in _write_images(folder, name, data)]
        with open(folder / "metadata.csv", "w", encoding="utf-8", newline="") as handle:
            csv.writer(handle).writerows([("file_name", "id"), *rows])

    return new_folder(path, fill)


def new_folder(path: Path, fill: Callable[[Path], object]) -> Path:
    """Fill a folder beside its place and put it there when it is complete.

    Raises:
        DataError: There is a folder already, and it is not empty.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path} is not an empty folder; choose another one, or a file name with an extension")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        fill(temporary)
        if path.exists():
            path.rmdir()
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _write_images(root: Path, split: str, data: Dataset) -> Iterator[tuple[str, Any]]:
    if (
        data.info.modality != "image"
        or data.weights is not None
        or data.sources is not None
        or (data.targets is not None and data.targets.ndim == 2)
    ):
        raise DataError(
            "a folder can hold images with hard labels and without weights or sources; save as .npz or .parquet"
        )
    labelled = data.targets is not None and data.info.task == "classification"
    names = data.info.classes if labelled else ()
    for name in names:
        if not name or "/" in name or "\0" in name or name.startswith((".", "__")):
            raise DataError(f"the class name {name!r} cannot be a folder; save as .npz or .parquet")
    if not split and any(name.lower() in SPLITS for name in names):
        split = "train"  # class folders of these names would be taken for splits
    width = len(str(len(data)))
    for part, _ in data.batches(ROWS):
        some = data[part]
        folders = [names[i] for i in some.labels.tolist()] if labelled else [""] * len(some)
        for row, (image, folder, key) in enumerate(
            zip(_pixels(some), folders, some.ids.tolist(), strict=True), part.start
        ):
            file = Path(split) / folder / f"{row:0{width}d}.png"
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_bytes(_png(image))
            yield file.as_posix(), key


def whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place and put it there when it is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}; what was there before is intact") from error
    finally:
        temporary.unlink(missing_ok=True)
