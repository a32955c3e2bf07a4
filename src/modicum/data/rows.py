"""The rows of a file as they stand in it: a part of a data set in the form that it came in."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from modicum.data.bundled import BUNDLED
from modicum.data.files import open_table
from modicum.data.images import ImageFiles, read_folder
from modicum.data.load import training_file
from modicum.data.raw import Array, Options
from modicum.data.save import new_folder, save, whole
from modicum.data.tables import WEIGHTS, interpret
from modicum.dataset import Dataset
from modicum.errors import DataError

__all__ = ["form_of", "save_rows"]


def form_of(spec: Any) -> str:
    """The extension of the form that a data set came in, empty for a folder of images; `.npz` where it was no file.

    Example:
        >>> form_of("digits"), form_of("hf:ag_news")
        ('.npz', '.npz')
    """
    path = _path_of(spec)
    if path is None:
        return ".npz"
    file = training_file(path)
    return "" if file is None else file.suffix.lower()


def save_rows(spec: Any, kept: Dataset, path: str | os.PathLike[str], **options: Any) -> Path:
    """Write a part of a data set in the form that it came in.

    Rows of tables are copied as they stand in the file, in its order and with all its columns, and image files are copied
    as they are. Weights become a column `sample_weight`. Other forms are written by `modicum.save`.

    Args:
        spec: What the data were loaded from.
        kept: Samples of its training split.
        path: Where to; with another extension than that of the source the samples are written by `modicum.save`.
        options: `inputs`, `label` and `header`, as the data were loaded with.

    Returns:
        What was written.

    Raises:
        DataError: The file has changed since, cannot hold weights, or the folder is not empty.

    Example:
        >>> import tempfile
        >>> from modicum.data import load
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.csv").write_text("x,note,y\\n1,so,0\\n2,and,1\\n3,so,0\\n4,on,1\\n")
        >>> train = load(folder / "a.csv", inputs="x", label="y", valid=0, test=0).train
        >>> save_rows(folder / "a.csv", train[[3, 0]], folder / "b.csv", inputs="x", label="y").read_text()
        'x,note,y\\n1,so,0\\n4,on,1\\n'
    """
    to, source = Path(path), _path_of(spec)
    file = None if source is None else training_file(source)
    if source is None or to.suffix.lower() != ("" if file is None else file.suffix.lower()) or to.suffix == ".npz":
        return save(kept, to)[0]
    if file is None:
        return _copy_images(source, kept, to)
    inputs = options.get("inputs") or ()
    columns = (inputs,) if isinstance(inputs, str) else tuple(inputs)
    asked = Options(columns, options.get("label"), header=options.get("header"))
    stream = open_table(file, asked)
    rows, weights = _rows_of(interpret(stream, asked).ids, kept, file)
    to.parent.mkdir(parents=True, exist_ok=True)
    kind = file.suffix.lower()
    if kind == ".parquet":
        _copy_parquet(file, rows, weights, to)
    elif kind == ".jsonl":
        whole(to, partial(_write, lines=_json_lines(file, rows, weights)))
    else:
        if weights is not None and not stream.header:
            raise DataError(
                f"{file} has no header, so weights have no place in it; write the samples to a .parquet or .npz file instead"
            )
        whole(to, partial(_write, lines=_csv_lines(file, rows, weights, stream.header, kind == ".tsv")))
    return to


def _path_of(spec: Any) -> Path | None:
    if not isinstance(spec, (str, os.PathLike)) or spec in BUNDLED or str(spec).startswith("hf:"):
        return None
    return Path(spec)


def _rows_of(ids: Array, kept: Dataset, file: Path) -> tuple[Array, Array | None]:
    """Sorted rows of the file that hold the samples, and their weights."""
    place = {name: row for row, name in enumerate(ids.tolist())}
    missing = [name for name in kept.ids.tolist() if name not in place]
    if missing:
        raise DataError(f"{file} has no sample {missing[0]!r}; it has changed since it was loaded: load it again")
    rows = np.array([place[name] for name in kept.ids.tolist()], dtype=np.int64)
    order = np.argsort(rows)
    return rows[order], None if kept.weights is None else kept.weights.numpy()[order].astype(np.float64)


def _write(to: Path, lines: Iterator[str]) -> None:
    with open(to, "w", encoding="utf-8", newline="") as handle:
        handle.writelines(lines)


def _json_lines(file: Path, rows: Array, weights: Array | None) -> Iterator[str]:
    wanted = {int(row): i for i, row in enumerate(rows)}
    with open(file, encoding="utf-8", newline="") as handle:
        filled = (line for line in handle if line.strip())
        for row, line in enumerate(filled):
            if row not in wanted:
                continue
            if weights is not None:
                line = json.dumps({**json.loads(line), WEIGHTS: float(weights[wanted[row]])}, ensure_ascii=False)
            yield line.rstrip("\r\n") + "\n"


def _csv_lines(file: Path, rows: Array, weights: Array | None, header: bool, tabs: bool) -> Iterator[str]:
    wanted = {int(row): i for i, row in enumerate(rows)}
    sign = "\t" if tabs else ","
    with open(file, encoding="utf-8", newline="") as handle:
        place: int | None = None  # of the column of weights, where there is one already
        for row, record in enumerate(_records(handle, tabs), start=-1 if header else 0):
            text = record.rstrip("\r\n")
            if weights is not None and (row < 0 or row in wanted):
                cells = text.split("\t") if tabs else next(csv.reader([text]))
                if row < 0:
                    place = cells.index(WEIGHTS) if WEIGHTS in cells else None
                cell = WEIGHTS if row < 0 else f"{weights[wanted[row]]:.9g}"
                if place is None:
                    text = f"{text}{sign}{cell}"
                else:
                    cells[place] = cell
                    text = "\t".join(cells) if tabs else _line(cells)
            if row < 0 or row in wanted:
                yield text + "\n"


def _line(cells: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(cells)
    return out.getvalue()


def _records(lines: Iterator[str] | Any, tabs: bool) -> Iterator[str]:
    """Whole records: a line, or several where a quoted cell goes over the end of one; empty lines are none."""
    held = ""
    for line in lines:
        held += line
        if not tabs and held.count('"') % 2:
            continue
        if held.strip("\r\n"):
            yield held
        held = ""
    if held:
        yield held


def _copy_parquet(file: Path, rows: Array, weights: Array | None, to: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        schema = opened.schema_arrow
        if weights is not None and WEIGHTS not in schema.names:
            schema = schema.append(pa.field(WEIGHTS, pa.float64()))

        def write(temporary: Path) -> None:
            start = 0
            with pq.ParquetWriter(temporary, schema) as writer:
                for batch in opened.iter_batches(batch_size=1024):
                    low, high = np.searchsorted(rows, [start, start + len(batch)])
                    part = pa.Table.from_batches([batch]).take(rows[low:high] - start)
                    if weights is not None:
                        column = pa.array(weights[low:high], schema.field(WEIGHTS).type)
                        at = part.schema.get_field_index(WEIGHTS)
                        part = part.append_column(WEIGHTS, column) if at < 0 else part.set_column(at, WEIGHTS, column)
                    if len(part):
                        writer.write_table(part.cast(schema))
                    start += len(batch)

        whole(to, write)


def _copy_images(root: Path, kept: Dataset, to: Path) -> Path:
    if kept.weights is not None:
        raise DataError(
            "weights have no place in a folder of images; write the samples to a .parquet or .npz file instead"
        )
    raw = read_folder(root, Options())["train"]
    assert isinstance(raw.inputs, ImageFiles)
    name = dict(zip(raw.ids.tolist(), raw.inputs.names.tolist(), strict=True))
    missing = [id_ for id_ in kept.ids.tolist() if id_ not in name]
    if missing:
        raise DataError(f"{root} has no sample {missing[0]!r}; it has changed since it was loaded: load it again")

    def copy(folder: Path) -> None:
        for id_ in kept.ids.tolist():
            target = folder / name[id_]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name[id_], target)
        if (root / "metadata.csv").is_file():
            with open(folder / "metadata.csv", "w", encoding="utf-8", newline="") as handle:
                csv.writer(handle).writerows([("file_name", "id"), *((name[i], i) for i in kept.ids.tolist())])

    return new_folder(to, copy)
