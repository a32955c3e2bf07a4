"""Sums over a batch in full precision, whatever the network computes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["full_precision"]


@contextmanager
def full_precision(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of 32 bits at least, and no autocast inside.

    Squares of correlations and exponentials of similarities lose too much in 16 bits.

    Args:
        *tensors: Floating, all on one device.

    Example:
        >>> with full_precision(torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.float64)) as (a, b):
        ...     print(a.dtype, b.dtype)
        torch.float32 torch.float64
    """
    with torch.autocast(tensors[0].device.type, enabled=False):
        yield tuple(t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in tensors)
