"""EL2N: averaging runs makes its ranking repeatable; hard samples suffice at half the data and mislead at a tenth."""

from __future__ import annotations

import statistics
import time

from protocol import claim
from selection_of import RECIPE, accuracy, random_of

import modicum
from modicum.context import Context
from modicum.evidence import Claim
from modicum.measurement.traces import Traces
from modicum.valuation import El2n

RUNS, UNTIL = 5, 0.2


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    from scipy.stats import spearmanr

    started, single, averaged = time.perf_counter(), [], []
    half, tenth, random_tenth, full = [], [], [], []
    for seed in range(seeds):
        data = modicum.load("digits", seed=seed)
        scored = {}
        for runs in (1, RUNS):
            for which in (0, 1):
                ctx = Context(seed=1000 * seed + 500 * which)
                measured = Traces(runs, UNTIL).measure(data, RECIPE, ctx)
                scored[runs, which] = El2n(runs, UNTIL).score(data, ctx, measured)
        single.append(float(spearmanr(scored[1, 0].values, scored[1, 1].values)[0]))
        averaged.append(float(spearmanr(scored[RUNS, 0].values, scored[RUNS, 1].values)[0]))
        scores, n = scored[RUNS, 0], len(data.train)
        half.append(accuracy(data, scores.kept(0.5), seed))
        tenth.append(accuracy(data, scores.kept(0.1), seed))
        random_tenth.append(accuracy(data, random_of(n, round(0.1 * n), seed), seed))
        full.append(accuracy(data, random_of(n, n, seed), seed))
    seconds = time.perf_counter() - started
    means = [statistics.mean(values) for values in (single, averaged, half, tenth, random_tenth, full)]
    return [
        claim(
            f"the ranking of {RUNS} runs repeats better than that of one",
            averaged,
            means[0],
            means[1] > means[0],
            "Spearman correlation",
            seconds,
        ),
        claim(
            "the hardest half trains within half a point of all data, for as many steps",
            half,
            means[5],
            means[2] >= means[5] - 0.5,
            "% test accuracy",
            seconds,
        ),
        claim(
            "the hardest tenth is worse than a random tenth",
            tenth,
            means[4],
            means[3] < means[4],
            "% test accuracy",
            seconds,
        ),
    ]
