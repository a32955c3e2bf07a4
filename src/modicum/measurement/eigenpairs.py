"""The eigenpairs of a symmetric matrix that is known only by its products with vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from modicum.errors import ModicumError

__all__ = ["Eigenpairs", "Product", "arnoldi", "largest_eigenvalue"]

Product: TypeAlias = Callable[[Tensor], Tensor]


def largest_eigenvalue(
    product: Product, like: Tensor, iterations: int = 20, draw: torch.Generator | None = None
) -> float:
    """The eigenvalue largest in absolute value, by power iteration: never above it.

    Args:
        product: `V -> H V` for (P, 1).
        like: (P,) gives size, dtype and device.
        iterations: Products.
        draw: Of the first vector; seed 0 when None.
    """
    v = _normal(like, draw)
    size = 0.0
    for _ in range(iterations):
        v = product(v[:, None])[:, 0] / v.norm()
        size = float(v.norm())
        if size == 0:
            return 0.0
    return size


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Some eigenpairs of a symmetric matrix; what is orthogonal to them is left out.

    Args:
        values: (q,) eigenvalues.
        vectors: (P, q) orthonormal.
    """

    values: Tensor
    vectors: Tensor

    def solve(self, b: Tensor, delta: float = 0.0) -> Tensor:
        """`U (Lambda + delta)^-1 U^T b` for (P,) or (P, k)."""
        columns = b.reshape(len(b), -1)
        return (self.vectors @ ((self.vectors.T @ columns) / (self.values + delta)[:, None])).reshape(b.shape)


def arnoldi(
    product: Product,
    like: Tensor,
    *,
    iterations: int = 200,
    rank: int = 50,
    floor: float = 0.0,
    keep_negative: bool = False,
    draw: torch.Generator | None = None,
) -> Eigenpairs:
    """The eigenpairs largest in absolute value, from a Krylov space with full orthogonalization.

    Args:
        product: `V -> H V` for (P, 1).
        like: (P,) gives size, dtype and device.
        iterations: Products, P if that is less.
        rank: Eigenpairs to keep.
        floor: Eigenvalues up to this are dropped.
        keep_negative: Keep negative eigenvalues of at least that size, as the paper does.
        draw: Of the first vector; seed 0 when None.

    Returns:
        At most `rank` pairs. Memory is that of the basis, P (iterations + 1) numbers.

    Raises:
        ModicumError: No eigenvalue is left.

    Example:
        >>> pairs = arnoldi(lambda v: torch.tensor([[2.0], [4.0]]) * v, torch.ones(2))
        >>> pairs.solve(torch.ones(2))
        tensor([0.5000, 0.2500])

    Reference:
        Schioppa et al., Scaling Up Influence Functions, 2022, arXiv 2112.03052.
    """
    k = min(iterations, len(like))
    basis = like.new_zeros(k + 1, len(like))
    upper = like.new_zeros(k + 1, k)
    start = _normal(like, draw)
    basis[0] = start / start.norm()
    for j in range(k):
        w = product(basis[j][:, None])[:, 0]
        for _ in range(2):  # once is not enough in finite precision
            along = basis[: j + 1] @ w
            w = w - along @ basis[: j + 1]
            upper[: j + 1, j] += along
        upper[j + 1, j] = w.norm()
        if float(upper[j + 1, j]) < 1e-6:
            k = j + 1
            break
        basis[j + 1] = w / upper[j + 1, j]
    square = upper[:k, :k]
    near = torch.ones_like(square).tril(1).triu(-1)  # a symmetric matrix gives a tridiagonal one, up to rounding
    values, turn = torch.linalg.eigh((square + square.T) / 2 * near)
    size = values.abs() if keep_negative else values
    chosen = size.argsort(descending=True)[:rank]
    chosen = chosen[size[chosen] > max(floor, torch.finfo(values.dtype).eps * float(values.abs().max()))]
    if not len(chosen):
        raise ModicumError(f"arnoldi: no eigenvalue is above floor={floor}, the largest is {float(values.max()):.3g}")
    return Eigenpairs(values[chosen], basis[:k].T @ turn[:, chosen])


def _normal(like: Tensor, draw: torch.Generator | None) -> Tensor:
    draw = draw or torch.Generator().manual_seed(0)
    return torch.randn(len(like), generator=draw, dtype=like.dtype).to(like.device)
