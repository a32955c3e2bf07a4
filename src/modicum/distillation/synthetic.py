"""What every distiller gives back: counts per class, a set in the units of the data."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from modicum.dataset import Dataset
from modicum.errors import BudgetError

if TYPE_CHECKING:
    from modicum.scores import Budget

__all__ = ["spread", "synthetic_set"]


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
