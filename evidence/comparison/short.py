"""Short: a shortened schedule on all data against a random subset, for as many steps."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

from protocol import claim

import modicum
from modicum.comparison import Short
from modicum.context import Context
from modicum.evidence import Claim
from modicum.scores import Budget
from modicum.selection import Random
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="mlp(hidden=128, layers=1)", epochs=20, batch_size=32, lr=0.05)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    claims = []
    for share in (0.1, 0.3):
        started, short, subset = time.perf_counter(), [], []
        for seed in range(seeds):
            data, ctx = modicum.load("digits", seed=seed), Context(seed=seed)
            recipe = replace(RECIPE, steps=round(share * RECIPE.steps_for(len(data.train))))
            kept = data.train[Random().select(data, Budget(keep=share), ctx).positions]
            short.append(
                100 * fit(data.train, recipe, ctx, sampler=Short().sampler(data, recipe, ctx)).evaluate(data.test).score
            )
            subset.append(100 * fit(kept, recipe, ctx).evaluate(data.test).score)
        baseline = statistics.mean(subset)
        claims.append(
            claim(
                f"all data for {share:.0%} of the steps train at least as well as a random {share:.0%} for as many",
                short,
                baseline,
                statistics.mean(short) >= baseline,
                "% test accuracy",
                time.perf_counter() - started,
            )
        )
    return claims


if __name__ == "__main__":
    for each in run():
        print(each)
