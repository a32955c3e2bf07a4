"""LAVA finds wrong labels without a learner; how well depends on the features, as in the paper, whose encoder was trained on
the validation samples."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from protocol import Noisy, accuracy_of, auroc, claim, logistic, noisy_digits

from modicum.evidence import Claim
from modicum.valuation import lava

Array = np.ndarray[Any, Any]


def encoded(data: Noisy) -> tuple[Array, Array]:
    """Class scores of a logistic regression trained on the validation samples."""
    encoder = logistic(data.valid_x, data.valid_y)
    return encoder.decision_function(data.x), encoder.decision_function(data.valid_x)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started = time.perf_counter()
    exact, plain, learned, dropped, random = [], [], [], [], []
    for seed in range(seeds):
        data = noisy_digits(seed)
        given = (data.x, data.y, data.valid_x, data.valid_y)
        exact.append(auroc(-lava(*given), data.flipped))
        plain.append(auroc(-lava(*given, solver="annealed"), data.flipped))
        near, query = encoded(data)
        values = lava(near, data.y, query, data.valid_y, solver="annealed")
        n, k = len(values), round(0.8 * len(values))
        learned.append(auroc(-values, data.flipped))
        dropped.append(accuracy_of(data, np.argsort(-values, kind="stable")[:k]))
        random.append(accuracy_of(data, np.random.default_rng(seed).permutation(n)[:k]))
    seconds = time.perf_counter() - started
    base = statistics.mean(random)
    return [
        claim(
            "converged, on standardized pixels it finds a fifth of wrong labels with AUROC above 0.8",
            exact,
            0.5,
            statistics.mean(exact) > 0.8,
            "AUROC",
            seconds,
        ),
        claim(
            "annealed as in common transport software, it finds them with AUROC above 0.8",
            plain,
            statistics.mean(exact),
            statistics.mean(plain) > 0.8,
            "AUROC",
            seconds,
        ),
        claim(
            "annealed, on an encoder trained on the validation samples, it finds them with AUROC above 0.95",
            learned,
            statistics.mean(plain),
            statistics.mean(learned) > 0.95,
            "AUROC",
            seconds,
        ),
        claim(
            "dropping the lowest fifth then beats dropping a random fifth by 8 points",
            dropped,
            base,
            statistics.mean(dropped) >= base + 8,
            "% test accuracy",
            seconds,
        ),
    ]
