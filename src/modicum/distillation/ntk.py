"""The neural tangent kernel of infinitely wide ReLU networks with fully connected layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modicum.errors import DataError, ModicumError

__all__ = ["fc_ntk", "fc_ntk_diagonal"]

W_STD, B_STD = 2**0.5, 0.1


def fc_ntk(x1: Tensor, x2: Tensor, depth: int = 1, *, w_std: float = W_STD, b_std: float = B_STD) -> Tensor:
    """The neural tangent kernel of an infinitely wide ReLU network with so many hidden layers.

    With `s = w_std^2` and `b = b_std^2`, of inputs with d numbers: `S = s <x, x'> / d + b` and `K = S`; then for each
    hidden layer, with `c = S / sqrt(p q)` of the variances `p = S(x, x)` and `q = S(x', x')` and `t = arccos c`,

    `S <- s sqrt(p q) (sin t + (pi - t) c) / (2 pi) + b`, `K <- S + s (pi - t) / (2 pi) K`, `p <- s p / 2 + b`.

    This is the inner product of the gradients with respect to all parameters, biases and last layer included, of a
    network whose weights are drawn with variance 1 and multiplied by `w_std / sqrt(width below)`, its biases by `b_std`.

    Args:
        x1: (m, *shape) inputs, flattened; float64 is advised, because kernels are inverted.
        x2: (k, *shape).
        depth: Number of hidden layers.
        w_std: Scale of the weights.
        b_std: Scale of the biases.

    Returns:
        (m, k) kernel in the dtype of the inputs, differentiable twice; the gradient through a pair of equal inputs is
        that of the diagonal. Memory is about 6 m k numbers a layer while a gradient is wanted.

    Raises:
        ModicumError: An option makes no sense.
        DataError: Shapes do not fit.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
        >>> [round(v, 4) for v in fc_ntk(x, x, depth=1).diagonal().tolist()]
        [2.03, 8.03]

    Reference:
        Jacot, Gabriel and Hongler, Neural Tangent Kernel, 2018, arXiv 1806.07572.
    """
    check_kernel(x1, x2, depth, w_std, b_std)
    scale, shift = w_std**2, b_std**2
    a, b = x1.flatten(1), x2.flatten(1)
    size = a.shape[1]
    p, q = (scale / size * v.square().sum(1) + shift for v in (a, b))
    covariance = scale / size * (a @ b.T) + shift
    kernel = covariance
    for _ in range(depth):
        covariance, slope = relu_layer(covariance, p[:, None], q)
        covariance = scale * covariance + shift
        kernel = covariance + scale * slope * kernel
        p, q = scale / 2 * p + shift, scale / 2 * q + shift
    return kernel


def fc_ntk_diagonal(x: Tensor, depth: int = 1, *, w_std: float = W_STD, b_std: float = B_STD) -> Tensor:
    """The diagonal of `fc_ntk(x, x)` without the rest.

    `p = s |x|^2 / d + b` and `K = p`; for each hidden layer `p <- s p / 2 + b` and `K <- p + s K / 2`.

    Args:
        x: (m, *shape) inputs, flattened.
        depth: Number of hidden layers.
        w_std: Scale of the weights.
        b_std: Scale of the biases.

    Returns:
        (m,) the kernel of each input with itself.

    Raises:
        ModicumError: An option makes no sense.

    Example:
        >>> fc_ntk_diagonal(torch.tensor([[1.0, 0.0]]), w_std=1.0, b_std=0.0)
        tensor([0.5000])

    Reference:
        Jacot, Gabriel and Hongler, Neural Tangent Kernel, 2018, arXiv 1806.07572.
    """
    check_kernel(x, x, depth, w_std, b_std)
    scale, shift = w_std**2, b_std**2
    p = scale * x.flatten(1).square().mean(1) + shift
    kernel = p
    for _ in range(depth):
        p = scale / 2 * p + shift
        kernel = p + scale / 2 * kernel
    return kernel


def check_kernel(x1: Tensor, x2: Tensor, depth: int, w_std: float, b_std: float) -> None:
    """Refuse what has no kernel."""
    if not isinstance(depth, int) or isinstance(depth, bool) or depth < 1:
        raise ModicumError(f"depth={depth!r}; expected an integer >= 1, the number of hidden layers")
    if not 0 < w_std < float("inf") or not 0 <= b_std < float("inf"):
        raise ModicumError(f"w_std={w_std!r}, b_std={b_std!r}; expected w_std > 0 and b_std >= 0")
    check_pair(x1, x2)


def check_pair(x1: Tensor, x2: Tensor) -> None:
    """Refuse inputs of two kinds."""
    if x1.ndim < 2 or x1.shape[1:] != x2.shape[1:] or not x1[:1].numel() == x2[:1].numel() > 0:
        raise DataError(f"x1 is {tuple(x1.shape)} and x2 {tuple(x2.shape)}; expected (m, *shape) and (k, *shape)")
    if not x1.is_floating_point() or x1.dtype != x2.dtype:
        raise DataError(f"x1 is {x1.dtype} and x2 {x2.dtype}; expected one floating dtype, float64 is advised")


def relu_layer(covariance: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """The covariance of ReLU outputs and of their derivatives, of Gaussian inputs with this covariance.

    `E[relu(u) relu(v)] = sqrt(p q) (sin t + (pi - t) cos t) / (2 pi)` and `P[u > 0, v > 0] = (pi - t) / (2 pi)` with
    `cos t = covariance / sqrt(p q)`.

    Args:
        covariance: Of u and v, any shape.
        p: Variance of u, broadcast.
        q: Variance of v, broadcast.

    Returns:
        Both, in the shape of the covariance.
    """
    tiny = torch.finfo(covariance.dtype).tiny ** 0.5
    norm = p.clamp(min=tiny).sqrt() * q.clamp(min=tiny).sqrt()
    first, zeroth = _ArcCosine.apply(covariance / norm)  # type: ignore[no-untyped-call]
    return norm / 2 * first, zeroth / 2


class _ArcCosine(torch.autograd.Function):
    """`(sin t + (pi - t) cos t) / pi` and `(pi - t) / pi` of cos t, whose slopes are finite where inputs are equal.

    Cosines within rounding of 1 are 1: there the second one has an infinite slope, but the cosine has none.
    """

    @staticmethod
    def forward(ctx: Any, cosine: Tensor) -> tuple[Tensor, Tensor]:
        rounded, sine = _sine(cosine)
        zeroth = 1 - rounded.arccos() / torch.pi
        ctx.save_for_backward(cosine, zeroth)
        return sine / torch.pi + rounded * zeroth, zeroth

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        cosine, zeroth = ctx.saved_tensors
        _, sine = _sine(cosine)
        inside = sine > 0
        slope: Tensor = slopes[0] * zeroth + slopes[1] * inside / (torch.pi * torch.where(inside, sine, 1))
        return slope


def _sine(cosine: Tensor) -> tuple[Tensor, Tensor]:
    """The cosine, 1 or -1 where it is within rounding of it, and the sine, whose slope is 0 there."""
    near = 1 - 64 * torch.finfo(cosine.dtype).eps
    inside = cosine.abs() < near
    squares = 1 - torch.where(inside, cosine, 0).square()
    return torch.where(inside, cosine, cosine.detach().sign()), torch.where(inside, squares.sqrt(), 0)
