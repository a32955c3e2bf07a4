"""Threshold kNN-Shapley, with its radius taken from the data, finds wrong labels."""

from __future__ import annotations

import statistics
import time

import numpy as np
from protocol import accuracy_of, as_splits, auroc, claim, noisy_digits

from modicum.context import Context
from modicum.evidence import Claim
from modicum.measurement.features import Features
from modicum.training.recipe import Recipe
from modicum.valuation import ThresholdKnnShapley


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started, found, dropped, random = time.perf_counter(), [], [], []
    for seed in range(seeds):
        noisy = noisy_digits(seed)
        data, ctx = as_splits(noisy), Context(seed=seed)
        scores = ThresholdKnnShapley().score(data, ctx, Features().measure(data, Recipe(), ctx))
        found.append(auroc(-scores.values, noisy.flipped))
        dropped.append(accuracy_of(noisy, scores.kept(0.8)))
        random.append(accuracy_of(noisy, np.random.default_rng(seed).permutation(300)[:240]))
    seconds = time.perf_counter() - started
    base = statistics.mean(random)
    return [
        claim(
            "finds a fifth of wrong labels with AUROC above 0.97",
            found,
            0.5,
            statistics.mean(found) > 0.97,
            "AUROC",
            seconds,
        ),
        claim(
            "dropping the lowest fifth beats dropping a random fifth by 8 points",
            dropped,
            base,
            statistics.mean(dropped) >= base + 8,
            "% test accuracy",
            seconds,
        ),
    ]
