"""Solving `(H + delta I) x = b` for a symmetric matrix that may be known only by its products with vectors."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from modicum.errors import ModicumError
from modicum.measurement.eigenpairs import Product, largest_eigenvalue

__all__ = ["LARGEST", "solve_cg", "solve_exact", "solve_lissa"]

LARGEST = 5000  # rows of a matrix that is factored


def solve_exact(matrix: Tensor, b: Tensor, delta: float = 0.0, limit: int = LARGEST) -> Tensor:
    """By Cholesky, or, where the matrix is only positive semi-definite, by its eigenvalues, those at zero left out.

    Args:
        matrix: (P, P) symmetric up to rounding.
        b: (P,) or (P, k).
        delta: Added to the diagonal.
        limit: Rows above which it is refused: time is P^3 / 3, memory P^2.

    Returns:
        The same shape as b.

    Raises:
        ModicumError: P exceeds the limit, or the matrix has a negative eigenvalue.

    Example:
        >>> solve_exact(torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.ones(2))
        tensor([0.5000, 0.2500])
    """
    if len(matrix) > limit:
        raise ModicumError(
            f"solver 'exact' would factor a matrix of {len(matrix):,} rows, more than the limit of {limit:,}; use "
            "'cg', 'lissa' or 'arnoldi', which need only products, or 'ek-fac'"
        )
    damped = (matrix + matrix.T) / 2
    damped.diagonal().add_(delta)
    factor, failed = torch.linalg.cholesky_ex(damped)
    columns = b.reshape(len(b), -1)
    if not bool(failed):
        solved: Tensor = torch.cholesky_solve(columns, factor)
        return solved.reshape(b.shape)
    values, vectors = torch.linalg.eigh(damped)
    floor = len(values) * torch.finfo(values.dtype).eps * float(values.abs().max())
    if float(values.min()) < -floor:
        raise _negative(float(values.min()), delta)
    inverse = torch.where(values > floor, 1 / values.clamp_min(floor), 0)
    solved = vectors @ (inverse[:, None] * (vectors.T @ columns))
    return solved.reshape(b.shape)


def solve_cg(
    product: Product,
    b: Tensor,
    delta: float = 0.0,
    *,
    rtol: float = 1e-4,
    max_iterations: int = 1000,
    half: Product | None = None,
) -> Tensor:
    """Block conjugate gradients: all right-hand sides share one Krylov space, so that many need fewer steps than one.

    The residuals are kept as an orthonormal block times a small matrix, so that equal right-hand sides do no harm.
    Memory is that of four blocks of P k numbers.

    Args:
        product: `V -> H V` for (P, k).
        b: (P,) or (P, k).
        delta: Added to the diagonal.
        rtol: Ends when `||b - (H + delta I) x|| <= rtol ||b||` for every column.
        max_iterations: At most so many products, or P if that is less; a warning says how far it came.
        half: A preconditioner M as `V -> M^{-1/2} V` (symmetric), for (P, k).

    Returns:
        The same shape as b.

    Raises:
        ModicumError: A direction of negative curvature was met.

    Example:
        >>> h = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
        >>> solve_cg(lambda v: h @ v, torch.ones(2))
        tensor([0.5000, 0.2500])

    Reference:
        Hestenes and Stiefel, Methods of Conjugate Gradients for Solving Linear Systems, 1952. Dubrulle, Retooling the
        Method of Block Conjugate Gradients, ETNA 12, 2001.
    """
    columns = b.reshape(len(b), -1)
    norms = columns.norm(dim=0)
    most = min(max_iterations, max(len(b), 2))
    turn = half or (lambda v: v)
    x, left, goal = torch.zeros_like(columns), most, rtol
    residual = columns.clone()
    # with a preconditioner the loop sees a residual in its norm; the true one is looked at afterwards
    while left > 0 and bool((residual.norm(dim=0) > rtol * norms).any()):
        step, used = _block_cg(product, turn, residual, delta, goal, norms, left)
        x += step
        left -= used
        residual = columns - product(x) - delta * x
        goal /= 10
    reached = float((residual.norm(dim=0) / norms.clamp_min(torch.finfo(b.dtype).tiny)).max())
    if reached > rtol:
        warnings.warn(
            f"conjugate gradients stopped after {most} products with a relative residual of {reached:.2g}, above "
            f"rtol={rtol}; raise delta or max_iterations, or use float64",
            stacklevel=2,
        )
    return x.reshape(b.shape)


def _block_cg(
    product: Product, turn: Product, b: Tensor, delta: float, goal: float, norms: Tensor, most: int
) -> tuple[Tensor, int]:
    """One run from zero; the change of x and how many products it took."""
    rows = turn(b)
    scale = rows.norm(dim=0) / b.norm(dim=0).clamp_min(torch.finfo(b.dtype).tiny)
    q, c = torch.linalg.qr(rows)
    p, x = q, torch.zeros_like(rows)
    used = 0
    while used < most:
        used += 1
        inner = turn(p)
        z = turn(product(inner) + delta * inner)
        values, vectors = torch.linalg.eigh((p.T @ z + z.T @ p) / 2)
        floor = len(values) * torch.finfo(b.dtype).eps * float(values.abs().max())
        if float(values.min()) < -floor or float(values.max()) <= 0:
            raise _negative(float(values.min()), delta)
        alpha = vectors @ (torch.where(values > floor, 1 / values.clamp_min(floor), 0)[:, None] * vectors.T)
        x += p @ (alpha @ c)
        q, s = torch.linalg.qr(q - z @ alpha)
        c = s @ c
        if bool((c.norm(dim=0) <= goal * norms * scale).all()):
            break
        p = q + p @ s.T
    return turn(x), used


def solve_lissa(
    product: Product,
    b: Tensor,
    delta: float = 0.0,
    *,
    sigma: float | None = None,
    depth: int = 10_000,
    repeats: int = 1,
    batch_product: Callable[[int, Tensor], Tensor] | None = None,
    rtol: float = 1e-8,
    draw: torch.Generator | None = None,
) -> Tensor:
    """The Neumann series, in which every term may use the Hessian of another batch of samples.

    `x_0 = b`, `x_{j+1} = b + x_j - (H_j + delta I) x_j / sigma`, result `x / sigma`, the mean over repeats. It converges
    if and only if the spectrum of `(H + delta I) / sigma` lies in (0, 2). `delta` is the damping of H itself: the
    original code damps after it has scaled, so that its damping is this delta divided by sigma.

    Args:
        product: `V -> H V` for (P, k) on all samples.
        b: (P,) or (P, k).
        delta: Added to the diagonal.
        sigma: At least the largest eigenvalue of `H + delta I`; 1.1 times the estimate of 20 power iterations when None.
        depth: Terms.
        repeats: Runs that are averaged, of use with batch_product only.
        batch_product: `(step, V) -> H_step V` of the batch of a step; `product` when None.
        rtol: Without batches it ends when the residual is below `rtol ||b||`.
        draw: Of the first vector of the power iteration.

    Returns:
        The same shape as b.

    Raises:
        ModicumError: It diverges: what it adds grew over 10 checks (the sum itself grows when it converges, too).

    Example:
        >>> h = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
        >>> solve_lissa(lambda v: h @ v, torch.ones(2))
        tensor([0.5000, 0.2500])

    Reference:
        Agarwal, Bullins and Hazan, Second-Order Stochastic Optimization in Linear Time, 2017, arXiv 1602.03943. Koh and
        Liang, Understanding Black-box Predictions via Influence Functions, 2017, arXiv 1703.04730.
    """
    columns = b.reshape(len(b), -1)
    if sigma is None:
        sigma = 1.1 * (largest_eigenvalue(product, columns[:, 0], draw=draw) + delta)
    if not sigma > 0:
        raise ModicumError(f"sigma={sigma}; expected a number > 0, at least the largest eigenvalue of H + delta I")
    every = max(1, depth // 200)
    total = torch.zeros_like(columns)
    goal = rtol * columns.norm(dim=0)
    for repeat in range(repeats):
        x, before, grown = columns.clone(), float("inf"), 0
        for step in range(depth):
            hx = batch_product(repeat * depth + step, x) if batch_product else product(x)
            change = columns - (hx + delta * x) / sigma
            x = x + change
            if step % every == 0:
                size = float(change.norm())
                grown = grown + 1 if size > before else 0
                if grown >= 10 or not size < float("inf"):
                    raise ModicumError(
                        f"lissa diverges after {step + 1} terms with sigma={sigma:.4g} and delta={delta:.4g}: the "
                        "spectrum of (H + delta I) / sigma is not within (0, 2); raise sigma, or delta if H has "
                        "negative eigenvalues"
                    )
                before = size
                if batch_product is None and bool((change.norm(dim=0) <= goal).all()):
                    break
        total += x
    return (total / (repeats * sigma)).reshape(b.shape)


def _negative(value: float, delta: float) -> ModicumError:
    return ModicumError(
        f"the matrix has negative curvature ({value:.3g}) with delta={delta:.4g}; expected a positive matrix: raise "
        "delta above its most negative eigenvalue, or use the Gauss-Newton matrix"
    )
