"""Nonnegative least squares that grows by one sample at a time: what orthogonal matching pursuit refits by."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import NumPy
from modicum.selection.gradient_rows import GradientRows

__all__ = ["Support"]


DEPENDENT = 1e-12  # share of a squared norm that must lie outside the span of the others


class Support:
    """Samples with weights `w >= 0` that minimize `||sum_j w_j g_j - g||^2 + l2 ||w||^2` over the samples in it.

    The inverse of the normal matrix `A = G G^T + l2 I` is kept and changed by one row and column when a sample comes or
    goes, so that both cost O(m^2); every solution is refined once by `A` itself, and the inverse is made anew where that
    does not suffice. A sample whose weight would become negative leaves (Lawson and Hanson's active set, started where
    the last solution was).

    Memory: 16 capacity^2 bytes and the products of the samples in it with all, capacity x n numbers.

    Args:
        rows: The gradients (n, ...).
        goal: (n,) their products with the target g.
        capacity: Most samples in it.
        l2: Weight of `||w||^2`.
        signed: Whether weights may be negative: plain least squares, from which nothing leaves.
    """

    def __init__(self, rows: GradientRows, goal: Tensor, capacity: int, l2: float, signed: bool = False) -> None:
        self.rows, self.l2, self.signed, self.m = rows, l2, signed, 0
        self.goal = goal.double().cpu().numpy()
        self.squares = rows.squares().double().cpu().numpy()
        self.at = np.zeros(capacity + 1, dtype=np.int64)
        self.came = np.zeros(capacity + 1, dtype=np.int64)
        self.weights = np.zeros(capacity + 1)
        self._products = rows.left.new_empty(capacity + 1, len(rows))
        self._normal = np.zeros((capacity + 1, capacity + 1))
        self._inverse = np.zeros((capacity + 1, capacity + 1))
        self._arrivals = 0

    def products(self) -> Tensor:
        """(n,) `<g_i, sum_j w_j g_j>` for every sample."""
        return torch.from_numpy(self.weights[: self.m]).to(self._products) @ self._products[: self.m]

    def gain(self) -> float:
        """By how much the weights lower the error from that of no samples: `sum_j w_j <g_j, g>` at the optimum."""
        return float(self.weights[: self.m] @ self.goal[self.at[: self.m]])

    def in_order(self) -> tuple[NumPy, NumPy]:
        """(m,) positions in the sequence they came, and their weights."""
        order = np.argsort(self.came[: self.m])
        return self.at[order], self.weights[order]

    def add(self, j: int) -> list[int] | None:
        """Take a sample in and refit.

        Returns:
            The positions of those that left, or None where the sample could not come in as it adds nothing.
        """
        m = self.m
        self._products[m] = self.rows.column(j)
        column = self._products[m, torch.from_numpy(self.at[:m]).to(self._products.device)].double().cpu().numpy()
        own = self.squares[j] + self.l2
        part = self._inverse[:m, :m] @ column
        rest = own - float(column @ part)
        if rest <= DEPENDENT * own:
            return None
        self._normal[:m, m] = self._normal[m, :m] = column
        self._normal[m, m] = own
        self._inverse[:m, :m] += np.outer(part / rest, part)
        self._inverse[:m, m] = self._inverse[m, :m] = -part / rest
        self._inverse[m, m] = 1 / rest
        self.at[m], self.came[m], self.weights[m] = j, self._arrivals, 0.0
        self.m, self._arrivals = m + 1, self._arrivals + 1
        gone = self._refit()
        return None if j in gone else gone

    def _refit(self) -> list[int]:
        gone: list[int] = []
        while self.m:
            now, best = self.weights[: self.m], self._solve()
            if self.signed or best.min() > 0:
                now[:] = best
                break
            falling = best <= 0
            share = now[falling] / np.maximum(now[falling] - best[falling], 1e-300)
            now += share.min() * (best - now)
            out = np.flatnonzero(falling)[share <= share.min()]
            gone += self.at[out].tolist()
            for place in out[::-1]:
                self._remove(int(place))
        return gone

    def _solve(self) -> NumPy:
        m = self.m
        goal, normal, inverse = self.goal[self.at[:m]], self._normal[:m, :m], self._inverse[:m, :m]
        best: NumPy = inverse @ goal
        error = goal - normal @ best
        best += inverse @ error
        if np.abs(goal - normal @ best).max() > 1e-9 * np.abs(goal).max():
            inverse[:] = np.linalg.pinv(normal, hermitian=True)
            best = inverse @ goal
            best += inverse @ (goal - normal @ best)
        return best

    def _remove(self, place: int) -> None:
        """The last one takes the place of the one that leaves."""
        last = self.m - 1
        for column in (self.at, self.came, self.weights):
            column[place] = column[last]
        self._products[place] = self._products[last]
        for matrix in (self._normal, self._inverse):
            matrix[[place, last]] = matrix[[last, place]]
            matrix[:, [place, last]] = matrix[:, [last, place]]
        corner = self._inverse[:last, last].copy()
        self._inverse[:last, :last] -= np.outer(corner / self._inverse[last, last], corner)
        self.m = last
