"""Opening tables: .csv, .tsv, .jsonl and .parquet as a stream of record batches."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from modicum.data.raw import Options
from modicum.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TABLES", "Stream", "has_header", "open_table"]

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
ROWS = 4096  # rows of a batch
MOST_ROWS_PER_BYTE = 1000  # a Parquet footer that claims more is hostile: no real column shrinks so far
Batches: TypeAlias = "Callable[[list[str]], Iterator[pa.RecordBatch]]"


@dataclass(frozen=True)
class Stream:
    """A table that is read a batch at a time, as often as needed.

    Args:
        schema: Names and types of the columns.
        batches: Gives the batches of the named columns.
        source: Where it comes from, for people.
        header: Whether the first line named the columns.
    """

    schema: pa.Schema
    batches: Batches
    source: str
    header: bool = True


def open_table(path: Path, options: Options) -> Stream:
    """Open a table by its extension.

    Raises:
        DataError: It cannot be read as what its extension says.
    """
    import pyarrow as pa

    opener = {".parquet": _parquet, ".jsonl": _jsonl}.get(path.suffix.lower(), _csv)
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty; expected at least one row")
        return opener(path, options)
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a readable {path.suffix} file: {_first_line(error)}") from error


def from_table(table: pa.Table, source: str, header: bool = True) -> Stream:
    """A table in memory as a stream."""
    return Stream(table.schema, lambda names: iter(table.select(names).to_batches(ROWS)), source, header)


def _parquet(path: Path, options: Options) -> Stream:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        claimed = sum(file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups))
    if rows < 0 or rows != claimed or rows > MOST_ROWS_PER_BYTE * path.stat().st_size:
        raise DataError(f"{path} claims {rows} rows in {path.stat().st_size} bytes; the file is damaged or hostile")

    def batches(names: list[str]) -> Iterator[pa.RecordBatch]:
        try:
            with pq.ParquetFile(path) as opened:
                yield from opened.iter_batches(batch_size=ROWS // 4, columns=names)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is damaged: {_first_line(error)}") from error

    return Stream(schema, batches, str(path))


def _jsonl(path: Path, options: Options) -> Stream:
    import pyarrow.json as pj

    read = pj.ReadOptions(block_size=1 << 24)
    if path.stat().st_size <= options.map_above:
        return from_table(pj.read_json(path, read), str(path))
    if not hasattr(pj, "open_json"):
        raise DataError(f"{path} is too big to read whole; convert it to .parquet, or raise map_above")
    with pj.open_json(path, read) as first:
        schema = first.schema

    def batches(names: list[str]) -> Iterator[pa.RecordBatch]:
        with pj.open_json(path, read, pj.ParseOptions(explicit_schema=schema)) as reader:
            yield from (batch.select(names) for batch in reader)

    return Stream(schema, _named(path, batches), str(path))


def _csv(path: Path, options: Options) -> Stream:
    import pyarrow.csv as pc

    tabs = path.suffix.lower() == ".tsv"
    header = options.header if options.header is not None else has_header(_first_rows(path, tabs), options)
    names = None if header else _column_names(len(_first_rows(path, tabs)[0]), tabs)
    # The registered meaning of tab-separated values has no quoting: a quotation mark is part of the text.
    parse = pc.ParseOptions(delimiter="\t", quote_char=False) if tabs else pc.ParseOptions(newlines_in_values=True)
    read = pc.ReadOptions(column_names=names, block_size=1 << 24)
    if path.stat().st_size <= options.map_above:
        return from_table(pc.read_csv(path, read, parse), str(path), header)
    with pc.open_csv(path, read, parse) as first:
        schema = first.schema

    def batches(wanted: list[str]) -> Iterator[pa.RecordBatch]:
        convert = pc.ConvertOptions(column_types=schema, include_columns=wanted)
        with pc.open_csv(path, read, parse, convert) as reader:
            yield from reader

    return Stream(schema, _named(path, batches), str(path), header)


def _named(path: Path, batches: Batches) -> Batches:
    import pyarrow as pa

    def guarded(names: list[str]) -> Iterator[pa.RecordBatch]:
        try:
            yield from batches(names)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read to its end: {_first_line(error)}") from error

    return guarded


def has_header(rows: list[list[str]], options: Options) -> bool:
    """Whether the first row names the columns rather than being a sample like the others.

    A cell that is a number, or a last cell that occurs again below, is a value; a name that the caller uses is a name.

    Example:
        >>> has_header([["a fine film", "1"], ["a dull film", "0"]], Options())
        False
    """
    first, others = rows[0], rows[1:]
    if any(name in first for name in (*options.inputs, options.label) if isinstance(name, str)):
        return True
    if any(_is_number(cell) for cell in first):
        return False
    if any(others and all(_is_number(row[i]) for row in others if i < len(row)) for i in range(len(first))):
        return True
    return not any(row and row[-1] == first[-1] for row in others)


def _first_rows(path: Path, tabs: bool, most: int = 200) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as handle:
        if tabs:
            rows = [line.rstrip("\r\n").split("\t") for line in itertools.islice(handle, most)]
        else:
            rows = list(itertools.islice(csv.reader(handle), most))
    rows = [row for row in rows if row]
    if not rows:
        raise DataError(f"{path} is empty; expected at least one row")
    return rows


def _column_names(width: int, tabs: bool) -> list[str]:
    return ["text", "label"] if tabs and width == 2 else [f"column_{i}" for i in range(width)]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _first_line(error: Any) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
