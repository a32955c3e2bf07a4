"""From labels as written to class indices, soft labels or regression targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from modicum.data.raw import Array, Raw
from modicum.dataset import Task
from modicum.errors import DataError

__all__ = ["class_values", "encode_labels", "infer_task", "strata"]

MANY = 20  # more different numbers than this, with under FEW samples each, are a quantity and not a class
FEW = 3


def infer_task(raw: Raw, task: Task | None) -> Task:
    """What the labels are for: numbers with a fraction, or very many different numbers, are regression.

    Raises:
        DataError: A label is missing, or the labels cannot serve the task that was asked for.
    """
    labels, task = raw.labels, task or raw.info.get("task")
    if labels is None or task == "unlabeled":
        return "unlabeled"
    _check_present(raw, labels)
    number = labels.dtype.kind in "iufb"
    if task == "regression" and (labels.ndim > 2 or not number):
        raise DataError(
            f"{raw.source}: task='regression' needs one or more columns of numbers, got {labels.dtype} of shape "
            f"{labels.shape}"
        )
    if task is not None:
        return task
    if labels.ndim == 2 or not number or raw.classes:
        return "classification"
    if labels.dtype.kind == "f" and bool((labels != np.round(labels)).any()):
        return "regression"
    different = len(np.unique(labels))
    return "regression" if different > MANY and len(labels) < FEW * different else "classification"


def class_values(raw: Raw) -> tuple[Array, tuple[str, ...]]:
    """The different labels in their order (numbers by size, names by alphabet) and the names of the classes."""
    labels = raw.labels
    assert labels is not None
    if labels.ndim == 2:
        c = labels.shape[1]
        return np.arange(c), raw.classes or tuple(map(str, range(c)))
    if raw.classes:
        return (np.array(raw.classes) if labels.dtype.kind == "U" else np.arange(len(raw.classes))), raw.classes
    values = np.unique(labels)
    if values.dtype.kind == "U":
        order = sorted(values.tolist(), key=_natural)
        return np.array(order), tuple(order)
    if values.dtype.kind == "f" and bool((values == np.round(values)).all()):
        return values, tuple(str(int(v)) for v in values)
    return values, tuple(str(v) for v in values.tolist())


def encode_labels(raw: Raw, task: Task, values: Array) -> Tensor | None:
    """Labels of one split as class indices, soft labels or regression targets.

    Raises:
        DataError: A label is missing or none of the known ones.
    """
    labels = raw.labels
    if task == "unlabeled" or labels is None:
        return None
    _check_present(raw, labels)
    if task == "regression":
        return torch.tensor(labels.astype(np.float32))
    if labels.ndim == 2:
        if labels.shape[1] != len(values) or bool((labels < 0).any()):
            raise DataError(
                f"{raw.source}: soft labels must be non-negative and of shape (n, {len(values)}), got {labels.shape}"
            )
        return torch.tensor(labels.astype(np.float32))
    if (labels.dtype.kind == "U") != (values.dtype.kind == "U"):
        labels, values = labels.astype(str), np.array([str(v) for v in values.tolist()])
    order = np.argsort(values, kind="stable")
    place = np.minimum(np.searchsorted(values[order], labels), max(0, len(values) - 1))
    found = order[place] if len(values) else np.zeros(len(labels), np.int64)
    wrong = values[found] != labels if len(values) else np.ones(len(labels), bool)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{raw.source}: label {labels[row].item()!r} of sample {raw.ids[row].item()!r} is out of range; "
            f"expected one of {_few(values)}"
        )
    return torch.tensor(found.astype(np.int64))


def strata(raw: Raw, task: Task) -> Array | None:
    """(n,) numbers that say which samples are alike for splitting; None when nothing does."""
    if task != "classification" or raw.labels is None:
        return None
    labels = raw.labels.argmax(1) if raw.labels.ndim == 2 else raw.labels
    return np.unique(labels, return_inverse=True)[1]


def _check_present(raw: Raw, labels: Array) -> None:
    if labels.dtype.kind == "U":
        absent = labels == ""
    elif labels.dtype.kind == "f":
        absent = ~np.isfinite(labels if labels.ndim == 1 else labels.sum(1))
    else:
        return
    if absent.any():
        row = int(np.flatnonzero(absent)[0])
        raise DataError(
            f"{raw.source}: the label of sample {raw.ids[row].item()!r} is missing or not finite "
            f"({int(absent.sum())} such samples); remove those rows or fill in the labels"
        )


def _natural(name: str) -> tuple[int, float, str]:
    number = name.removeprefix("-").replace(".", "", 1)
    return (0, float(name), name) if number.isascii() and number.isdigit() else (1, 0.0, name)


def _few(values: Any, most: int = 10) -> str:
    shown = ", ".join(repr(v) for v in values[:most].tolist())
    return shown + (f", ... ({len(values)} in all)" if len(values) > most else "")
