"""The mean over training runs and how sure it is."""

from __future__ import annotations

import math

from torch import Tensor

from modicum.arrays import NumPy

__all__ = ["mean_and_error"]


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
