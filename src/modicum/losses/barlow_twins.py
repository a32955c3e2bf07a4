"""Barlow Twins: the dimensions of two views are correlated one by one, and with no other."""

from __future__ import annotations

import math

from torch import Tensor, nn

from modicum.errors import TrainingError
from modicum.losses.check import check_views
from modicum.losses.decorrelation import off_diagonal_squares
from modicum.losses.precision import full_precision

__all__ = ["BarlowTwins"]

EPS = 1e-8  # added to variances: a constant dimension becomes 0, and rescaling another one changes nothing


class BarlowTwins(nn.Module):
    """The cross-correlation of two views against the identity.

    With every dimension of both views standardized over the batch (biased variance) and C = A^T B / b,
    L = sum_i (1 - C_ii)^2 + w sum_{i != j} C_ij^2.

    Nothing of size d x d is made when the batch is smaller than d, see `off_diagonal_squares`.

    Args:
        weight: w >= 0 of the entries off the diagonal.

    Raises:
        TrainingError: The weight is negative; views differ in shape, or hold fewer than 2 images.

    Example:
        >>> import torch
        >>> white = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
        >>> round(float(BarlowTwins()(white, white)), 6)
        0.0
        >>> float(BarlowTwins()(white, torch.ones(4, 2)))  # nothing is correlated with a constant
        2.0

    Reference:
        Zbontar, Jing, Misra, LeCun and Deny, Barlow Twins: Self-Supervised Learning via Redundancy Reduction, 2021,
        arXiv 2103.03230.
    """

    def __init__(self, weight: float = 0.0051) -> None:
        super().__init__()
        if not 0 <= weight < math.inf:
            raise TrainingError(f"weight={weight!r}; expected a number >= 0")
        self.weight = weight

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The loss of embeddings a and b, each (b, d), of two views of the same images in the same order."""
        check_views(a, b)
        with full_precision(a, b) as (x, y):
            x, y = _standardized(x), _standardized(y)
            on = (1 - (x * y).mean(0)).square().sum()
            return on + self.weight * off_diagonal_squares(x, y) / len(x) ** 2


def _standardized(x: Tensor) -> Tensor:
    return (x - x.mean(0)) * (x.var(0, correction=0) + EPS).rsqrt()
