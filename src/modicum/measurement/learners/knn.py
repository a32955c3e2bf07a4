"""Nearest neighbors: nothing is trained, and a set that grows changes few of its neighbors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from modicum.arrays import center_of, distinct
from modicum.errors import DataError
from modicum.measurement.learners.problem import BLOCK, Outputs, Problem

__all__ = ["Knn"]

KEPT = 1 << 28  # places in rankings that are kept for the next question


@dataclass(frozen=True)
class Knn:
    """The k nearest samples by Euclidean distance vote, equal distances by the order of the samples.

    The probability of a class is its votes over k, also where there are fewer than k samples: the mean probability of the
    right class is then the utility of kNN-Shapley. For regression the answer is the sum of the nearest targets over k: a
    missing neighbor counts as the mean target. Growing costs O(k) where a sample comes among the nearest, and one
    comparison a query elsewhere. Memory is 8 n m bytes while n m is at most 2^28, and that of a block above.

    Args:
        k: Neighbors that vote.

    Raises:
        DataError: k is not an integer >= 1.
    """

    k: int = 5

    gives: ClassVar[Outputs] = "probabilities"
    reads: ClassVar[Literal["features", "inputs"]] = "features"
    costly: ClassVar[bool] = False
    any_subset: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise DataError(f"k={self.k!r}; expected an integer >= 1")

    def outputs(self, problem: Problem, masks: Tensor) -> Tensor:
        """Votes of the first k members of each ranking."""
        made = problem.queries.new_zeros(len(masks), len(problem.queries), problem.columns)
        for at, order in _rankings(problem):
            made[:, at] = self._votes(problem, masks, order)
        return made

    def _votes(self, problem: Problem, masks: Tensor, order: Tensor) -> Tensor:
        values = torch.nn.functional.one_hot(problem.targets, problem.classes) if problem.classes else problem.targets
        values = values.double().reshape(len(problem.targets), -1)
        sizes = masks.sum(1)
        made = values.new_empty(len(masks), len(order), values.shape[1])
        todo = torch.argsort(sizes, descending=True)
        n, width = len(values), 0
        while len(todo):  # most sets find their k neighbors early in the ranking; the others look farther
            width = min(n, max(4 * width, 3 * self.k * n // max(1, int(sizes[todo[0]])) + 8))
            near, short = order[:, :width].long(), []
            given = values[near]
            for part in torch.split(todo, max(1, BLOCK // (len(order) * width * 2))):
                member = masks[part][:, near]
                place = member.cumsum(2, dtype=torch.int32)
                found = place[..., -1].amin(1) >= sizes[part].clamp_max(self.k)
                short.append(part[~found])
                votes = (member & (place <= self.k)).transpose(0, 1).double() @ given
                made[part] = votes.transpose(0, 1) / self.k
            todo = torch.cat(short)
        return made

    def start(self, problem: Problem, orders: Tensor) -> _Growing | None:
        """Sorted lists of the nearest; None where the rankings would not fit in memory."""
        if len(problem.features) * len(problem.queries) > KEPT:
            return None
        return _Growing(problem, orders, self.k)

    def room(self, problem: Problem) -> int:
        """Of the lists and the votes."""
        return len(problem.queries) * (self.k + 2 * problem.columns + 3)

    def flops(self, problem: Problem, size: float) -> float:
        """Of the distances to the samples, with their norms."""
        return (2 * problem.features.shape[1] + 3) * len(problem.queries) * size


class _Growing:
    def __init__(self, problem: Problem, orders: Tensor, k: int) -> None:
        self.orders, self.k, self.j = orders, k, 0
        n, m, c, b = len(problem.features), len(problem.queries), problem.columns, len(orders)
        device = problem.features.device
        self.ranks = problem.once("ranks", lambda: _ranks(problem))
        # a neighbor is its rank and its number in one integer; who is not there has number n and the last rank
        self.base = n + 1
        nobody = n * self.base + n
        self.nearest = torch.full((k, b * m), nobody, dtype=torch.int64, device=device)
        self.made = torch.zeros(b, c, m, dtype=torch.float64, device=device)
        self.classes, self.queries = problem.classes, m
        last = torch.full((1,), self.classes, dtype=problem.targets.dtype, device=device)
        self.targets = torch.cat([problem.targets, last])
        self.votes = torch.zeros(b, c + 1, m, dtype=torch.float64, device=device)  # those of nobody are the last
        self.flops = (2 * problem.features.shape[1] + 3) * m + m

    def step(self) -> Tensor:
        at = self.orders[:, self.j]
        self.j += 1
        new = (self.ranks[at].long() * self.base + at[:, None]).flatten()
        here = (new < self.nearest[-1]).nonzero()[:, 0]
        rising, lists = new[here], self.nearest.index_select(1, here)
        joined = at[here // self.queries]
        for place in range(self.k):
            lower = torch.minimum(lists[place], rising)
            rising = torch.maximum(lists[place], rising)
            lists[place] = lower
        self.nearest.index_copy_(1, here, lists)
        if self.classes:
            labels = self.targets[torch.cat([joined, rising % self.base])]
            row, query = here // self.queries, here % self.queries
            where = (row.repeat(2) * (self.classes + 1) + labels) * self.queries + query.repeat(2)
            change = torch.ones(len(where), dtype=torch.float64, device=where.device)
            change[len(here) :] = -1
            self.votes.view(-1).index_add_(0, where, change)
            torch.div(self.votes[:, :-1], self.k, out=self.made)
        else:
            self.made.view(-1)[here] = self.targets[lists % self.base].sum(0) / self.k
        return self.made.transpose(1, 2)

    def keep(self, which: Tensor) -> None:
        lists = self.nearest.reshape(self.k, len(which), -1)[:, which]
        self.nearest = lists.reshape(self.k, -1)
        self.orders, self.made, self.votes = self.orders[which], self.made[which], self.votes[which]


def _rankings(problem: Problem) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of queries with the (mb, n) samples from the nearest to the farthest of each."""
    n, m = len(problem.features), len(problem.queries)
    if n * m <= KEPT:
        yield slice(0, m), problem.once("rankings", lambda: torch.cat([order for _, order in _sorted(problem)]))
    else:
        yield from _sorted(problem)


def _sorted(problem: Problem) -> Iterator[tuple[slice, Tensor]]:
    x, queries = problem.features, problem.queries
    rows = x.cpu().numpy()
    center = torch.from_numpy(center_of(rows)).to(x.device)
    again, first = (torch.from_numpy(a).to(x.device) for a in distinct(rows))
    x, size = x - center, max(1, BLOCK // len(x))
    norms = x.square().sum(1)
    for start in range(0, len(queries), size):
        at = slice(start, min(start + size, len(queries)))
        distances = norms - 2 * (queries[at] - center) @ x.T
        distances[:, again] = distances[:, first]  # equal rows get equal distances
        yield at, distances.sort(dim=1, stable=True).indices.int()


def _ranks(problem: Problem) -> Tensor:
    """(n, m) place of each sample in the ranking of each query."""
    made = torch.empty(len(problem.features), len(problem.queries), dtype=torch.int32, device=problem.features.device)
    places = torch.arange(len(made), dtype=torch.int32, device=made.device)[:, None]
    for at, order in _rankings(problem):
        made[:, at] = torch.empty_like(made[:, at]).scatter_(0, order.T.long(), places.expand(-1, len(order)))
    return made
