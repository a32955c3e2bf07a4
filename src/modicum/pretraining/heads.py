"""Small networks on a representation: projectors and predictors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

__all__ = ["projector"]


def projector(
    sizes: Sequence[int], *, norm: bool = True, last_norm: bool = False, last_bias: bool = True
) -> nn.Sequential:
    """Linear layers with BatchNorm and ReLU between them.

    Args:
        sizes: Widths from input to output.
        norm: Whether hidden layers are batch-normalized.
        last_norm: Whether the output is batch-normalized, without scale and shift.
        last_bias: Whether the last layer has a bias.

    Example:
        >>> [type(layer).__name__ for layer in projector((8, 16, 4))]
        ['Linear', 'BatchNorm1d', 'ReLU', 'Linear']
    """
    layers: list[nn.Module] = []
    for i, (width, out) in enumerate(pairwise(sizes)):
        last = i == len(sizes) - 2
        layers.append(nn.Linear(width, out, bias=last_bias if last else not norm))
        if not last:
            layers += [*([nn.BatchNorm1d(out)] if norm else []), nn.ReLU()]
        elif last_norm:
            layers.append(nn.BatchNorm1d(out, affine=False))
    return nn.Sequential(*layers)
