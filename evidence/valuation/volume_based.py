"""Volume: more of it makes a better regression, copies are worth nothing, and wrong labels it cannot see."""

from __future__ import annotations

import math
import statistics
import time

import numpy as np
from protocol import accuracy_of, as_splits, auroc, claim, noisy_digits

from modicum.context import Context
from modicum.evidence import Claim
from modicum.measurement import FeatureTable
from modicum.valuation import VolumeBased, robust_volume, volume

TRIALS, ROWS, COLUMNS = 40, 60, 5


def agreement(seed: int) -> float:
    """How the log volume of random sets ranks against the error of the coefficients that are fitted to them."""
    from scipy.stats import spearmanr

    draw = np.random.default_rng(seed)
    volumes, errors = [], []
    for _ in range(TRIALS):
        x = draw.normal(size=(ROWS, COLUMNS)) * draw.uniform(0.2, 2, size=COLUMNS)
        volumes.append(volume(x))
        errors.append(float(np.trace(np.linalg.inv(x.T @ x))))  # expected squared error at unit noise
    return float(-spearmanr(volumes, errors).statistic)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started, ranked, plain, robust, found, dropped, random = time.perf_counter(), [], [], [], [], [], []
    for seed in range(seeds):
        ranked.append(agreement(seed))
        x = np.random.default_rng(seed).normal(size=(ROWS, COLUMNS))
        copied = np.concatenate([x] * 10)
        alpha = 1 / (10 * 2 * ROWS)  # two providers with as many rows
        plain.append(math.exp(volume(copied) - volume(x)))
        robust.append(math.exp(robust_volume(copied, alpha=alpha) - robust_volume(x, alpha=alpha)))
        data = noisy_digits(seed)
        splits = as_splits(data)
        scores = VolumeBased().score(splits, Context(), FeatureTable(splits.train.inputs, splits.valid.inputs))
        n, k = len(data.y), round(0.8 * len(data.y))
        found.append(auroc(-scores.values, data.flipped))
        dropped.append(accuracy_of(data, scores.kept(0.8)))
        random.append(accuracy_of(data, np.random.default_rng(seed).permutation(n)[:k]))
    seconds = time.perf_counter() - started
    base = statistics.mean(random)
    return [
        claim(
            "sets of larger volume give smaller errors of a regression: rank correlation above 0.7",
            ranked,
            0.0,
            statistics.mean(ranked) > 0.7,
            "rank correlation",
            seconds,
        ),
        claim(
            "ten copies of all samples are worth at most e^0.11 times as much, where the plain volume grows without bound",
            robust,
            statistics.mean(plain),
            max(robust) <= math.exp(0.11),
            "times the volume",
            seconds,
        ),
        claim(
            "reads no labels, so wrong ones are not found: AUROC within 0.1 of chance",
            found,
            0.5,
            abs(statistics.mean(found) - 0.5) < 0.1,
            "AUROC",
            seconds,
        ),
        claim(
            "so dropping the fifth that spans least is no better than dropping a random fifth",
            dropped,
            base,
            statistics.mean(dropped) <= base + 1,
            "% test accuracy",
            seconds,
        ),
    ]
