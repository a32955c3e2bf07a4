"""Entropic optimal transport between two sets of samples, solved to the end: scaling of eps, then Newton's method."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Cost", "Transport", "annealed", "self_transport", "transport"]

BLOCK = 1 << 20  # entries of the cost at a time
KEPT = 1 << 22  # a cost with so many entries is kept (32 MB)
DENSE = 4096  # the Hessian of so many columns is formed (128 MB); of more, only its products with vectors
STEPS = 60  # of Newton's method for one eps
FAR = 20.0  # a potential moves by so many eps in a step at most
HALVING = 0.5  # eps of the next scale over that of this one
ROUGH = 1e-2  # marginal violation at which the next scale begins
QUARTERING = 0.25  # eps of the next scale over that of this one, where every scale gets one step


@dataclass(eq=False)
class Cost:
    """The ground cost `w ||x - x'||^2 + W[y, y']` of n rows and m columns, in blocks of rows.

    Args:
        rows: (n, d) float64 features.
        columns: (m, d).
        weight: w, of the squared distance.
        row_labels: (n,) indices into the first axis of `table`.
        column_labels: (m,) into its second.
        table: (c, c') W, or None for no labels.
        flops: Operations spent so far on blocks.
    """

    rows: Tensor
    columns: Tensor
    weight: float = 1.0
    row_labels: Tensor | None = None
    column_labels: Tensor | None = None
    table: Tensor | None = None
    flops: int = 0
    kept: Tensor | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """n, m."""
        return len(self.rows), len(self.columns)

    @property
    def swapped(self) -> Cost:
        """The cost with rows and columns exchanged."""
        table = None if self.table is None else self.table.T
        return Cost(self.columns, self.rows, self.weight, self.column_labels, self.row_labels, table)

    def blocks(self) -> list[slice]:
        """Consecutive rows."""
        n, m = self.shape
        size = max(1, BLOCK // m)
        return [slice(start, min(start + size, n)) for start in range(0, n, size)]

    def block(self, part: slice) -> Tensor:
        """(rows, m) costs; do not write to them."""
        n, m = self.shape
        if n * m > KEPT:
            return self._made(part)
        if self.kept is None:
            self.kept = torch.cat([self._made(rows) for rows in self.blocks()])
        return self.kept[part]

    def _made(self, part: slice) -> Tensor:
        x, y = self.rows[part], self.columns
        self.flops += 2 * len(x) * len(y) * (x.shape[1] + 2)
        norms = torch.linalg.vecdot(x, x)[:, None] + torch.linalg.vecdot(y, y)
        made = torch.addmm(norms, x, y.T, alpha=-2).clamp_(min=0)
        if self.weight != 1:
            made *= self.weight
        if self.table is not None and self.row_labels is not None and self.column_labels is not None:
            made += self.table[self.row_labels[part]][:, self.column_labels]
        return made


@dataclass(frozen=True, eq=False)
class Transport:
    """A solved problem.

    Args:
        rows: (n,) potential f of the rows, in units of the cost.
        columns: (m,) potential g of the columns.
        cost: `min_P <P, C> + eps KL(P | uniform x uniform)`.
        violation: The sum over the columns of |mass that arrives - 1 / m|; the mass that leaves a row is exact.
        passes: How often the cost was gone through.
        flops: What that took, in operations.
    """

    rows: Tensor
    columns: Tensor
    cost: float
    violation: float
    passes: int
    flops: int


def transport(cost: Cost, eps: float, tolerance: float = 1e-7) -> Transport:
    """Solve `min_P <P, C> + eps KL(P | a x b)` with P 1 = a, P^T 1 = b, both uniform.

    The dual in g alone is concave: `F(g) = <a, f(g)> + <b, g>` with
    `f_i(g) = -eps log sum_j b_j exp((g_j - C_ij) / eps)`, gradient `b - P^T 1` and Hessian
    `-(diag(P^T 1) - P^T diag(1/a) P) / eps`. Sinkhorn's iteration adds `eps (log b - log P^T 1)` to g and slows down
    without bound where eps is small beside the cost; so eps is halved from the mean cost down, three Sinkhorn steps are
    taken at each scale, and then steps of Newton's method with a line search. The potentials are those of the converged
    problem, where a Sinkhorn iteration that is stopped at a small violation may still be far from them.

    The larger side is the rows. Memory is a few blocks of 2^20 costs, the cost itself up to 2^22 entries, and the
    Hessian, min(n, m)^2 numbers up to 4096^2; beyond, conjugate gradients go through the cost instead.

    Args:
        cost: Of the pairs.
        eps: The entropic regularization, in units of the cost.
        tolerance: The violation to stop at; at least 1e-4 where conjugate gradients are used.
    """
    if cost.shape[0] < cost.shape[1]:
        found = transport(cost.swapped, eps, tolerance)
        return Transport(found.columns, found.rows, found.cost, found.violation, found.passes, found.flops)
    problem = _Dual(cost)
    if problem.m > DENSE:
        tolerance = max(tolerance, 1e-4)
    g = torch.zeros(cost.shape[1], dtype=torch.float64, device=cost.rows.device)
    scale = max(eps, problem.mean())
    while True:
        g = problem.solve(g, scale, tolerance if scale <= eps else ROUGH)
        if scale <= eps:
            break
        scale = max(eps, HALVING * scale)
    f, arrived, _ = problem.at(g, eps)
    value = float(f.mean() + g.mean())
    violation = float((arrived - problem.b).abs().sum())
    return Transport(f, g, value, violation, problem.passes, cost.flops + problem.flops)


def self_transport(cost: Cost, eps: float, tolerance: float = 1e-7, steps: int = 1000) -> Transport:
    """The same between a set and itself, where one potential serves both sides.

    The damped step `f <- (f + f(f)) / 2` converges fast, because most mass stays where it is.
    """
    problem = _Dual(cost)
    f = torch.zeros(len(cost.rows), dtype=torch.float64, device=cost.rows.device)
    scale, violation = max(eps, problem.mean()), math.inf
    while True:
        final = scale <= eps
        for _ in range(steps):
            other = problem.at(f, scale)[0]
            # rows are exact for (other, f); with f on both sides a row has exp((f - other) / eps) of its mass
            violation = float(torch.expm1((f - other).clamp(max=scale) / scale).abs().mean())
            f = (f + other) / 2
            if violation < (tolerance if final else ROUGH):
                break
        if final:
            break
        scale = max(eps, HALVING * scale)
    return Transport(f, f, 2 * float(f.mean()), violation, problem.passes, cost.flops + problem.flops)


def annealed(cost: Cost, eps: float, itself: bool = False) -> Transport:
    """One damped Sinkhorn step at each scale, eps falling by a factor of four from the largest cost, and a last full step.

    This is what common software does by default, and it does not converge where eps is small beside the cost: a
    potential is then an average of the costs to its neighborhood over the scales, rather than a price in the
    optimum. Memory is that of `transport` without the Hessian.

    Args:
        cost: Of the pairs.
        eps: The last scale.
        itself: Whether rows and columns are the same samples, which then share one potential.
    """
    forth = _Dual(cost)
    other = cost if itself else cost.swapped
    back = forth if itself else _Dual(other)
    scale = max(eps, max(float(cost.block(part).max()) for part in cost.blocks()))
    f, g = torch.zeros_like(cost.rows[:, 0]), torch.zeros_like(cost.columns[:, 0])
    f, g = forth.at(g, scale)[0], back.at(f, scale)[0]
    while True:
        over, under = forth.at(g, scale)[0], back.at(f, scale)[0]
        f, g = (f + over) / 2, (g + under) / 2
        if scale <= eps:
            break
        scale = max(eps, QUARTERING * scale)
    f, g = forth.at(g, eps)[0], back.at(f, eps)[0]
    violation = float((forth.at(g, eps)[1] - forth.b).abs().sum())
    flops = cost.flops + forth.flops + (0 if itself else other.flops + back.flops)
    return Transport(f, g, float(f.mean() + g.mean()), violation, forth.passes + (0 if itself else back.passes), flops)


class _Dual:
    """The concave dual in the potential of the columns."""

    def __init__(self, cost: Cost) -> None:
        self.cost = cost
        self.n, self.m = cost.shape
        self.b = torch.full((self.m,), 1 / self.m, dtype=torch.float64, device=cost.rows.device)
        self.passes = self.flops = 0

    def mean(self) -> float:
        """Of the costs."""
        return math.fsum(float(self.cost.block(part).sum()) for part in self.cost.blocks()) / (self.n * self.m)

    def _plan(self, part: slice, g: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """The potential of some rows, and what each sends to the columns as shares of its mass."""
        shares = (g - self.cost.block(part)).div_(eps).sub_(math.log(self.m))
        top = shares.amax(1, keepdim=True)
        shares.sub_(top).exp_()
        sums = shares.sum(1, keepdim=True)
        shares /= sums
        self.flops += 8 * shares.numel()
        return -eps * (sums.log_() + top)[:, 0], shares

    def at(self, g: Tensor, eps: float, hessian: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
        """Potential of the rows, mass that arrives at the columns, and `P^T diag(1/a) P`."""
        self.passes += 1
        f = torch.empty(self.n, dtype=torch.float64, device=g.device)
        arrived = torch.zeros_like(self.b)
        product = torch.zeros(self.m, self.m, dtype=torch.float64, device=g.device) if hessian else None
        for part in self.cost.blocks():
            f[part], shares = self._plan(part, g, eps)
            arrived += shares.sum(0)
            if product is not None:
                product.addmm_(shares.T, shares)
                self.flops += 2 * shares.numel() * self.m
        return f, arrived / self.n, None if product is None else product / self.n

    def solve(self, g: Tensor, eps: float, tolerance: float) -> Tensor:
        """The potential at which the violation is below the tolerance, or where it comes no lower."""
        for step in range(STEPS):
            newton = step >= 3
            f, arrived, product = self.at(g, eps, newton and self.m <= DENSE)
            if float((arrived - self.b).abs().sum()) < tolerance:
                break
            sinkhorn = eps * (self.b.log() - arrived.clamp(min=1e-300).log())
            if not newton:
                g = g + sinkhorn
                continue
            move = self._newton(g, eps, arrived, product)
            move *= min(1.0, FAR * eps / float(move.abs().max().clamp(min=1e-300)))
            before, slope = float(f.mean() + g.mean()), float((self.b - arrived) @ move)
            for _ in range(12):
                value = float(self.at(g + move, eps)[0].mean() + (g + move).mean())
                if value >= before + 1e-4 * slope - 1e-14 * abs(before):
                    break
                move, slope = move / 2, slope / 2
            else:
                move = sinkhorn
            g = g + move
            g = g - g.mean()
        return g

    def _newton(self, g: Tensor, eps: float, arrived: Tensor, product: Tensor | None) -> Tensor:
        goal = eps * (self.b - arrived)
        small = 1e-12 / self.m
        if product is None:
            return self._conjugate(g, eps, arrived, goal)
        matrix = torch.diag(arrived + small) - product
        matrix += 1 / self.m**2  # a constant changes nothing: without this the matrix would be singular
        factor, failed = torch.linalg.cholesky_ex(matrix)
        self.flops += self.m**3 // 3
        if int(failed):
            matrix.diagonal().add_(1e-8 / self.m)
            factor, failed = torch.linalg.cholesky_ex(matrix)
            if int(failed):
                return goal / arrived.clamp(min=1e-300)
        return torch.cholesky_solve(goal[:, None], factor)[:, 0]

    def _conjugate(self, g: Tensor, eps: float, arrived: Tensor, goal: Tensor) -> Tensor:
        """Conjugate gradients for the Newton step, scaled by the mass that arrives."""
        scale = arrived.clamp(min=1e-3 / self.m)
        found, left = torch.zeros_like(goal), goal.clone()
        ahead = left / scale
        direction, size = ahead.clone(), float(left @ ahead)
        enough = 1e-4 * size
        for _ in range(100):
            product = arrived * direction
            self.passes += 1
            for part in self.cost.blocks():
                shares = self._plan(part, g, eps)[1]
                product -= shares.T @ (shares @ direction) / self.n
                self.flops += 4 * shares.numel()
            bend = float(direction @ product)
            if bend <= 0:
                break
            found += size / bend * direction
            left -= size / bend * product
            ahead = left / scale
            size, last = float(left @ ahead), size
            if size <= enough:
                break
            direction = ahead + size / last * direction
        return found if bool(found.any()) else goal / scale
