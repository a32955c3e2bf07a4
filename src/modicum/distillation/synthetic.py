"""What every distiller asks of the data and gives back: counts per class, a scale, a set in the units of the data."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from modicum.dataset import Dataset
from modicum.errors import BudgetError, DataError

if TYPE_CHECKING:
    from modicum.scores import Budget

__all__ = ["check_inputs", "spread", "synthetic_set"]


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


def spread(name: str, budget: Budget, real_counts: Tensor) -> Tensor:
    """Synthetic samples of each class: as even as the total allows, the larger classes first.

    Args:
        name: Of the method, for errors.
        budget: How many, of each class or in all.
        real_counts: (c,) real samples of each class.

    Returns:
        (c,) counts.

    Raises:
        BudgetError: Fewer than one a class.

    Example:
        >>> from modicum.scores import Budget
        >>> spread("dm", Budget(keep=5), torch.tensor([9, 12])).tolist()
        [2, 3]
    """
    classes = len(real_counts)
    if budget.per_class is not None:
        counts = torch.full((classes,), budget.per_class)
    else:
        total = budget.count(int(real_counts.sum()))
        if total < classes:
            raise BudgetError(
                f"{budget} makes {total} samples, but {name} needs one for each of the {classes} classes; use more"
            )
        counts = torch.full((classes,), total // classes)
        counts[real_counts.argsort(descending=True, stable=True)[: total % classes]] += 1
    short = (counts > real_counts).nonzero().flatten().tolist()
    if short:
        c = short[0]
        warnings.warn(
            f"{name} starts from real samples, but class {c} has {int(real_counts[c])} of the {int(counts[c])} asked for; "
            "it starts from copies",
            stacklevel=5,
        )
    return counts


def synthetic_set(name: str, train: Dataset, inputs: Tensor, counts: Tensor, targets: Tensor | None = None) -> Dataset:
    """Learned inputs as a data set that `prepare` standardizes back to what was learned.

    Args:
        name: Of the method; ids are `<name>-<class>-<k>`.
        train: What was distilled; gives the info.
        inputs: (k, *shape) standardized inputs, class after class.
        counts: (c,) how many of each class.
        targets: (k,) class indices or (k, c) soft labels; the class of each sample when None.

    Returns:
        Inputs in the units of the stored data, with targets.
    """
    stored, info = inputs.detach().cpu(), train.info
    if info.mean:
        shape = (1, -1) + (1,) * (stored.ndim - 2)
        mean, std = (torch.tensor(v, dtype=stored.dtype).reshape(shape) for v in (info.mean, info.std))
        stored = stored * std + mean
    ids = [f"{name}-{c}-{k}" for c, count in enumerate(counts.tolist()) for k in range(count)]
    own = torch.arange(len(counts)).repeat_interleave(counts)
    return Dataset(stored, own if targets is None else targets.detach().cpu(), np.array(ids), info=info)
