"""VICReg: views are near, dimensions spread and uncorrelated."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from modicum.errors import TrainingError
from modicum.losses.check import check_views
from modicum.losses.decorrelation import off_diagonal_squares
from modicum.losses.precision import full_precision

__all__ = ["VICReg"]

EPS = 1e-4  # added to variances, as published


class VICReg(nn.Module):
    """Invariance, variance and covariance of two views.

    L = i inv + v var + c cov, where inv is the mean of (a - b)^2 over all b d entries; var the mean over the dimensions
    and both views of max(0, 1 - sqrt(Var + 1e-4)); cov the sum over both views of sum_{i != j} Cov_ij^2 / d; Var and Cov
    are unbiased. The paper's text has the squared distance of images instead of the mean over entries, a factor d more;
    this is the authors' code.

    Nothing of size d x d is made when the batch is smaller than d, see `off_diagonal_squares`.

    Args:
        invariance: i >= 0.
        variance: v >= 0.
        covariance: c >= 0.

    Raises:
        TrainingError: A coefficient is negative; views differ in shape, or hold fewer than 2 images.

    Example:
        >>> import torch
        >>> same = torch.ones(6, 4)
        >>> [round(float(part), 6) for part in VICReg().parts(same, same)]  # collapsed
        [0.0, 0.99, 0.0]

    Reference:
        Bardes, Ponce and LeCun, VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning,
        2022, arXiv 2105.04906.
    """

    def __init__(self, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0) -> None:
        super().__init__()
        for name, value in (("invariance", invariance), ("variance", variance), ("covariance", covariance)):
            if not 0 <= value < math.inf:
                raise TrainingError(f"{name}={value!r}; expected a number >= 0")
        self.invariance, self.variance, self.covariance = invariance, variance, covariance

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The loss of embeddings a and b, each (b, d) and not normalized, of two views of the same images."""
        near, spread, apart = self.parts(a, b)
        return self.invariance * near + self.variance * spread + self.covariance * apart

    def parts(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Invariance, variance and covariance, each a scalar without its coefficient."""
        check_views(a, b)
        with full_precision(a, b) as (x, y):
            (below, apart), (other_below, other_apart) = _spread(x), _spread(y)
            return F.mse_loss(x, y), (below + other_below) / 2, apart + other_apart


def _spread(x: Tensor) -> tuple[Tensor, Tensor]:
    """How far standard deviations are below 1, and the squares of covariances for each dimension."""
    n, d = x.shape
    centered = x - x.mean(0)
    below = F.relu(1 - (centered.square().sum(0) / (n - 1) + EPS).sqrt()).mean()
    return below, off_diagonal_squares(centered, centered) / ((n - 1) ** 2 * d)
