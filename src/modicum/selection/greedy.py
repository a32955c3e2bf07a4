"""Greedy choice of a set by gains: every gain, only those that can win, or those of a random part."""

from __future__ import annotations

import heapq
import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import NumPy
from modicum.errors import DataError, ModicumError

__all__ = ["OPTIMIZERS", "Gains", "by_gains", "by_vector", "check_optimizer", "sample_size"]

OPTIMIZERS = ("lazy", "exact", "stochastic", "approximate")
FIRST = 8  # gains that are computed together before more are


class Gains(Protocol):
    """A submodular function whose gains cost something.

    Attributes:
        together: Gains that are best computed in one call.
        tolerance: Gains that differ by less, relative to the greater, are a tie.
    """

    together: int
    tolerance: float

    def __len__(self) -> int: ...

    def first(self) -> list[float]:
        """n gains of the empty set."""
        ...

    def gains(self, at: list[int]) -> list[float]:
        """Gains of some samples now."""
        ...

    def take(self, at: int) -> Gains:
        """Put a sample into the set; what comes back is the function from here on."""
        ...


def check_optimizer(method: str, epsilon: float, beta: float, generator: torch.Generator | None) -> None:
    """Refuse what no optimizer knows.

    Raises:
        ModicumError: method, epsilon or beta is out of range, or a generator is missing.
    """
    if method not in OPTIMIZERS:
        raise ModicumError(f"method={method!r}; expected one of {OPTIMIZERS}")
    for name, value in (("epsilon", epsilon), ("beta", beta)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
            raise ModicumError(f"{name}={value!r}; expected a number in (0, 1)")
    if method == "stochastic" and generator is None:
        raise ModicumError("generator=None; expected a torch.Generator, as method='stochastic' draws candidates")


def sample_size(n: int, k: int, epsilon: float) -> int:
    """Candidates that are drawn for one pick: `ceil(n / k * ln(1 / epsilon))`.

    Example:
        >>> sample_size(10_000, 1000, 0.01)
        47
    """
    return min(n, math.ceil(n / k * math.log(1 / epsilon)))


def by_gains(
    objective: Gains, k: int, method: str, epsilon: float, beta: float, generator: torch.Generator | None
) -> tuple[NumPy, NumPy]:
    """Pick k samples, each the one of the greatest gain among those that the method looks at.

    `exact` computes the gains of all that are left. `lazy` keeps every gain it has computed as an upper bound and stops
    when no bound reaches the best fresh gain: the same picks. `approximate` stops when the best fresh gain reaches
    `beta` times the next bound: at least `1 - exp(-beta)` of the best value. `stochastic` looks at `sample_size` random
    ones: `1 - 1/e - epsilon` of it in expectation. Ties go to the lowest position.

    Returns:
        (k,) positions in the order picked, and (k,) their gains.
    """
    if method == "stochastic":
        assert generator is not None
        return _stochastic(objective, k, epsilon, generator)
    n, picks, won = len(objective), np.empty(k, dtype=np.int64), np.zeros(k)
    heap = [(-gain, j) for j, gain in enumerate(objective.first())]
    heapq.heapify(heap)
    known = [0] * n  # the pick for which a gain was computed
    alike = 1 - objective.tolerance
    for t in range(k):
        best, size = -math.inf, n if method == "exact" else min(FIRST, objective.together)
        fresh: list[tuple[float, int]] = []
        while heap and (
            size == n or not fresh or _open(-heap[0][0], best, alike, beta if method == "approximate" else 0)
        ):
            top = [heapq.heappop(heap) for _ in range(min(size, len(heap)))]
            stale = [j for _, j in top if known[j] < t]
            fresh.extend((-bound, j) for bound, j in top if known[j] == t)
            fresh.extend(zip(objective.gains(stale), stale) if stale else ())
            for j in stale:
                known[j] = t
            best = max(best, max(fresh[-len(top) :])[0])
            size = min(2 * size, objective.together) if size < n else n
        if best <= 0:  # nothing is left to gain: the first that are left
            left = np.ones(n, dtype=bool)
            left[picks[:t]] = False
            picks[t:] = np.flatnonzero(left)[: k - t]
            break
        won[t], picks[t] = min(((gain, j) for gain, j in fresh if gain >= best * alike), key=lambda entry: entry[1])
        pick = int(picks[t])
        if len(fresh) > len(heap) // 8:
            heap.extend((-gain, j) for gain, j in fresh if j != pick)
            heapq.heapify(heap)
        else:
            for gain, j in fresh:
                if j != pick:
                    heapq.heappush(heap, (-gain, j))
        if t + 1 < k:
            objective = objective.take(pick)
    return picks, won


def _open(bound: float, best: float, alike: float, beta: float) -> bool:
    """Whether a sample with this bound may still win."""
    return best < beta * bound if beta else bound >= best * alike


def _stochastic(objective: Gains, k: int, epsilon: float, generator: torch.Generator) -> tuple[NumPy, NumPy]:
    n, picks, won = len(objective), np.empty(k, dtype=np.int64), np.zeros(k)
    size, left = sample_size(n, k, epsilon), np.arange(n)
    for t in range(k):
        # drawn with replacement, as the proof has it
        places = np.unique(torch.randint(len(left), (size,), generator=generator).numpy())
        candidates = left[places]
        gains = np.array(objective.gains(candidates.tolist()))
        tied = np.flatnonzero(gains >= gains.max() - objective.tolerance * abs(gains.max()))
        at = tied[candidates[tied].argmin()]
        picks[t], won[t] = candidates[at], gains[at]
        left[places[at]], left = left[-1], left[:-1]
        if t + 1 < k:
            objective = objective.take(int(picks[t]))
    return picks, won


def by_vector(gains: Tensor, left: Tensor, size: int, tolerance: float, generator: torch.Generator | None) -> int:
    """The position of the greatest of gains (n,) that are all known, ties to the lowest.

    Args:
        gains: (n,) float64.
        left: (n,) whether a sample may be picked.
        size: Candidates that are drawn with replacement from those left, with a generator.
        tolerance: Gains that are less than this apart are a tie.
        generator: None looks at all.

    Raises:
        DataError: A gain is not a number.
    """
    if generator is not None:
        there = left.nonzero().flatten()
        drawn = there[torch.randint(len(there), (size,), generator=generator).to(there.device)]
        left = torch.zeros_like(left)
        left[drawn] = True
    masked = torch.where(left, gains, -torch.inf)
    best = masked.max()
    if bool(best.isnan()):
        raise DataError("a gain is not a number; the similarities are too large")
    return int((left & (masked >= best - tolerance)).to(torch.uint8).argmax())
