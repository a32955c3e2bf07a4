"""Tables: which column is what, and numeric columns and categories as a floating matrix."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from modicum.data.arrays import INPUTS, LABELS, check_finite
from modicum.data.files import Stream, from_table
from modicum.data.raw import Array, Desk, Encoded, Options, Raw, checked_ids
from modicum.dataset import Task
from modicum.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CATEGORIES", "Frame", "interpret", "text_frame"]

CATEGORIES = 64  # a column of more different texts than this is not a category
LABEL_NAMES = (*LABELS, "class", "sentiment", "fine_label", "category")
WEIGHTS = "sample_weight"
SOURCES = "sample_source"


@dataclass(frozen=True)
class Frame:
    """Rows of the input columns of a table.

    Args:
        stream: The table.
        columns: Names of the input columns.
        total: Rows of the table.
        kind: How the columns become inputs.
        rows: The increasing positions that are meant; all when None.
    """

    stream: Stream
    columns: tuple[str, ...]
    total: int
    kind: Literal["tabular", "text", "image"]
    rows: Array | None = None

    def __len__(self) -> int:
        return self.total if self.rows is None else len(self.rows)

    def take(self, rows: Array) -> Frame:
        """The rows at these increasing positions."""
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Batches of the rows that are meant, each with the position of its first row among them."""
        import pyarrow as pa

        offset = done = 0
        for batch in self.stream.batches(list(self.columns)):
            if self.rows is not None:
                last = np.searchsorted(self.rows, offset + len(batch))
                local = self.rows[done:last] - offset
                offset += len(batch)
                batch = batch.take(pa.array(local)) if len(local) < len(batch) else batch
            if len(batch):
                yield done, batch
            done += len(batch)

    def encode(self, parts: Mapping[str, Raw], desk: Desk) -> Encoded:
        """Numbers, tokens or pixels, by the kind of the training split."""
        frames: dict[str, Frame] = {}
        for name, raw in parts.items():
            if not isinstance(raw.inputs, Frame) or raw.inputs.kind != self.kind:
                raise DataError(f"{raw.source}: every split must hold {self.kind} columns like the training split")
            frames[name] = raw.inputs
        if self.kind == "text":
            from modicum.data.text import encode_texts

            return encode_texts(
                frames, desk.options.vocabulary or tuple(parts["train"].info.get("vocabulary", ())), desk
            )
        if self.kind == "image":
            from modicum.data.images import encode_images, frame_blobs

            return encode_images({name: frame_blobs(frame, parts[name]) for name, frame in frames.items()}, desk)
        return _encode_columns(frames, parts, desk)


def interpret(stream: Stream, options: Options, labelled: bool = True) -> Raw:
    """Find ids, labels, weights and inputs among the columns.

    Args:
        stream: The table.
        options: What the caller said.
        labelled: Whether labels must be there; a split without any is left to the caller.

    Raises:
        DataError: A column is not there, cannot be used or is ambiguous.
    """
    import pyarrow as pa

    names, stated = stream.schema.names, _stated(stream)
    for name in (*options.inputs, options.label):
        if isinstance(name, str) and name not in names and (labelled or name != options.label):
            raise DataError(f"{stream.source} has no column {name!r}; it has {names}")
    label = _label_column(stream, options, labelled)
    used = [n for n in ("id", label, WEIGHTS, SOURCES) if n in names and n not in options.inputs]
    taken = stream.batches([n for n in used if n is not None] or names[:1])
    side = pa.Table.from_batches(list(taken), pa.schema([stream.schema.field(n) for n in used])) if used else None
    total = len(side) if side is not None else sum(len(batch) for batch in stream.batches(names[:1]))
    if total == 0:
        raise DataError(f"{stream.source} has no rows")
    ids = np.arange(total)
    if side is not None and "id" in used:
        found = _plain(side["id"])
        if found.dtype.kind in "iuU":
            usable = len(np.unique(found)) == total or not options.inputs
            ids = checked_ids(found, f"{stream.source}: column 'id'") if usable else ids
    labels = None if label is None or side is None else _labels(side[label], ids, f"{stream.source}: column {label!r}")
    weights = _plain(side[WEIGHTS]) if side is not None and WEIGHTS in used else None
    sources, known = _sources(side[SOURCES], tuple(stated.get("sources", ()))) if SOURCES in used else (None, ())  # type: ignore[index]
    columns, kind = _input_columns(stream, options, [n for n in names if n not in (label, WEIGHTS, SOURCES, "id")])
    return Raw(
        Frame(stream, columns, total, kind),
        labels,
        ids,
        weights,
        tuple(stated.get("classes", ())),
        stream.source,
        ({"vocabulary": tuple(stated["vocabulary"])} if stated.get("vocabulary") and kind == "text" else {})
        | ({"task": stated["task"]} if stated.get("task") in get_args(Task) else {})
        | ({"sources": known} if known else {}),
        sources,
    )


