"""AUM finds wrong labels: a multilayer perceptron of 128 units, SGD at 0.1 with momentum 0.9, batches of 32, 15 epochs."""

from __future__ import annotations

import statistics
import time

import numpy as np
from protocol import accuracy_of, as_splits, auroc, claim, noisy_digits

from modicum.context import Context
from modicum.evidence import Claim
from modicum.measurement.traces import Traces
from modicum.training.recipe import Recipe
from modicum.valuation import Aum

RECIPE = Recipe(
    model="mlp(hidden=128, layers=1)",
    epochs=15,
    batch_size=32,
    lr=0.1,
    momentum=0.9,
    weight_decay=0,
    schedule="constant",
)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started, found, dropped, random = time.perf_counter(), [], [], []
    for seed in range(seeds):
        noisy = noisy_digits(seed)
        data, ctx = as_splits(noisy), Context(seed=seed)
        scores = Aum(until=1.0).score(data, ctx, Traces(1, 1.0).measure(data, RECIPE, ctx))
        found.append(auroc(-scores.values, noisy.flipped))
        dropped.append(accuracy_of(noisy, scores.kept(0.8)))
        random.append(accuracy_of(noisy, np.random.default_rng(seed).permutation(300)[:240]))
    seconds = time.perf_counter() - started
    base = statistics.mean(random)
    return [
        claim(
            "finds a fifth of wrong labels with AUROC above 0.92",
            found,
            0.5,
            statistics.mean(found) > 0.92,
            "AUROC",
            seconds,
        ),
        claim(
            "dropping the lowest fifth beats dropping a random fifth by 5 points",
            dropped,
            base,
            statistics.mean(dropped) >= base + 5,
            "% test accuracy",
            seconds,
        ),
    ]
