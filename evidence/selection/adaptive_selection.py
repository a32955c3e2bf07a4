"""Adaptive selection on digits: a perceptron, 60 epochs, of which most visit 30 % of the samples, chosen every five."""

from __future__ import annotations

import statistics
import time

from protocol import claim
from torch import Tensor

import modicum
from modicum.context import Context
from modicum.evidence import Claim
from modicum.ledger import Ledger
from modicum.selection import AdaptiveSelection
from modicum.selection.adaptive_selection import METHODS
from modicum.training.fit import fit
from modicum.training.order import Shuffle, permutation
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="mlp(hidden=128, layers=2)", epochs=60, batch_size=32, lr=0.05)
KEEP, EVERY = 0.3, 5


class Redrawn(Shuffle):
    """The same visits without a choice: full epochs, then as many samples at random, others every few epochs."""

    def __init__(self, n: int, k: int, full: int, every: int, seed: int) -> None:
        super().__init__(n, seed)
        self.k, self.full, self.every = k, full, every

    def order(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        """All positions, or a part of them."""
        if epoch < self.full:
            return permutation(self.n, self.seed, epoch), None
        some = permutation(self.n, self.seed + 1, (epoch - self.full) // self.every)[: self.k]
        return some[permutation(self.k, self.seed, epoch)], None


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started = time.perf_counter()
    right: dict[str, list[float]] = {"full": [], "random": []}
    passes: list[float] = []
    cost: dict[str, list[float]] = {}
    for seed in range(seeds):
        data = modicum.load("digits", seed=seed)
        plain = fit(data.train, RECIPE, Context(seed=seed))
        right["full"].append(100 * plain.evaluate(data.test).score)
        everything = plain.ledger.total("train").flops
        for method in METHODS:
            ctx = Context(seed=seed, ledger=Ledger())
            sampler = AdaptiveSelection(method, KEEP, EVERY).sampler(data, RECIPE, ctx)  # type: ignore[arg-type]
            done = fit(data.train, RECIPE, ctx, sampler=sampler)
            right.setdefault(method, []).append(100 * done.evaluate(data.test).score)
            cost.setdefault(method, []).append(100 * ctx.ledger.total().flops / everything)
            if method == "gradmatch":
                passes.append(100 * (1 - sum(done.history["samples"]) / sum(plain.history["samples"])))
                control = Redrawn(len(data.train), sampler.k, sampler.full, EVERY, seed)
                drawn = fit(data.train, RECIPE, Context(seed=seed), sampler=control)
                right["random"].append(100 * drawn.evaluate(data.test).score)
    seconds = time.perf_counter() - started
    means = {name: statistics.mean(values) for name, values in right.items()}
    return [
        claim("half of the passes are saved", passes, 0.0, statistics.mean(passes) >= 50, "% of passes", seconds),
        *(
            claim(
                f"by {method}: accuracy within half a point of full training",
                right[method],
                means["full"],
                means[method] >= means["full"] - 0.5,
                "% test accuracy",
                seconds,
            )
            for method in METHODS
        ),
        *(
            claim(
                f"by {method}: no worse than a random part, drawn anew as often",
                right[method],
                means["random"],
                means[method] >= means["random"],
                "% test accuracy",
                seconds,
            )
            for method in METHODS
        ),
        *(
            claim(
                f"by {method}: fewer operations than full training, choosing included",
                cost[method],
                100.0,
                statistics.mean(cost[method]) < 100,
                "% of the operations",
                seconds,
            )
            for method in METHODS
        ),
    ]
