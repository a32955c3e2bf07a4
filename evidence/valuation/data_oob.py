"""Data-OOB finds wrong labels without a validation set."""

from __future__ import annotations

import statistics
import time

import numpy as np
from protocol import accuracy_of, auroc, claim, noisy_digits

from modicum.evidence import Claim
from modicum.valuation import data_oob


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started, found, dropped, random, half = time.perf_counter(), [], [], [], []
    for seed in range(seeds):
        data = noisy_digits(seed)
        values, _ = data_oob(data.x, data.y, seed=seed)
        n, k = len(values), round(0.8 * len(values))
        found.append(auroc(-values, data.flipped))
        half.append(auroc(-data_oob(data.x, data.y, trees=50, seed=seed)[0], data.flipped))
        dropped.append(accuracy_of(data, np.argsort(-values, kind="stable")[:k]))
        random.append(accuracy_of(data, np.random.default_rng(seed).permutation(n)[:k]))
    seconds = time.perf_counter() - started
    base = statistics.mean(random)
    return [
        claim(
            "finds a fifth of wrong labels with AUROC above 0.95",
            found,
            0.5,
            statistics.mean(found) > 0.95,
            "AUROC",
            seconds,
        ),
        claim(
            "50 trees find them nearly as well as 800",
            half,
            statistics.mean(found),
            statistics.mean(half) > statistics.mean(found) - 0.03,
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
