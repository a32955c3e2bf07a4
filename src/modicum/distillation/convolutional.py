"""The neural tangent kernel of infinitely wide convolutional networks on small images, exact."""

from __future__ import annotations

from math import prod
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from modicum.distillation.ntk import B_STD, W_STD, check_kernel, relu_layer
from modicum.errors import DataError, ModicumError

__all__ = ["conv_ntk"]

BLOCK = 1 << 18  # numbers of one tensor of pairs of positions at a time, so that it stays in the cache


def conv_ntk(
    x1: Tensor,
    x2: Tensor,
    depth: int = 3,
    *,
    pool: bool = True,
    readout: Literal["flatten", "mean"] = "flatten",
    w_std: float = W_STD,
    b_std: float = B_STD,
) -> Tensor:
    """The neural tangent kernel of an infinitely wide convolutional network.

    Each of `depth` blocks is a 3 x 3 convolution with zero padding, ReLU and, where asked, the mean over windows of
    2 x 2; a linear layer reads all positions, or their mean. Covariances are kept for every pair of positions (i, i') of
    a pair of images: with `s = w_std^2`, `b = b_std^2` and `A` the mean over the nine offsets e of (i + e, i' + e),

    `S <- s A(S) + b`, `K <- S + s A(K)`; ReLU as in `fc_ntk`, `K <- P[both on] K`; means over windows of both positions.

    Args:
        x1: (m, channels, height, width) images; float64 is advised.
        x2: (k, channels, height, width).
        depth: Number of convolutions.
        pool: Whether windows of 2 x 2 are averaged after each ReLU, odd rows and columns at the end left out.
        readout: `flatten` has weights for each position; `mean` averages positions first.
        w_std: Scale of the weights.
        b_std: Scale of the biases.

    Returns:
        (m, k) kernel. A pair of images takes `(height width)^2` numbers, or `height width` with flatten and no pooling;
        pairs come in blocks, which are computed again for the gradient, so that memory is that of one block.

    Raises:
        ModicumError: An option makes no sense, or the images are too small for so many poolings.
        DataError: These are not images of one shape.

    Example:
        >>> x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> kernel = conv_ntk(x, x, depth=2)
        >>> bool((torch.linalg.eigvalsh(kernel) > 0).all())
        True

    Reference:
        Arora et al., On Exact Computation with an Infinitely Wide Neural Net, 2019, arXiv 1904.11955.
    """
    check_kernel(x1, x2, depth, w_std, b_std)
    if readout not in ("flatten", "mean"):
        raise ModicumError(f"readout={readout!r}; expected 'flatten' or 'mean'")
    if x1.ndim != 4:
        raise DataError(f"x1 is {tuple(x1.shape)}; expected images (m, channels, height, width), or use fc_ntk")
    if pool and min(x1.shape[2:]) >> depth < 1:
        raise ModicumError(f"depth={depth} halves {tuple(x1.shape[2:])} to nothing; use a smaller depth or pool=False")
    layers = _Layers(depth, pool, readout, w_std**2, b_std**2)
    p, q = layers.variances(x1), layers.variances(x2)
    positions = prod(x1.shape[2:]) ** (2 if layers.crossed else 1)
    size = max(1, BLOCK // (positions * len(x1)))
    if size >= len(x2):
        return layers.kernel(x1, x2, *p, *q)
    return torch.cat(
        [
            checkpoint(layers.kernel, x1, x2[part], *p, *(v[part] for v in q), use_reentrant=False)
            for part in (slice(start, start + size) for start in range(0, len(x2), size))
        ],
        1,
    )


class _Layers:
    """The recursion; tensors are (..., height, width) or, where positions are crossed, (..., height, width, height', width')."""

    def __init__(self, depth: int, pool: bool, readout: str, scale: float, shift: float) -> None:
        self.depth, self.pool, self.readout, self.scale, self.shift = depth, pool, readout, scale, shift
        self.crossed = pool or readout == "mean"

    def variances(self, x: Tensor) -> list[Tensor]:
        """(n, height, width) before each ReLU."""
        found = []
        formula = "nchw,ncij->nhwij" if self.pool else "nchw,nchw->nhw"
        covariance = torch.einsum(formula, x, x) / x.shape[1]
        for _ in range(self.depth):
            covariance = self.scale * _convolved(covariance, self.pool) + self.shift
            variance = _same_position(covariance) if self.pool else covariance
            found.append(variance)
            if self.pool:
                covariance = _pooled(relu_layer(covariance, variance[..., None, None], variance[:, None, None])[0])
            else:
                covariance = covariance / 2
        return found

    def kernel(self, x1: Tensor, x2: Tensor, *variances: Tensor) -> Tensor:
        """(m, k) of images whose variances are known."""
        crossed, scale, shift = self.crossed, self.scale, self.shift
        formula = "nchw,mcij->nmhwij" if crossed else "nchw,mchw->nmhw"
        covariance = torch.einsum(formula, x1, x2) / x1.shape[1]
        kernel = torch.zeros_like(covariance)
        for p, q in zip(variances[: self.depth], variances[self.depth :], strict=True):
            covariance = scale * _convolved(covariance, crossed) + shift
            kernel = covariance + scale * _convolved(kernel, crossed)
            p, q = (p[:, None, :, :, None, None], q[None, :, None, None]) if crossed else (p[:, None], q)
            covariance, slope = relu_layer(covariance, p, q)
            kernel = slope * kernel
            if self.pool:
                covariance, kernel = _pooled(covariance), _pooled(kernel)
        if crossed and self.readout == "flatten":
            covariance, kernel = _same_position(covariance), _same_position(kernel)
        return scale * (covariance + kernel).flatten(2).mean(2) + shift


def _convolved(values: Tensor, crossed: bool) -> Tensor:
    """The mean over nine offsets of both positions at once, zero beyond the border: rows, then columns."""
    for dims in ((-4, -2), (-3, -1)) if crossed else ((-2,), (-1,)):
        total = values.clone()
        size = values.shape[dims[0]]
        low, high = (_cut(total, dims, 0, size - 1), _cut(total, dims, 1, size))
        low += _cut(values, dims, 1, size)
        high += _cut(values, dims, 0, size - 1)
        values = total / 3
    return values


def _cut(values: Tensor, dims: tuple[int, ...], start: int, end: int) -> Tensor:
    for dim in dims:
        values = values.narrow(dim, start, end - start)
    return values


def _pooled(values: Tensor) -> Tensor:
    """Means over windows of 2 of each of the last four dimensions."""
    for dim in (-4, -3, -2, -1):
        half = values.shape[dim] // 2
        even, odd = (values.narrow(dim, k, 2 * half - k).unfold(dim, 1, 2).squeeze(-1) for k in (0, 1))
        values = (even + odd) / 2
    return values


def _same_position(values: Tensor) -> Tensor:
    """(..., height, width) of (..., height, width, height, width) with equal positions."""
    return values.diagonal(dim1=-4, dim2=-2).diagonal(dim1=-3, dim2=-2)
