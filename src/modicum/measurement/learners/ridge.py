"""Ridge regression, on classes coded as 1 and -1: closed form, and one rank-one update a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from modicum.errors import DataError
from modicum.measurement.learners.problem import Outputs, Problem, counts_of, in_blocks, products
from modicum.measurement.learners.ridge_growing import LOOKAHEAD, FewSamples, ManySamples

__all__ = ["Ridge"]


@dataclass(frozen=True)
class Ridge:
    """Minimizes `sum_i ||t_i - W [x_i, 1]||^2 + l2 ||W||^2`, the bias included; the class of the largest output is the answer.

    The penalty does not grow with the subset. A set that grows by a sample costs O(d^2 + m (d + c)), or O(n (n + m)) where
    there are fewer samples than features. Memory is O(d^2 + m c) for each set that is trained or grows.

    Args:
        l2: Penalty > 0 on the squared weights.

    Raises:
        DataError: The penalty is not > 0.
    """

    l2: float = 1.0

    gives: ClassVar[Outputs] = "scores"
    reads: ClassVar[Literal["features", "inputs"]] = "features"
    costly: ClassVar[bool] = False
    any_subset: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.l2 < float("inf"):
            raise DataError(f"l2={self.l2}; expected a number > 0, so that any subset has one solution")

    def outputs(self, problem: Problem, masks: Tensor) -> Tensor:
        """Normal equations of many subsets at once, or the dual form where there are fewer samples than features."""
        answer = self._dual if _few(problem) else self._primal
        made = in_blocks(masks, self.room(problem), lambda part: answer(problem, part))
        if problem.classes:
            made.masked_fill_((counts_of(problem, masks) == 0)[:, None], -torch.inf)
        return made

    def _primal(self, problem: Problem, masks: Tensor) -> Tensor:
        x, queries = _with_bias(problem)
        t = problem.encoded()
        gram = products(x, masks)
        gram.diagonal(dim1=1, dim2=2).add_(self.l2)
        both = (x[:, :, None] * t[:, None]).flatten(1) if len(masks) >= 8 else None
        if both is not None:
            right = (masks.double() @ both).reshape(len(masks), x.shape[1], -1)
        else:
            right = x.T @ (masks.double()[:, :, None] * t)
        weights = torch.cholesky_solve(right, torch.linalg.cholesky(gram))
        return queries @ weights

    def _dual(self, problem: Problem, masks: Tensor) -> Tensor:
        inner, outer, t = _kernels(problem)
        made = outer.new_empty(len(masks), outer.shape[1], t.shape[1])
        for i, mask in enumerate(masks):
            at = mask.nonzero()[:, 0]
            gram = inner[at][:, at]
            gram.diagonal().add_(self.l2)
            made[i] = outer[at].T @ torch.cholesky_solve(t[at], torch.linalg.cholesky(gram))
        return made

    def start(self, problem: Problem, orders: Tensor) -> ManySamples | FewSamples:
        """Rank-one updates of the inverse and of the answers, prepared for several samples at once."""
        if _few(problem):
            return FewSamples(problem, orders, self.l2, *_kernels(problem)[:2])
        return ManySamples(problem, orders, self.l2, *_with_bias(problem))

    def room(self, problem: Problem) -> int:
        """Of the inverse, or of the dual form's factors, and of what is prepared."""
        n, d, m, c = *problem.features.shape, len(problem.queries), problem.columns + 1
        if _few(problem):
            return n * (n + m + c) + m * c
        return 2 * (d + 1) ** 2 + (d + 1) * c + LOOKAHEAD * (2 * d + m) + m * c

    def flops(self, problem: Problem, size: float) -> float:
        """Of the normal equations, their solution and the answers."""
        d, m, c = problem.features.shape[1] + 1, len(problem.queries), problem.columns
        if _few(problem):
            return size**3 / 3 + 2 * size**2 * c + 2 * m * size * c
        return size * d * (d + 2 * c) + d**3 / 3 + 2 * d**2 * c + 2 * m * d * c


def _few(problem: Problem) -> bool:
    return len(problem.features) < problem.features.shape[1]


def _with_bias(problem: Problem) -> tuple[Tensor, Tensor]:
    def widen(rows: Tensor) -> Tensor:
        return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)

    return (
        problem.once("ridge features", lambda: widen(problem.features)),
        problem.once("ridge queries", lambda: widen(problem.queries)),
    )


def _kernels(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """(n, n) products of the samples, (n, m) with the queries, and the targets; n is less than d here."""
    x = problem.features
    return (
        problem.once("ridge inner", lambda: x @ x.T + 1),
        problem.once("ridge outer", lambda: x @ problem.queries.T + 1),
        problem.encoded(),
    )
