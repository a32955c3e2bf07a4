"""Kernels by name: what the closed form of kernel ridge regression is solved with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from modicum.distillation.convolutional import conv_ntk
from modicum.distillation.ntk import check_pair, fc_ntk
from modicum.errors import ModicumError
from modicum.spec import parse_call

__all__ = ["Kernel", "kernel_of", "laplace", "rbf"]

Kernel = Callable[[Tensor, Tensor], Tensor]
"""Takes (m, *shape) and (k, *shape), gives (m, k)."""


def rbf(x1: Tensor, x2: Tensor, gamma: float | None = None) -> Tensor:
    """The Gaussian kernel `exp(-gamma |x - x'|^2)`.

    Args:
        x1: (m, *shape) inputs, flattened to d numbers.
        x2: (k, *shape).
        gamma: One over twice the squared width; 1 / d when None.

    Returns:
        (m, k) in (0, 1].

    Raises:
        ModicumError: gamma is not positive.
        DataError: Shapes do not fit.

    Example:
        >>> rbf(torch.tensor([[0.0]]), torch.tensor([[0.0], [1.0]]), gamma=1.0)
        tensor([[1.0000, 0.3679]])

    Reference:
        Nguyen, Chen and Lee, Dataset Meta-Learning from Kernel Ridge-Regression, 2021, arXiv 2011.00050.
    """
    return torch.exp(-_gamma(gamma, 1 / max(1, x1[:1].numel())) * _squares(x1, x2))


def laplace(x1: Tensor, x2: Tensor, gamma: float | None = None) -> Tensor:
    """The Laplace kernel `exp(-gamma |x - x'|)` of the Euclidean distance, much like that of a shallow wide network.

    Args:
        x1: (m, *shape) inputs, flattened to d numbers.
        x2: (k, *shape).
        gamma: One over the width; 1 / sqrt(d) when None.

    Returns:
        (m, k) in (0, 1]; where inputs are equal the gradient is taken as 0.

    Raises:
        ModicumError: gamma is not positive.
        DataError: Shapes do not fit.

    Example:
        >>> laplace(torch.tensor([[0.0]]), torch.tensor([[0.0], [2.0]]), gamma=0.5)
        tensor([[1.0000, 0.3679]])

    Reference:
        Geifman et al., On the Similarity between the Laplace and Neural Tangent Kernels, 2020, arXiv 2007.01580.
    """
    squares = _squares(x1, x2)
    apart = squares > 0
    distance = torch.where(apart, torch.where(apart, squares, 1).sqrt(), 0)
    return torch.exp(-_gamma(gamma, max(1, x1[:1].numel()) ** -0.5) * distance)


def _gamma(gamma: float | None, default: float) -> float:
    if gamma is not None and not 0 < gamma < float("inf"):
        raise ModicumError(f"gamma={gamma!r}; expected a number > 0, or None to choose by the size of an input")
    return default if gamma is None else gamma


def _squares(x1: Tensor, x2: Tensor) -> Tensor:
    check_pair(x1, x2)
    a, b = x1.flatten(1), x2.flatten(1)
    squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
    # equal inputs are at distance 0, not at that of their rounding
    noise = 8 * torch.finfo(a.dtype).eps * (a.square().sum(1)[:, None] + b.square().sum(1)).detach()
    return torch.where(squares > noise, squares, 0)


KERNELS: dict[str, Callable[..., Tensor]] = {"fc_ntk": fc_ntk, "conv_ntk": conv_ntk, "rbf": rbf, "laplace": laplace}


def kernel_of(text: str) -> Kernel:
    """A kernel from its name with options.

    Args:
        text: `fc_ntk`, `conv_ntk`, `rbf` or `laplace`, such as `fc_ntk(depth=3)`.

    Returns:
        The function of two sets of inputs.

    Raises:
        ModicumError: The name or an option is unknown.

    Example:
        >>> kernel_of("fc_ntk(depth=2)")(torch.ones(3, 4), torch.ones(2, 4)).shape
        torch.Size([3, 2])
    """
    name, options = parse_call(text)
    if name not in KERNELS:
        raise ModicumError(f"kernel {text!r} is unknown; expected one of {', '.join(KERNELS)}")
    known = list(inspect.signature(KERNELS[name]).parameters)[2:]
    wrong = [option for option in options if option not in known]
    if wrong:
        raise ModicumError(f"kernel {name!r} has no option {wrong[0]!r}; its options are {', '.join(known)}")
    return partial(KERNELS[name], **options)
