"""kNN-Shapley finds wrong labels, and dropping what it values least makes a better model."""

from __future__ import annotations

import statistics
import time

import numpy as np
from protocol import accuracy_of, auroc, claim, noisy_digits

from modicum.evidence import Claim
from modicum.valuation import knn_shapley


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started, found, full, dropped, random = time.perf_counter(), [], [], [], []
    for seed in range(seeds):
        data = noisy_digits(seed)
        values = knn_shapley(data.x, data.y, data.valid_x, data.valid_y, k=5)
        n, k = len(values), round(0.8 * len(values))
        found.append(auroc(-values, data.flipped))
        full.append(accuracy_of(data, np.arange(n)))
        dropped.append(accuracy_of(data, np.argsort(-values, kind="stable")[:k]))
        random.append(accuracy_of(data, np.random.default_rng(seed).permutation(n)[:k]))
    seconds = time.perf_counter() - started
    base = statistics.mean(random)
    return [
        claim(
            "finds a fifth of wrong labels with AUROC above 0.98",
            found,
            0.5,
            statistics.mean(found) > 0.98,
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
        claim(
            "dropping the lowest fifth beats training on everything by 5 points",
            dropped,
            statistics.mean(full),
            statistics.mean(dropped) >= statistics.mean(full) + 5,
            "% test accuracy",
            seconds,
        ),
    ]
