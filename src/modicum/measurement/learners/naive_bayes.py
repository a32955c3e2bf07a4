"""Gaussian naive Bayes: sums, and sums of squares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from modicum.errors import DataError
from modicum.measurement.learners.problem import Outputs, Problem, counts_of, in_blocks

__all__ = ["NaiveBayes"]


@dataclass(frozen=True)
class NaiveBayes:
    """Every feature of a class is a Gaussian of its own; the shares of the classes are the priors.

    The logit of class k is `log(n_k / n) - sum_j (log(2 pi v_kj) + (x_j - mu_kj)^2 / v_kj) / 2`, with the variance
    `v_kj` over the samples of the class and the floor added. A set that grows by a sample costs O(d m), as one class changes;
    memory is O((d + m) c) for each set.

    Args:
        floor: > 0, what is added to every variance, as a share of the largest variance of a feature among all samples; a
            class of one sample has no other variance.

    Raises:
        DataError: The floor is not > 0.
    """

    floor: float = 0.1

    gives: ClassVar[Outputs] = "logits"
    reads: ClassVar[Literal["features", "inputs"]] = "features"
    costly: ClassVar[bool] = False
    any_subset: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.floor < float("inf"):
            raise DataError(f"floor={self.floor}; expected a number > 0, so that a class of one sample has a variance")

    def outputs(self, problem: Problem, masks: Tensor) -> Tensor:
        """Means and variances of many subsets at once."""
        _check(problem)
        return in_blocks(masks, self.room(problem), lambda part: self._trained(problem, part))

    def _trained(self, problem: Problem, masks: Tensor) -> Tensor:
        x, queries = problem.centered()
        counts = counts_of(problem, masks)
        member = torch.nn.functional.one_hot(problem.targets, problem.classes).double()
        both = torch.einsum("bn,nc,nd->bcd", masks.double(), member, torch.cat([x, x.square()], dim=1))
        both = both / counts.clamp_min(1)[:, :, None]
        found = _likelihood(both, _extra(problem, self.floor), _powers(queries))
        return (found + (counts / counts.sum(1, keepdim=True)).log()[:, :, None]).mT

    def start(self, problem: Problem, orders: Tensor) -> _Growing:
        """One class is made anew for each sample."""
        _check(problem)
        return _Growing(problem, orders, self.floor)

    def room(self, problem: Problem) -> int:
        """Of means, squares and answers."""
        return 6 * problem.features.shape[1] * problem.columns + 2 * len(problem.queries) * problem.columns

    def flops(self, problem: Problem, size: float) -> float:
        """Of the sums and the answers."""
        d = problem.features.shape[1]
        return 3 * size * d + 4 * len(problem.queries) * d * problem.columns


class _Growing:
    def __init__(self, problem: Problem, orders: Tensor, floor: float) -> None:
        self.orders, self.targets, self.j = orders, problem.targets, 0
        x, queries = problem.centered()
        self.both, self.powers, self.extra = torch.cat([x, x.square()], 1), _powers(queries), _extra(problem, floor)
        b, c, m = len(orders), problem.classes, len(queries)
        self.sums, self.counts = x.new_zeros(b, c, self.both.shape[1]), x.new_zeros(b, c)
        self.found, self.made = x.new_zeros(b, c, m), x.new_empty(b, c, m)
        self.flops = 4 * x.shape[1] * m + 2 * m * c

    def step(self) -> Tensor:
        at = self.orders[:, self.j]
        self.j += 1
        label, rows = self.targets[at], torch.arange(len(at), device=at.device)
        self.counts[rows, label] += 1
        sums = self.sums[rows, label] + self.both[at]
        self.sums[rows, label] = sums
        means = sums / self.counts[rows, label][:, None]
        self.found[rows, label] = _likelihood(means, self.extra, self.powers)
        torch.add(self.found, (self.counts / self.j).log()[:, :, None], out=self.made)
        return self.made.transpose(1, 2)

    def keep(self, which: Tensor) -> None:
        for name in ("orders", "sums", "counts", "found", "made"):
            setattr(self, name, getattr(self, name)[which])


def _likelihood(both: Tensor, extra: Tensor, powers: Tensor) -> Tensor:
    """(..., m) logarithms of densities, from means and mean squares (..., 2 d) and the queries' powers (2 d, m)."""
    mean, square = both.chunk(2, dim=-1)
    variance = (square - mean.square()).clamp_min(0) + extra
    weights = torch.cat([mean, torch.full_like(mean, -0.5)], dim=-1) / torch.cat([variance, variance], dim=-1)
    constant = ((2 * math.pi * variance).log() + mean.square() / variance).sum(-1, keepdim=True) / 2
    return weights @ powers - constant


def _powers(queries: Tensor) -> Tensor:
    return torch.cat([queries, queries.square()], dim=1).T.contiguous()


def _extra(problem: Problem, floor: float) -> Tensor:
    largest = problem.centered()[0].square().mean(0).amax()
    return floor * torch.where(largest > 0, largest, 1.0)


def _check(problem: Problem) -> None:
    if not problem.classes:
        raise DataError("the learner naive-bayes is for classes, but the targets are for regression; use ridge or knn")
