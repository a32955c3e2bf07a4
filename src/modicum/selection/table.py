"""A selection as a table of every sample, kept or not, and back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from modicum.arrays import NumPy
from modicum.dataset import Dataset
from modicum.errors import DataError
from modicum.scores import Selection

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["keep_rates", "read_selection", "selection_table"]

Status = Literal["kept", "dropped"]


def selection_table(chosen: Selection, train: Dataset) -> pa.Table:
    """A row for every sample, in the order of the data.

    Columns: `id`, `label` for classes, `status` (kept or dropped), `value` (what the choice was made by; null where there is
    nothing), `weight` (null where it is dropped or there are no weights) and `reason`.

    Args:
        chosen: The selection.
        train: The samples it was made from.

    Example:
        >>> import torch
        >>> data = Dataset(torch.zeros(3, 1), ids=np.array([7, 8, 9]))
        >>> selection_table(Selection(np.array([0, 2])), data)["status"].to_pylist()
        ['kept', 'dropped', 'kept']
    """
    import pyarrow as pa

    n = len(train)
    kept = np.zeros(n, dtype=bool)
    kept[chosen.positions] = True
    columns: dict[str, Any] = {"id": train.ids}
    if train.info.task == "classification" and train.targets is not None and train.info.classes:
        columns["label"] = pa.array(np.array(train.info.classes)[train.labels.numpy()]).dictionary_encode()
    columns["status"] = pa.array(np.where(kept, "kept", "dropped")).dictionary_encode()
    values = np.full(n, np.nan) if chosen.values is None else np.asarray(chosen.values, dtype=np.float64)
    columns["value"] = pa.array(values, mask=np.isnan(values))
    weights = np.ones(n)
    if chosen.weights is not None:
        weights[chosen.positions] = chosen.weights
    columns["weight"] = pa.array(weights, mask=~kept if chosen.weights is not None else np.ones(n, dtype=bool))
    reasons = np.full(n, "", dtype=object) if chosen.reasons is None else chosen.reasons
    columns["reason"] = pa.array(list(map(str, reasons))).dictionary_encode()
    return pa.table(columns)


def read_selection(path: str | os.PathLike[str], train: Dataset, status: Status = "kept") -> Selection:
    """A selection from its table, perhaps edited by hand.

    Args:
        path: Of the table, Parquet or CSV with the columns `id` and `status`; `value`, `weight` and `reason` may be there.
        train: The samples that it is about, in any order; those without a row are dropped.
        status: Which of them to take: `dropped` gives back what was left out.

    Raises:
        DataError: It is no such table, names samples that are not there, or takes none.
    """
    table = _read(Path(path))
    missing = [name for name in ("id", "status") if name not in table.column_names]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r}; it has {table.column_names}")
    places = {str(name): at for at, name in enumerate(train.ids.tolist())}
    ids = list(map(str, table["id"].to_pylist()))
    strange = [name for name in ids if name not in places]
    if strange:
        raise DataError(f"{path} names the sample {strange[0]!r}, which is not among the {len(train)} of train")
    if len(set(ids)) < len(ids):
        raise DataError(f"{path} names {len(ids) - len(set(ids))} samples twice; expected one row a sample")
    words = table["status"].to_pylist()
    wrong = sorted({str(w) for w in words} - {"kept", "dropped"})
    if wrong:
        raise DataError(f"{path} has the status {wrong[0]!r}; expected 'kept' or 'dropped'")
    at = np.array([places[name] for name in ids], dtype=np.int64)
    taken = np.array([w == status for w in words], dtype=bool)
    if not taken.any():
        raise DataError(f"{path} has no sample with the status {status!r}")
    values, weights = (_spread(path, table, name, at, len(train)) for name in ("value", "weight"))
    positions = np.sort(at[taken])
    heavy = None if weights is None else weights[positions]
    if heavy is not None and not (np.isfinite(heavy) & (heavy >= 0)).all():
        heavy = None if np.isnan(heavy).all() else heavy
        if heavy is not None:
            raise DataError(f"{path} has a weight that is missing or not a number >= 0 among the {status} samples")
    return Selection(positions, heavy, values, "", None, f"from {Path(path).name}")


def _read(path: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if path.suffix == ".csv":
            # ids such as 007 are no numbers
            return csv.read_csv(path, convert_options=csv.ConvertOptions(column_types={"id": pa.string()}))
        return parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable table: {str(error).splitlines()[0]}") from error


def _spread(path: Any, table: pa.Table, name: str, at: NumPy, n: int) -> NumPy | None:
    if name not in table.column_names:
        return None
    try:
        column = np.array([np.nan if x is None else float(x) for x in table[name].to_pylist()])
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} has a {name} that is no number: {error}") from error
    if np.isnan(column).all():
        return None
    whole = np.full(n, np.nan)
    whole[at] = column
    return whole


def keep_rates(chosen: Selection, train: Dataset) -> list[dict[str, Any]]:
    """Of each class how many samples there are, how many are kept, the share, and whether that is worryingly low: nothing, or
    less than half of the share of all.

    Example:
        >>> import torch
        >>> from modicum.dataset import Info
        >>> data = Dataset(torch.zeros(4, 1), torch.tensor([0, 0, 1, 1]), info=Info(classes=("a", "b")))
        >>> [row["kept"] for row in keep_rates(Selection(np.array([0, 1])), data)]
        [2, 0]
    """
    if train.info.task != "classification" or train.targets is None:
        return []
    labels = train.labels.numpy()
    there = np.bincount(labels, minlength=train.classes)
    kept = np.bincount(labels[chosen.positions], minlength=train.classes)
    overall = len(chosen) / max(1, len(train))
    names = train.info.classes or tuple(map(str, range(len(there))))
    return [
        {"class": name, "samples": int(n), "kept": int(k), "share": k / n, "warning": bool(k / n < 0.5 * overall)}
        for name, n, k in zip(names, there, kept)
        if n
    ]
