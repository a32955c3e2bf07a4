"""The mean over training runs and how sure it is."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from modicum.arrays import Array, NumPy, back

__all__ = ["mean_and_error", "mean_of_runs", "placed"]


def mean_and_error(values: Tensor) -> tuple[NumPy, NumPy | None]:
    """Mean (n,) over runs and its standard error (n,), which is None for a single run.

    Args:
        values: (runs, n).

    Example:
        >>> import torch
        >>> mean, error = mean_and_error(torch.tensor([[1.0], [3.0]]))
        >>> mean.tolist(), error.tolist()
        ([2.0], [1.0])
    """
    exact = values.double()
    error = exact.std(0) / math.sqrt(len(exact)) if len(exact) > 1 else None
    return exact.mean(0).numpy(), None if error is None else error.numpy()


def mean_of_runs(values: Tensor, like: Array) -> Array:
    """The mean (n,) of numbers (n,) or (runs, n), as the kind of array that they were made from."""
    return back((values.mean(0) if values.ndim == 2 else values).cpu().numpy(), like)


def placed(column: NumPy, order: Tensor) -> NumPy:
    """Numbers (n,) of samples in the order `modicum.reading.by_id`, put where those samples are in the data.

    Example:
        >>> import numpy as np, torch
        >>> placed(np.array([1.0, 2.0, 3.0]), torch.tensor([2, 0, 1])).tolist()
        [2.0, 3.0, 1.0]
    """
    there = np.empty_like(column)
    there[order.numpy()] = column
    return there
