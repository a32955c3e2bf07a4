"""Whitened principal components of features: targets that a student can regress on."""

from __future__ import annotations

import torch
from torch import Tensor

from modicum.errors import DataError

__all__ = ["whitened_targets"]

NUMBERS = 1 << 24  # of a block in double precision
FLOOR = 1e-6  # of the largest standard deviation


def whitened_targets(features: Tensor, dim: int, batch_size: int = 50_000) -> Tensor:
    """The principal components of the features, each with mean 0 and variance 1.

    With the mean mu and the covariance C of the n rows Y, and U the eigenvectors of the `dim` largest eigenvalues of C,
    `T = (Y - mu) U / s`, where s is the standard deviation of each column of `(Y - mu) U`, no less than 1e-6 of the
    largest: `T' T / n = I`. Columns come in the order of ascending variance; the entry of largest size of each
    eigenvector is positive, so that the answer does not depend on the blocks. An orthogonal map of the features, or a
    shift, changes nothing but signs.

    Time is 2 n d (d + dim) and that of one symmetric eigendecomposition of size d; memory is that of the result, of
    d x d numbers and of a block of at most 2^24 numbers, all in double precision but the result.

    Args:
        features: (n, d) finite numbers.
        dim: Columns of the result, from 1 to the smaller of d and n - 1.
        batch_size: Most rows of a block.

    Returns:
        (n, dim) in the dtype of the features if that is float32 or float64, else float32, on their device.

    Raises:
        DataError: Another shape, not finite, all rows the same, or `dim` too large.

    Example:
        >>> y = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
        >>> t = whitened_targets(y @ torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])), 3)
        >>> bool(torch.allclose(t.T @ t / 100, torch.eye(3), atol=1e-4))
        True

    Reference:
        Shi et al., Efficiency for Free: Ideal Data Are Transportable Representations, 2024, arXiv 2405.14669.
    """
    _check(features, dim, batch_size)
    n, d = features.shape
    step = max(1, min(batch_size, NUMBERS // d))
    mean = torch.zeros(d, dtype=torch.float64, device=features.device)
    for block in torch.split(features, step):
        mean += block.double().sum(0)
    mean /= n
    covariance = torch.zeros(d, d, dtype=torch.float64, device=features.device)
    for block in torch.split(features, step):
        centered = block.double() - mean
        covariance.addmm_(centered.T, centered)
    directions = torch.linalg.eigh(covariance / (n - 1)).eigenvectors[:, -dim:]
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    directions = directions * largest.sign()
    dtype = features.dtype if features.dtype in (torch.float32, torch.float64) else torch.float32
    targets = torch.empty(n, dim, dtype=dtype, device=features.device)
    squares = torch.zeros(dim, dtype=torch.float64, device=features.device)
    for block, out in zip(torch.split(features, step), torch.split(targets, step)):
        moved = (block.double() - mean) @ directions
        squares += moved.square().sum(0)
        out.copy_(moved)
    deviation = (squares / n).sqrt()
    if not float(deviation.max()) > 0:
        raise DataError(f"features: all {n} rows are the same; expected rows that differ, use another prior")
    return targets.div_(deviation.clamp_min(FLOOR * float(deviation.max())).to(dtype))


def _check(features: Tensor, dim: int, batch_size: int) -> None:
    if features.ndim != 2 or not features.is_floating_point() or not features.numel():
        raise DataError(f"features are {features.dtype} of shape {tuple(features.shape)}; expected floating (n, d)")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise DataError(f"batch_size={batch_size!r}; expected an integer >= 1")
    for start, block in zip(range(0, len(features), batch_size), torch.split(features, batch_size)):
        if not bool(block.isfinite().all()):
            row = start + int((~block.isfinite()).any(1).nonzero()[0])
            raise DataError(f"features of row {row} are not finite; expected finite numbers from the prior")
    n, d = features.shape
    if isinstance(dim, bool) or not isinstance(dim, int) or not 1 <= dim <= min(d, n - 1):
        raise DataError(
            f"dim={dim!r}; expected an integer from 1 to {min(d, n - 1)}: {n} rows of {d} features have no more "
            "principal components"
        )
