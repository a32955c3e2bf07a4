"""Random orders of the players, one by one joining: the sampler that Shapley, Beta-Shapley and their kin share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from modicum.errors import DataError
from modicum.valuation.game import Estimate, Players, one_thread
from modicum.valuation.semivalues import Kind, semivalue_weights

if TYPE_CHECKING:
    from modicum.store import Stateful

__all__ = ["RULES", "PermutationRun", "carry_out"]

BATCH = 32  # permutations that are walked through at once
OPERATIONS = 2e10  # that a batch takes at most, about: some seconds
WINDOW = 100  # permutations between the two estimates that the rule `change` compares
CHAINS = 10
RULES = {"change": 0.05, "error": 0.01, "gelman-rubin": 1.05, "stability": 0.95, "budget": 0.0}
"""Ways to stop sampling, and their thresholds (see `tmc_shapley`)."""


class PermutationRun:
    """Sampling of permutations that can stop and go on: running means, and the spread between independent units.

    A unit is a permutation, or a permutation and its reverse (antithetic: unbiased, and what a player adds early in one
    it adds late in the other, which balances much of the noise). Memory is O(n) for each kind, plus ten times that for
    the rule `gelman-rubin` and a hundred permutations' worth of estimates for `change`.

    Args:
        game: See `Players`.
        kinds: The semivalues to estimate from the same utilities (see `semivalue_weights`).
        generator: Of the permutations; its state is part of the run's.
        permutations: How many at most; made even when antithetic.
        tolerance: See `modicum.measurement.utilities.Utility.prefixes`.
        patience: See there.
        antithetic: Whether every permutation comes with its reverse.
        rule: When to stop, one of `RULES`.
        threshold: Of the rule; that of `RULES` when None.
        least: Permutations before the rule is looked at.

    Raises:
        DataError: Something is out of range.
    """

    def __init__(
        self,
        game: Players,
        kinds: Sequence[Kind],
        generator: torch.Generator,
        permutations: int,
        tolerance: float | None = None,
        patience: int = 5,
        antithetic: bool = True,
        rule: str = "budget",
        threshold: float | None = None,
        least: int = WINDOW,
    ) -> None:
        n = game.players
        if n < 1:
            raise DataError("the utility has 0 players; expected at least one")
        if permutations < 1:
            raise DataError(f"permutations={permutations}; expected at least 1")
        if patience < 0:
            raise DataError(f"patience={patience}; expected a number of times >= 0")
        if tolerance is not None and not tolerance >= 0:
            raise DataError(f"tolerance={tolerance}; expected a number >= 0")
        if rule not in RULES:
            raise DataError(f"stop={rule!r}; expected one of {', '.join(RULES)}")
        self.game, self.generator, self.tolerance, self.patience = game, generator, tolerance, patience
        self.size = 2 if antithetic else 1  # permutations of a unit
        self.units = math.ceil(permutations / self.size)
        self.batch = max(1, _together(game) // self.size)
        self.rule, self.threshold, self.least = rule, RULES[rule] if threshold is None else threshold, least
        self.kinds = list(kinds)
        self.weights = torch.tensor(np.stack([semivalue_weights(n, kind) for kind in kinds]))
        self.done = self.utilities = 0
        self.gain = 0.0  # mean of what all players together add, over the units
        self.mean = torch.zeros(len(kinds), n, dtype=torch.float64)
        self.squares = torch.zeros_like(self.mean)  # of the deviations from the mean, summed
        self.history: list[tuple[int, Tensor]] = []
        chains = CHAINS if rule == "gelman-rubin" else 0
        self.sums = torch.zeros(2, chains, len(kinds), n, dtype=torch.float64)

    @property
    def steps(self) -> int:
        """Batches of units in all."""
        return math.ceil(self.units / self.batch)

    @property
    def permutations(self) -> int:
        """Drawn so far."""
        return self.done * self.size

    def step(self) -> None:
        """Draw one batch and learn from it."""
        b, n = min(self.batch, self.units - self.done), self.game.players
        orders = torch.stack([torch.randperm(n, generator=self.generator) for _ in range(b)])
        if self.size == 2:
            orders = torch.stack([orders, orders.flip(1)], 1).reshape(-1, n)
        values, length = self.game.prefixes(orders, self.tolerance, self.patience)
        marginal = values.diff(dim=1)[:, None] * self.weights
        gained = torch.zeros_like(marginal).scatter_(2, orders[:, None].expand_as(marginal), marginal)
        units = gained.reshape(b, self.size, *self.mean.shape).mean(1)
        self.utilities += int(length.sum())
        total = self.done + b
        self.gain += (float((values[:, -1] - values[:, 0]).mean()) - self.gain) * b / total
        own = units.mean(0)
        apart = own - self.mean
        self.squares += (units - own).square().sum(0) + apart.square() * (self.done * b / total)
        self.mean += apart * (b / total)
        if self.sums.numel():
            chain = (self.done + torch.arange(b)) % CHAINS
            self.sums[0].index_add_(0, chain, units)
            self.sums[1].index_add_(0, chain, units.square())
        self.done = total
        if self.rule == "change":
            self.history.append((self.permutations, self.mean.clone()))
            while len(self.history) > 1 and self.history[1][0] <= self.permutations - WINDOW:
                del self.history[0]  # the first is the newest that is old enough to compare with

    def errors(self) -> Tensor:
        """(kinds, n) standard errors of the means so far."""
        if self.done < 2:
            return torch.full_like(self.mean, torch.inf)
        return (self.squares / (self.done - 1) / self.done).sqrt()

    def settled(self) -> bool:
        """Whether the rule says that there are enough."""
        if self.rule == "budget" or self.permutations < self.least or self.done < 2:
            return False
        if self.rule == "change":
            then, before = self.history[0]
            if then > self.permutations - WINDOW:
                return False
            change = (self.mean - before).abs() / (self.mean.abs() + 1e-12)
            return float(change.mean(1).max()) < self.threshold
        if self.rule == "error":
            return float(self.errors().max()) < self.threshold * abs(self.gain)
        if self.rule == "stability":
            spread = self.mean.var(1) if self.game.players > 1 else torch.zeros(len(self.kinds))
            noise = self.errors().square().mean(1)
            return bool((noise <= (1 - self.threshold) * spread).all())
        return self.done >= 2 * CHAINS and float(self.gelman_rubin().max()) < self.threshold

    def gelman_rubin(self) -> Tensor:
        """(kinds, n) how far ten chains of units are apart, for how far units are apart: 1 when there are enough.

        `sqrt((N-1)/N + B / W)`: N units in each chain, B the variance of the means of the chains and W the mean of their
        variances. Dividing the values by their inter-quartile range first, as is done elsewhere, cancels.
        """
        counts = torch.bincount(torch.arange(self.done) % CHAINS, minlength=CHAINS).double()[:, None, None]
        means = self.sums[0] / counts
        within = ((self.sums[1] / counts - means.square()) * counts / (counts - 1)).mean(0)
        between = means.var(0)
        length = float(counts.min())
        noise = 1e-24 + 1e-20 * means.square().mean(0)  # of rounding, where nothing varies
        ratio = torch.where(within > noise, between / within.clamp_min(1e-300), 0.0)
        return ((length - 1) / length + ratio).sqrt()

    def estimates(self, settled: bool = False) -> list[Estimate]:
        """What is known now, for each kind."""
        total = self.units * self.size
        if settled:
            told = f"settled ({self.rule}) after {self.permutations:,} permutations"
        elif self.done < self.units:
            told = f"stopped after {self.permutations:,} of {total:,} permutations"
        else:
            told = f"{total:,} permutations"
            told += "" if self.rule == "budget" else f", not settled by the rule {self.rule!r}"
        note = f"{told}; {self.utilities:,} utilities"
        errors = self.errors()
        return [
            Estimate(mean.clone().numpy(), error.numpy(), self.permutations, self.utilities, note)
            for mean, error in zip(self.mean, errors)
        ]

    def state_dict(self) -> dict[str, Any]:
        """All that steps change."""
        return {
            "done": self.done,
            "utilities": self.utilities,
            "gain": self.gain,
            "mean": self.mean,
            "squares": self.squares,
            "sums": self.sums,
            "history": [[t, mean] for t, mean in self.history],
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.done, self.utilities, self.gain = state["done"], state["utilities"], state["gain"]
        self.mean, self.squares, self.sums = (state[name].clone() for name in ("mean", "squares", "sums"))
        self.history = [(int(t), mean) for t, mean in state["history"]]
        self.generator.set_state(state["generator"])


def _together(game: Any) -> int:
    """How many permutations are walked through at once: few where they take long, so that an answer comes soon."""
    learner, problem = getattr(game, "learner", None), getattr(game, "problem", None)
    if learner is None or problem is None:
        return BATCH
    (n, d), m, c = problem.features.shape, len(problem.wanted), problem.columns
    operations = n * (3 * (d + 1) ** 2 + 2 * m * (d + c))  # of a learner that grows by rank-one updates
    return 2 if learner.costly else max(2, min(BATCH, int(OPERATIONS // operations)))


def carry_out(
    run: PermutationRun, loop: Callable[[int, list[Stateful]], Iterator[int]] | None = None
) -> list[Estimate]:
    """Draw until the rule is content, the permutations are used up, or the loop ends.

    Args:
        run: What to carry out.
        loop: Gives the steps that are still to do, and may load the state first; all of them when None.
    """
    settled = run.settled()
    with one_thread(run.game):
        for _ in range(run.steps) if loop is None else loop(run.steps, [run]):
            run.step()
            settled = run.settled()
            if settled:
                break
    return run.estimates(settled)