def text_frame(texts: Array) -> Frame:
    """Texts in memory as a frame."""
    import pyarrow as pa

    return Frame(from_table(pa.table({"text": pa.array(texts.tolist())}), "texts"), ("text",), len(texts), "text")


def _label_column(stream: Stream, options: Options, labelled: bool) -> str | None:
    names = stream.schema.names
    if options.label is False:
        return None
    if isinstance(options.label, str):
        return options.label if options.label in names else None
    known = next((n for wanted in LABEL_NAMES for n in names if n.lower() == wanted), None)
    if known is not None or not labelled:
        return known
    if not stream.header and len(names) > 1:
        return str(names[-1])
    raise DataError(
        f"{stream.source}: none of its columns {names} is known to hold the labels; name it, label='...', "
        "or say label=False when there are none"
    )


def _labels(column: pa.ChunkedArray, ids: Array, where: str) -> Array:
    import pyarrow as pa

    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise DataError(
            f"{where}: the label of sample {ids[row].item()!r} is missing ({column.null_count} such samples); "
            "remove those rows or fill in the labels"
        )
    if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        values, n = _plain(pa.chunked_array([c.flatten() for c in column.chunks])), len(column)
        if n and len(values) % n == 0:
            return values.reshape(n, -1)
    labels = _plain(column)
    if labels.dtype.kind not in "iufbU":
        raise DataError(f"{where}: labels must be numbers, texts or lists of probabilities, got {column.type}")
    return labels


def _sources(column: pa.ChunkedArray, stated: tuple[str, ...]) -> tuple[Array, tuple[str, ...]]:
    """The number of each sample's source, and their names: those that are stated, then others as they come."""
    names = _plain(column).astype(str)
    known = tuple(dict.fromkeys((*stated, *names.tolist())))
    order = np.argsort(known)
    return order[np.searchsorted(np.array(known)[order], names)], known


def _plain(column: pa.ChunkedArray) -> Array:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _is_text(column.type):
        return np.array(column.to_pylist(), dtype=str)
    return column.to_numpy()  # type: ignore[no-any-return]


def _input_columns(
    stream: Stream, options: Options, names: list[str]
) -> tuple[tuple[str, ...], Literal["tabular", "text", "image"]]:
    schema = stream.schema
    wanted = list(options.inputs) or names
    images = [n for n in wanted if _is_image(schema.field(n).type)]
    if images:
        best = next((n for n in ("image", "img", *INPUTS) if n in images), images[0])
        return (best,), "image"
    if not wanted:
        raise DataError(f"{stream.source} has no input columns beside {schema.names}")
    texts = [n for n in wanted if _is_text(schema.field(n).type)]
    if wanted == texts and len(texts) == 1 and _reads_like_text(stream, texts[0]):
        return (texts[0],), "text"
    if wanted == texts and options.inputs and any(_many_texts(stream, name) for name in texts):
        return tuple(texts), "text"
    return tuple(wanted), "tabular"


