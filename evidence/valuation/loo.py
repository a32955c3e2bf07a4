"""Leave-one-out finds wrong labels, but not as well as Shapley values of the same learner."""

from __future__ import annotations

import statistics
import time

import numpy as np
from protocol import accuracy_of, auroc, claim, noisy_digits

from modicum.evidence import Claim
from modicum.valuation import knn_loo, knn_shapley, ridge_loo

L2 = 3.0  # the penalty of the protocol, 1e-2 on the mean loss of 300 samples, on their sum


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started, ridge, nearest, shapley, dropped, random = time.perf_counter(), [], [], [], [], []
    coded = np.eye(10)
    for seed in range(seeds):
        data = noisy_digits(seed)
        given = (data.x, data.y, data.valid_x, data.valid_y)
        values = ridge_loo(
            data.x.astype(np.float64),
            coded[data.y],
            L2,
            intercept=True,
            valid_features=data.valid_x,
            valid_targets=coded[data.valid_y],
        ).values
        n, k = len(values), round(0.8 * len(values))
        ridge.append(auroc(-values, data.flipped))
        nearest.append(auroc(-knn_loo(*given, k=5), data.flipped))
        shapley.append(auroc(-knn_shapley(*given, k=5), data.flipped))
        dropped.append(accuracy_of(data, np.argsort(-values, kind="stable")[:k]))
        random.append(accuracy_of(data, np.random.default_rng(seed).permutation(n)[:k]))
    seconds = time.perf_counter() - started
    base = statistics.mean(random)
    return [
        claim(
            "ridge: finds a fifth of wrong labels better than chance, AUROC above 0.6",
            ridge,
            0.5,
            statistics.mean(ridge) > 0.6,
            "AUROC",
            seconds,
        ),
        claim(
            "nearest neighbors: finds them less well than their Shapley values",
            nearest,
            statistics.mean(shapley),
            statistics.mean(nearest) < statistics.mean(shapley),
            "AUROC",
            seconds,
        ),
        claim(
            "ridge: dropping the lowest fifth beats dropping a random fifth by 3 points",
            dropped,
            base,
            statistics.mean(dropped) >= base + 3,
            "% test accuracy",
            seconds,
        ),
    ]
