"""The gradient through the minimum of an inner problem, by the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from modicum.errors import ModicumError, TrainingError

__all__ = ["implicit_gradient", "inverse_product"]

Solver = Literal["cg", "gradient"]


def inverse_product(
    product: Callable[[Tensor], Tensor], v: Tensor, *, solver: Solver = "cg", steps: int = 20, damping: float = 0.0
) -> Tensor:
    """`u = (H + damping I)^-1 v` from products with H alone, by so many steps down `u^T H u / 2 - u^T v` from zero.

    A step of `gradient` goes to the lowest point along the gradient; `cg` makes the directions conjugate, and is exact
    after as many steps as H has different eigenvalues. Either takes one product a step. Few steps are a regularization:
    directions of small curvature stay near zero.

    Args:
        product: (p,) -> (p,), the product with the symmetric positive definite H.
        v: (p,).
        solver: `cg` or `gradient`.
        steps: At most so many; fewer when the residual is zero to machine precision.
        damping: Added to the eigenvalues.

    Returns:
        (p,) u.

    Raises:
        ModicumError: The solver is unknown, or steps are less than one.
        TrainingError: H is not positive definite.

    Example:
        >>> h = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
        >>> inverse_product(lambda u: h @ u, torch.tensor([2.0, 2.0]), steps=2)
        tensor([1.0000, 0.5000])
    """
    if solver not in ("cg", "gradient") or steps < 1 or damping < 0:
        raise ModicumError(
            f"solver={solver!r}, steps={steps!r}, damping={damping!r}; expected 'cg' or 'gradient', at least one step, "
            "and a damping >= 0"
        )
    u, residual = torch.zeros_like(v), v.clone()
    direction, size = residual, residual @ residual
    least = torch.finfo(v.dtype).eps ** 2 * size
    for _ in range(steps):
        if not bool(size > least):
            break
        moved = product(direction) + damping * direction
        curvature = direction @ moved
        if not bool(curvature > 0):
            raise TrainingError(
                f"the inner loss has curvature {float(curvature / (direction @ direction)):.3g} along a direction, but an "
                "implicit gradient needs a positive one: linearize the network, or use a larger l2 or damping"
            )
        length = size / curvature
        u, residual = u + length * direction, residual - length * moved
        before, size = size, residual @ residual
        direction = residual + size / before * direction if solver == "cg" else residual
    return u


def implicit_gradient(
    inner: Callable[..., Tensor],
    outer: Callable[..., Tensor],
    solution: Tensor,
    leaves: Sequence[Tensor],
    *,
    solver: Solver = "cg",
    steps: int = 20,
    damping: float = 0.0,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The gradient of an outer loss through the minimum of an inner one, without the path that led there.

    With `u*(s) = argmin_u l(u, s)`: `dL(u*, s)/ds = L_s - l_su H^-1 L_u`, where `H = l_uu` at the minimum. Memory is that
    of a double backward pass of the inner loss, however many steps led to the minimum.

    Args:
        inner: `l(u, *leaves)`, a scalar, strictly convex in u near the minimum.
        outer: `L(u, *leaves)`, a scalar.
        solution: (p,) the minimum u*.
        leaves: What is learned, s.
        solver: How `H^-1 L_u` is found, see `inverse_product`.
        steps: Of the solver.
        damping: Added to the eigenvalues of H.

    Returns:
        The outer loss, and its gradient with respect to each leaf.

    Raises:
        TrainingError: H is not positive definite.
        ModicumError: An option of the solver makes no sense.

    Example:
        >>> s = torch.tensor([3.0])  # u* = s / 2
        >>> inner, outer = lambda u, s: (u**2 - s * u).sum(), lambda u, s: (u**2).sum()
        >>> implicit_gradient(inner, outer, s / 2, [s])[1]
        (tensor([1.5000]),)

    Reference:
        Loo, Hasani, Lechner and Rus, Dataset Distillation with Convexified Implicit Gradients, 2023, arXiv 2302.06755.
    """
    u = solution.detach().requires_grad_()
    given = [leaf.detach().requires_grad_() for leaf in leaves]
    loss = outer(u, *given)
    v, *direct = torch.autograd.grad(loss, [u, *given], allow_unused=True)
    (slope,) = torch.autograd.grad(inner(u, *given), u, create_graph=True)

    def product(w: Tensor) -> Tensor:
        (moved,) = torch.autograd.grad(slope, u, w, retain_graph=True)
        return moved

    w = inverse_product(product, _or_zero(v, u), solver=solver, steps=steps, damping=damping)
    mixed = torch.autograd.grad(slope, given, w, allow_unused=True)
    found = (_or_zero(d, leaf) - _or_zero(m, leaf) for d, m, leaf in zip(direct, mixed, given, strict=True))
    return loss.detach(), tuple(found)


def _or_zero(slope: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if slope is None else slope
