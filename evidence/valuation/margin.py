"""Margin: the most undecided samples are the ones a young model gets wrong, and half of the data is enough."""

from __future__ import annotations

import statistics
import time

from protocol import claim
from selection_of import RECIPE, accuracy, random_of

import modicum
from modicum.context import Context
from modicum.evidence import Claim
from modicum.measurement.traces import Traces
from modicum.valuation import Margin

UNTIL = 0.2


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started = time.perf_counter()
    half, random_half, tenth, random_tenth, full = [], [], [], [], []
    for seed in range(seeds):
        data, ctx = modicum.load("digits", seed=seed), Context(seed=seed)
        scores = Margin(1, UNTIL).score(data, ctx, Traces(1, UNTIL).measure(data, RECIPE, ctx))
        n = len(data.train)
        half.append(accuracy(data, scores.kept(0.5), seed))
        tenth.append(accuracy(data, scores.kept(0.1), seed))
        random_half.append(accuracy(data, random_of(n, round(0.5 * n), seed), seed))
        random_tenth.append(accuracy(data, random_of(n, round(0.1 * n), seed), seed))
        full.append(accuracy(data, random_of(n, n, seed), seed))
    seconds = time.perf_counter() - started
    means = [statistics.mean(values) for values in (half, tenth, random_half, random_tenth, full)]
    return [
        claim(
            "the most undecided half trains within half a point of all data, for as many steps",
            half,
            means[4],
            means[0] >= means[4] - 0.5,
            "% test accuracy",
            seconds,
        ),
        claim(
            "the most undecided half beats a random half",
            half,
            means[2],
            means[0] > means[2],
            "% test accuracy",
            seconds,
        ),
        claim(
            "the most undecided tenth is worse than a random tenth",
            tenth,
            means[3],
            means[1] < means[3],
            "% test accuracy",
            seconds,
        ),
    ]
