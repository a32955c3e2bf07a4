"""Herding: its mean nears the mean of the data like 1/k, where a random subset's does like 1/sqrt(k)."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from protocol import claim

import modicum
from modicum.evidence import Claim
from modicum.selection import herding

SIZES = np.array([5, 10, 20, 40, 80, 160])


def errors(features: np.ndarray[Any, Any], order: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Distance of the mean of the first k from the mean of all, for each size."""
    means = np.cumsum(features[order], 0)[SIZES - 1] / SIZES[:, None]
    return np.linalg.norm(means - features.mean(0), axis=1)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started, slopes, random_slopes, ratios = time.perf_counter(), [], [], []
    for seed in range(seeds):
        draw = np.random.default_rng(seed)
        gaussian = draw.normal(size=(2000, 10))
        chance = np.mean([errors(gaussian, draw.permutation(2000)) for _ in range(20)], 0)
        ours = errors(gaussian, herding(gaussian, int(SIZES[-1])))
        slopes.append(float(np.polyfit(np.log(SIZES), np.log(ours), 1)[0]))
        random_slopes.append(float(np.polyfit(np.log(SIZES), np.log(chance), 1)[0]))
        digits = modicum.load("digits", seed=seed).train
        pixels = digits.prepare(digits.inputs).flatten(1).double().numpy()
        pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
        chance = np.mean([errors(pixels, draw.permutation(len(pixels))) for _ in range(20)], 0)
        ratios.append(float((errors(pixels, herding(pixels, int(SIZES[-1]))) / chance).max()))
    seconds = time.perf_counter() - started
    return [
        claim(
            "on Gaussian features the error falls with a log-log slope below -0.8",
            slopes,
            statistics.mean(random_slopes),
            statistics.mean(slopes) < -0.8,
            "log-log slope",
            seconds,
        ),
        claim(
            "on digits the error is below that of random subsets at every size",
            ratios,
            1.0,
            max(ratios) < 1,
            "error relative to random, worst size",
            seconds,
        ),
    ]
