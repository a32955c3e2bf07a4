"""Linear discriminant analysis: one covariance for all classes, and one rank-one update a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from modicum.errors import DataError
from modicum.measurement.learners.problem import Outputs, Problem, counts_of, in_blocks, products

__all__ = ["Lda"]


@dataclass(frozen=True)
class Lda:
    """Gaussian classes of one covariance `(S + ridge I) / n`, with S the scatter within the classes and the shares as priors.

    The logit of class k is `x' C^-1 mu_k - mu_k' C^-1 mu_k / 2 + log(n_k / n)`, C the covariance. The ridge is that of so
    many samples of spread one in every direction: it does not grow with the subset. A set that grows by a sample costs
    O(d^2 + m (d + c)); memory is O(d (d + c) + m c) for each set.

    Args:
        ridge: > 0, what is added to the diagonal of the scatter.

    Raises:
        DataError: The ridge is not > 0.
    """

    ridge: float = 10.0

    gives: ClassVar[Outputs] = "logits"
    reads: ClassVar[Literal["features", "inputs"]] = "features"
    costly: ClassVar[bool] = False
    any_subset: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.ridge < float("inf"):
            raise DataError(f"ridge={self.ridge}; expected a number > 0, so that any subset has a covariance")

    def outputs(self, problem: Problem, masks: Tensor) -> Tensor:
        """Means and scatters of many subsets at once."""
        _check(problem)
        return in_blocks(masks, self.room(problem), lambda part: self._trained(problem, part))

    def _trained(self, problem: Problem, masks: Tensor) -> Tensor:
        x, queries = problem.centered()
        member = torch.nn.functional.one_hot(problem.targets, problem.classes).double()
        counts = counts_of(problem, masks)
        sums = torch.einsum("bn,nc,nd->bcd", masks.double(), member, x)
        means = sums / counts.clamp_min(1)[:, :, None]
        scatter = products(x, masks) - sums.mT @ means
        scatter.diagonal(dim1=1, dim2=2).add_(self.ridge)
        weights = torch.cholesky_solve(means.mT, torch.linalg.cholesky(scatter))
        squares = (means.mT * weights).sum(1)
        size = counts.sum(1, keepdim=True)
        return size[:, :, None] * (queries @ weights) + _offsets(squares, counts, size)[:, None]

    def start(self, problem: Problem, orders: Tensor) -> _Growing:
        """Rank-one updates of the inverse and of the answers."""
        _check(problem)
        return _Growing(problem, orders, self.ridge)

    def room(self, problem: Problem) -> int:
        """Of the inverse, the means and the answers."""
        d, m, c = problem.features.shape[1], len(problem.queries), problem.columns
        return 3 * d * d + 3 * d * c + 2 * m * c

    def flops(self, problem: Problem, size: float) -> float:
        """Of the scatter, its factor and the answers."""
        d, m, c = problem.features.shape[1], len(problem.queries), problem.columns
        return size * d * (d + 1) + d**3 / 3 + 4 * d**2 * c + 2 * m * d * c


class _Growing:
    def __init__(self, problem: Problem, orders: Tensor, ridge: float) -> None:
        self.orders, self.targets, self.j = orders, problem.targets, 0
        self.x, queries = problem.centered()
        self.queries = queries.T.contiguous()
        (d, m), c, b = self.queries.shape, problem.classes, len(orders)
        self.inverse = (torch.eye(d, dtype=torch.float64, device=queries.device) / ridge).repeat(b, 1, 1)
        self.means = queries.new_zeros(b, c, d)
        self.counts, self.squares = queries.new_zeros(b, c), queries.new_zeros(b, c)
        self.answers, self.made = queries.new_zeros(b, c, m), queries.new_empty(b, c, m)
        self.flops = 4 * d**2 + 2 * d * (m + 2 * c) + 4 * m * c

    def step(self) -> Tensor:
        at = self.orders[:, self.j]
        self.j += 1
        label, rows = self.targets[at], torch.arange(len(at), device=at.device)
        before = self.counts[rows, label]
        # a new mean `mu + apart / (n + 1)` and a scatter that grows by `apart apart' n / (n + 1)`
        apart = self.x[at] - self.means[rows, label]
        gain = torch.bmm(self.inverse, apart[:, :, None])[:, :, 0]
        square = (gain * apart).sum(1)
        share = before / (before + 1)
        scale = share / (1 + share * square)
        along = torch.bmm(self.means, gain[:, :, None])[:, :, 0]
        rest, part = 1 - scale * square, 1 / (before + 1)
        self.inverse.baddbmm_((gain * scale[:, None])[:, :, None], gain[:, None], alpha=-1)
        change = -scale[:, None] * along
        self.squares += change * along
        self.squares[rows, label] += part * rest * (2 * along[rows, label] + part * square)
        change[rows, label] += part * rest
        self.answers.addcmul_((gain @ self.queries)[:, None], change[:, :, None])
        self.means[rows, label] += part[:, None] * apart
        self.counts[rows, label] += 1
        offsets = _offsets(self.squares, self.counts, self.j)
        torch.add(offsets[:, :, None], self.answers, alpha=self.j, out=self.made)
        return self.made.transpose(1, 2)

    def keep(self, which: Tensor) -> None:
        for name in ("orders", "inverse", "means", "counts", "squares", "answers", "made"):
            setattr(self, name, getattr(self, name)[which])


def _offsets(squares: Tensor, counts: Tensor, size: Tensor | int) -> Tensor:
    """(b, c) what of the logits does not depend on the query; -inf for classes that are not there."""
    return (counts / size).log() - squares * size / 2


def _check(problem: Problem) -> None:
    if not problem.classes:
        raise DataError("the learner lda is for classes, but the targets are for regression; use ridge or knn")
