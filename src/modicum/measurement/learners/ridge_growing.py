"""Ridge regression on sets that grow: what a sample adds to the answers is of rank one.

With the samples in the order in which they come, `(X X' + l2 I) = L L'`, the answers for the queries Q after j samples are
`sum_{i <= j} u_i z_i'` with the rows `u_i` of `L^-1 X Q'` and `z_i` of `L^-1 T`. These are made for several samples at once,
by products of matrices; then every sample costs one pass over the answers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modicum.measurement.learners.problem import Problem

__all__ = ["LOOKAHEAD", "FewSamples", "ManySamples"]

LOOKAHEAD = 16  # samples that are prepared at once


class _Growing:
    """The pass over the answers; subclasses prepare `gains` (b, s, m) and `rests` (b, s, c)."""

    flops: float

    def __init__(self, problem: Problem, orders: Tensor) -> None:
        self.orders = orders
        b, c, m = len(orders), problem.classes, len(problem.queries)
        encoded = problem.encoded()
        # a class that nobody has yet answers like the last column here, of targets that are always -1
        self.t = torch.cat([encoded, -torch.ones_like(encoded[:, :1])], dim=1) if c else encoded
        self.targets = problem.targets
        self.answers = encoded.new_zeros(b, self.t.shape[1], m)
        self.seen = torch.zeros(b, c, dtype=torch.bool, device=orders.device)
        self.there = torch.zeros(c, dtype=torch.bool, device=orders.device)
        if c:
            self.answers[:, :c] = -torch.inf
            self.there[problem.targets] = True
        self.classes, self.j, self.complete = c, 0, not c
        self.gains = self.rests = encoded.new_empty(b, 0, 0)
        self.i = 0

    def step(self) -> Tensor:
        if self.i == self.gains.shape[1]:
            self.gains, self.rests = self.prepare(self.orders[:, self.j : self.j + LOOKAHEAD])
            self.i = 0
        if not self.complete:
            self._arrive(self.orders[:, self.j])
        self.answers.addcmul_(self.gains[:, self.i, None], self.rests[:, self.i, :, None])
        self.i += 1
        self.j += 1
        return self.answers[:, : max(1, self.classes)].transpose(1, 2)

    def _arrive(self, at: Tensor) -> None:
        label, rows = self.targets[at], torch.arange(len(at), device=at.device)
        new = (~self.seen[rows, label]).nonzero()[:, 0]
        if len(new):
            self.answers[new, label[new]] = self.answers[new, -1]
            self.seen[new, label[new]] = True
            self.complete = bool((self.seen == self.there).all())

    def prepare(self, at: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def keep(self, which: Tensor) -> None:
        for name in ("orders", "answers", "seen", "gains", "rests"):
            setattr(self, name, getattr(self, name)[which])


class ManySamples(_Growing):
    """With the inverse of `X'X + l2 I` of each set."""

    def __init__(self, problem: Problem, orders: Tensor, l2: float, x: Tensor, queries: Tensor) -> None:
        super().__init__(problem, orders)
        self.x, self.queries = x, queries.T.contiguous()
        (d, m), c, b = self.queries.shape, self.t.shape[1], len(orders)
        self.inverse = (torch.eye(d, dtype=torch.float64, device=x.device) / l2).repeat(b, 1, 1)
        self.weights = x.new_zeros(b, d, c)
        self.flops = 4 * d**2 + 2 * d * m + 4 * d * c + 2 * m * c

    def prepare(self, at: Tensor) -> tuple[Tensor, Tensor]:
        x = self.x[at]
        gain = torch.bmm(x, self.inverse)
        square = torch.bmm(gain, x.mT)
        square.diagonal(dim1=1, dim2=2).add_(1)
        factor = torch.linalg.cholesky(square)
        gain = torch.linalg.solve_triangular(factor, gain, upper=False)
        rest = torch.linalg.solve_triangular(factor, self.t[at] - torch.bmm(x, self.weights), upper=False)
        self.inverse.baddbmm_(gain.mT, gain, alpha=-1)
        self.weights.baddbmm_(gain.mT, rest)
        return gain @ self.queries, rest

    def keep(self, which: Tensor) -> None:
        super().keep(which)
        self.inverse, self.weights = self.inverse[which], self.weights[which]


class FewSamples(_Growing):
    """With the rows of `L^-1 [X X', X Q', T]` of each set, where there are fewer samples than features."""

    def __init__(self, problem: Problem, orders: Tensor, l2: float, inner: Tensor, outer: Tensor) -> None:
        super().__init__(problem, orders)
        self.l2, self.table = l2, torch.cat([inner, outer, self.t], dim=1)
        n, width = self.table.shape
        self.rows = self.table.new_empty(len(orders), n, width)
        self.flops = n * width + 2 * outer.shape[1] * self.t.shape[1]

    def prepare(self, at: Tensor) -> tuple[Tensor, Tensor]:
        n, size, done = len(self.table), at.shape[1], self.rows[:, : self.j]
        factor = done.gather(2, at[:, None].expand(-1, self.j, -1)).mT
        rows = torch.baddbmm(self.table[at], factor, done, alpha=-1)
        square = rows.gather(2, at[:, None].expand(-1, size, -1))
        square.diagonal(dim1=1, dim2=2).add_(self.l2)
        rows = torch.linalg.solve_triangular(torch.linalg.cholesky(square), rows, upper=False)
        self.rows[:, self.j : self.j + size] = rows
        return rows[:, :, n : -self.t.shape[1]], rows[:, :, -self.t.shape[1] :]

    def keep(self, which: Tensor) -> None:
        super().keep(which)
        self.rows = self.rows[which]
