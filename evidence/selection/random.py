"""A random subset: what it costs in accuracy, trained for as many steps as all data."""

from __future__ import annotations

import statistics
import time

import numpy as np
from protocol import claim
from selection_of import accuracy

import modicum
from modicum.context import Context
from modicum.evidence import Claim
from modicum.scores import Budget
from modicum.selection import Random


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started = time.perf_counter()
    full, half, tenth = [], [], []
    for seed in range(seeds):
        data, ctx = modicum.load("digits", seed=seed), Context(seed=seed)
        full.append(accuracy(data, np.arange(len(data.train)), seed))
        half.append(accuracy(data, Random().select(data, Budget(keep=0.5), ctx).positions, seed))
        tenth.append(accuracy(data, Random().select(data, Budget(keep=0.1), ctx).positions, seed))
    seconds = time.perf_counter() - started
    means = [statistics.mean(values) for values in (full, half, tenth)]
    return [
        claim(
            "a random half trains within three points of all data, for as many steps",
            half,
            means[0],
            means[1] >= means[0] - 3,
            "% test accuracy",
            seconds,
        ),
        claim(
            "a random tenth loses more than a random half",
            tenth,
            means[1],
            means[2] < means[1],
            "% test accuracy",
            seconds,
        ),
    ]
