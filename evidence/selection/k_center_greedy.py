"""k-center covers the data better than a random subset, and is misled by outliers."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch
from protocol import Noisy, accuracy_of, claim, noisy_digits

from modicum.evidence import Claim
from modicum.selection import k_center_greedy

SHARE, TRAIN = 0.05, 1000


def radius(x: np.ndarray[Any, Any], keep: np.ndarray[Any, Any]) -> float:
    """The largest distance of a sample to the nearest kept one."""
    return float(torch.cdist(torch.from_numpy(x), torch.from_numpy(x[keep])).min(1).values.max())


def with_outliers(data: Noisy, seed: int) -> Noisy:
    """The same samples with a twentieth of them turned into noise of three times their spread."""
    draw = np.random.default_rng(seed)
    x = data.x.copy()
    at = draw.permutation(len(x))[: round(SHARE * len(x))]
    x[at] = 3 * draw.normal(size=x[at].shape)
    return data._replace(x=x)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started, ratios, ours, chance = time.perf_counter(), [], [], []
    k = round(SHARE * TRAIN)
    for seed in range(seeds):
        data, draw = noisy_digits(seed, TRAIN, share=0.0), np.random.default_rng(seed)
        random = [draw.permutation(TRAIN)[:k] for _ in range(5)]
        ratios.append(
            radius(data.x, k_center_greedy(data.x, k)) / statistics.mean(radius(data.x, keep) for keep in random)
        )
        noisy = with_outliers(data, seed)
        ours.append(accuracy_of(noisy, k_center_greedy(noisy.x, k)))
        chance.append(statistics.mean(accuracy_of(noisy, keep) for keep in random))
    seconds = time.perf_counter() - started
    return [
        claim(
            "a twentieth of the digits covers the rest with a radius 20 % below that of a random one",
            ratios,
            1.0,
            statistics.mean(ratios) < 0.8,
            "radius relative to random",
            seconds,
        ),
        claim(
            "where a twentieth of the samples are far outliers it trains worse than a random subset",
            ours,
            statistics.mean(chance),
            statistics.mean(ours) < statistics.mean(chance),
            "% test accuracy",
            seconds,
        ),
    ]
