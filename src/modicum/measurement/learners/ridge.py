"""Ridge regression, on classes coded as 1 and -1: closed form, and one rank-one update a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from modicum.errors import DataError
from modicum.measurement.learners.problem import Outputs, Problem

__all__ = ["Ridge"]


@dataclass(frozen=True)
class Ridge:
    """Minimizes `sum_i ||t_i - W [x_i, 1]||^2 + l2 ||W||^2`, the bias included; the class of the largest output is the answer.

    The penalty does not grow with the subset. Growing sets by Sherman and Morrison costs O(d^2 + m (d + c)) a sample.

    Args:
        l2: Penalty > 0 on the squared weights.
    """

    l2: float = 1.0

    gives: ClassVar[Outputs] = "scores"
    costly: ClassVar[bool] = False
    any_subset: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.l2 > 0:
            raise DataError(f"l2={self.l2}; expected a number > 0, so that any subset has one solution")

    def outputs(self, problem: Problem, masks: Tensor) -> Tensor:
        """One solve a subset, in the smaller of its two forms."""
        x, t, queries = _with_bias(problem.features), problem.encoded(), _with_bias(problem.queries)
        made = []
        for mask in masks:
            rows, targets = x[mask], t[mask]
            if len(rows) < x.shape[1]:
                gram = rows @ rows.T
                gram.diagonal().add_(self.l2)
                weights = rows.T @ torch.linalg.solve(gram, targets)
            else:
                gram = rows.T @ rows
                gram.diagonal().add_(self.l2)
                weights = torch.linalg.solve(gram, rows.T @ targets)
            made.append(queries @ weights)
        return torch.stack(made) if made else queries.new_empty(0, len(queries), problem.columns)

    def start(self, problem: Problem, sets: int) -> _Growing:
        """Rank-one updates of the inverse and of the answers."""
        return _Growing(problem, sets, self.l2)

    def flops(self, problem: Problem) -> float:
        """Of the normal equations, their solution and the answers."""
        n, d = problem.features.shape
        c = problem.columns
        return (n / 2) * (d + 1) ** 2 + 2 * (d + 1) ** 3 / 3 + n * (d + 1) * c + 2 * len(problem.queries) * (d + 1) * c


class _Growing:
    def __init__(self, problem: Problem, sets: int, l2: float) -> None:
        self.x, self.t = _with_bias(problem.features), problem.encoded()
        queries = _with_bias(problem.queries)
        self.queries = queries.T.contiguous()
        d, m, c = len(self.queries), len(queries), problem.columns
        self.inverse = (torch.eye(d, dtype=torch.float64, device=queries.device) / l2).repeat(sets, 1, 1)
        self.weights = torch.zeros(sets, d, c, dtype=torch.float64, device=queries.device)
        self.answers = torch.zeros(sets, m, c, dtype=torch.float64, device=queries.device)

    def add(self, at: Tensor) -> Tensor:
        x = self.x[at]
        gain = torch.bmm(self.inverse, x[:, :, None])[:, :, 0]
        scale = 1 + (gain * x).sum(1, keepdim=True)
        rest = (self.t[at] - torch.bmm(x[:, None], self.weights)[:, 0]) / scale
        self.weights += gain[:, :, None] * rest[:, None]
        self.answers += (gain @ self.queries)[:, :, None] * rest[:, None]
        self.inverse.baddbmm_((gain / scale)[:, :, None], gain[:, None], alpha=-1)
        return self.answers

    def keep(self, which: Tensor) -> None:
        self.inverse, self.weights, self.answers = self.inverse[which], self.weights[which], self.answers[which]


def _with_bias(rows: Tensor) -> Tensor:
    return torch.cat([rows.double(), rows.new_ones(len(rows), 1, dtype=torch.float64)], dim=1)