def _reads_like_text(stream: Stream, name: str) -> bool:
    seen: set[str | None] = set()
    for batch in stream.batches([name]):
        values = set(batch[name].unique().to_pylist())
        seen |= values
        if len(seen) > CATEGORIES or any(value and " " in value for value in values):
            return True
    return False


def _many_texts(stream: Stream, name: str) -> bool:
    """Whether a column has more different texts than categories may."""
    seen: set[str | None] = set()
    for batch in stream.batches([name]):
        seen |= set(batch[name].unique().to_pylist())
        if len(seen) > CATEGORIES:
            return True
    return False


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def _is_image(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _stated(stream: Stream) -> dict[str, Any]:
    try:
        stated = json.loads((stream.schema.metadata or {}).get(b"modicum", b"{}"))
    except ValueError:
        return {}
    return stated if isinstance(stated, dict) else {}


def _encode_columns(frames: Mapping[str, Frame], parts: Mapping[str, Raw], desk: Desk) -> Encoded:
    train = frames["train"]
    categories = _categories(train)
    names: list[str] = []
    for column in train.columns:
        names += [column] if column not in categories else [f"{column}={value}" for value in categories[column]]
    arrays = {}
    for part, frame in frames.items():
        lacking = [c for c in train.columns if c not in frame.stream.schema.names]
        if lacking:
            raise DataError(f"{frame.stream.source} has no column {lacking[0]!r}; it has {frame.stream.schema.names}")
        aligned = replace(frame, columns=train.columns)
        arrays[part] = desk.lay_out(part, (len(frame), len(names)), np.float32, partial(_fill, aligned, categories))
        check_finite(arrays[part], parts[part].ids, frame.stream.source, tuple(names))
    return Encoded(arrays, {"modality": "tabular", "columns": tuple(names)})


def _categories(train: Frame) -> dict[str, list[str]]:
    schema = train.stream.schema
    found: dict[str, set[str]] = {n: set() for n in train.columns if _is_text(schema.field(n).type)}
    if not found:
        return {}
    for _, batch in train.batches():
        for name, seen in found.items():
            seen.update(value for value in batch[name].unique().to_pylist() if value is not None)
            if len(seen) > CATEGORIES:
                raise DataError(
                    f"{train.stream.source}: column {name!r} has more than {CATEGORIES} different texts, too many for "
                    f"categories; choose the input columns with inputs=[...], or inputs={name!r} alone to read it as text"
                )
    return {name: sorted(seen) for name, seen in found.items()}


def _fill(frame: Frame, categories: Mapping[str, list[str]], out: Array) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    for start, batch in frame.batches():
        rows, at = slice(start, start + len(batch)), 0
        for name in frame.columns:
            column = batch[name]
            if name in categories:
                if not _is_text(column.type):
                    column = column.cast(pa.string())
                place = pc.index_in(column.cast(pa.string()), pa.array(categories[name], pa.string()))
                codes = np.nan_to_num(place.to_numpy(zero_copy_only=False), nan=-1)
                width = len(categories[name])
                out[rows, at : at + width] = codes[:, None] == np.arange(width)
                out[rows, at : at + width][column.is_null().to_numpy(zero_copy_only=False)] = np.nan
                at += width
                continue
            if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
                column = _as_number(column, name, frame)
            out[rows, at] = column.to_numpy(zero_copy_only=False)
            at += 1


def _as_number(column: pa.Array, name: str, frame: Frame) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_boolean(column.type) or pa.types.is_decimal(column.type) or pa.types.is_null(column.type):
        return column.cast(pa.float64() if not pa.types.is_boolean(column.type) else pa.uint8())
    raise DataError(
        f"{frame.stream.source}: column {name!r} has the type {column.type}, expected numbers or texts; "
        "choose the input columns with inputs=[...]"
    )
