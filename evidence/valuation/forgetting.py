"""Wrong labels are forgotten more often, and many samples never are: a small perceptron on digits, a tenth flipped."""

from __future__ import annotations

import statistics
import time

from protocol import as_splits, auroc, claim, noisy_digits

from modicum.context import Context
from modicum.evidence import Claim
from modicum.measurement.traces import Traces
from modicum.training.recipe import Recipe
from modicum.valuation import Forgetting

RECIPE = Recipe(
    model="mlp(hidden=128, layers=1)", epochs=30, batch_size=32, lr=0.05, weight_decay=0, schedule="constant"
)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started, found, never = time.perf_counter(), [], []
    for seed in range(seeds):
        noisy = noisy_digits(seed, train=1000, share=0.1)
        data, ctx = as_splits(noisy), Context(seed=seed)
        scores = Forgetting(runs=2).score(data, ctx, Traces(2, 1.0).measure(data, RECIPE, ctx))
        found.append(auroc(scores.values, noisy.flipped))
        never.append(100 * float((scores.values[~noisy.flipped] == 0).mean()))
    seconds = time.perf_counter() - started
    return [
        claim(
            "flipped labels have more events than right ones with AUROC above 0.8",
            found,
            0.5,
            statistics.mean(found) > 0.8,
            "AUROC",
            seconds,
        ),
        claim(
            "most rightly labeled samples are never forgotten once learned",
            never,
            50.0,
            statistics.mean(never) > 50,
            "% of rightly labeled samples",
            seconds,
        ),
    ]
