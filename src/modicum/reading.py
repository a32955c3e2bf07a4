"""What methods ask of the data and of the measurements they read, with errors that name what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from modicum.dataset import Dataset
from modicum.errors import DataError

__all__ = ["by_id", "check_inputs", "labels_of", "recorded", "rows_of"]


def by_id(dataset: Dataset) -> Tensor:
    """(n,) positions of the samples in the order of their ids: a method that works in this order gives the same answer
    to the bit whatever the order of the data.

    Raises:
        DataError: There are no samples, or ids repeat.
    """
    if not len(dataset):
        raise DataError("train has 0 samples; expected at least one")
    order = np.argsort(dataset.ids, kind="stable")
    same = np.flatnonzero(dataset.ids[order][1:] == dataset.ids[order][:-1])
    if len(same):
        raise DataError(f"ids of train must be unique, but {dataset.ids[order][same[0]].item()!r} comes twice")
    return torch.from_numpy(order)


def check_inputs(name: str, train: Dataset) -> None:
    """Refuse data whose inputs cannot be learned.

    Args:
        name: Of the method, for errors.
        train: The data to be distilled.

    Raises:
        DataError: They are text, not finite, or images from 0 to 255 without a scale.
    """
    if train.info.modality == "text":
        raise DataError(
            f"{name} learns inputs by their gradient, but text is token numbers; use a selection method on text"
        )
    if train.info.modality == "image" and train.inputs.dtype == torch.uint8 and not train.info.mean:
        raise DataError(
            f"images are uint8 from 0 to 255, and info.mean and info.std are empty; set them, {name} needs a scale"
        )
    if not train.inputs.is_floating_point():
        return
    for part, inputs in train.batches(4096):
        bad = (~inputs.isfinite()).flatten(1).any(1).nonzero().flatten()
        if len(bad):
            raise DataError(
                f"inputs of sample {train.ids[part][int(bad[0])].item()!r} are not finite; remove or fill them"
            )


def labels_of(name: str, dataset: Dataset, classes: int = 1) -> Tensor:
    """(n,) class indices.

    Args:
        name: Of the data set, for errors.
        dataset: With class labels.
        classes: The least number of classes that must be there.

    Raises:
        DataError: No samples, no labels, or too few classes.
    """
    if not len(dataset):
        raise DataError(f"{name} has 0 samples; expected at least one")
    labels = dataset.labels
    if classes > 1 and bool((labels == labels[0]).all()):
        raise DataError(
            f"targets of {name}: all {len(labels)} samples are of class {int(labels[0])}; expected at least {classes} "
            "classes, as this method compares them"
        )
    return labels


def rows_of(name: str, rows: Any, dataset: Dataset) -> Tensor:
    """Measured features (n, d), one row for each sample.

    Raises:
        DataError: They are not for this data set.
    """
    if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != len(dataset) or not rows.numel():
        got = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
        raise DataError(f"{name} is {got}; expected a tensor of shape ({len(dataset)}, d), one row a sample")
    return rows


def recorded(name: str, values: Any, dataset: Dataset, *, epochs: bool) -> Tensor:
    """A measured quantity (runs, epochs, n), or (runs, n) of a snapshot, finite.

    Raises:
        DataError: It is not for this data set, or not finite.
    """
    n, shape = len(dataset), "(runs, epochs, n)" if epochs else "(runs, n)"
    if not isinstance(values, Tensor) or values.ndim != 2 + epochs or values.shape[-1] != n or not values.numel():
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise DataError(f"{name} is {got}; expected a tensor of shape {shape} with n = {n}, not empty")
    if values.is_floating_point() and not bool(values.isfinite().all()):
        where = (~values.isfinite()).nonzero()[0].tolist()
        raise DataError(
            f"{name}{where} is {float(values[tuple(where)])}, of sample {dataset.ids[where[-1]].item()!r}; "
            "expected finite numbers: the training run that was measured has diverged"
        )
    return values.detach().cpu()
