"""DeepFool: distances to the border rank samples as the margin of probabilities does; half of the data is enough."""

from __future__ import annotations

import statistics
import time

import numpy as np
from protocol import claim
from selection_of import RECIPE, accuracy, random_of

import modicum
from modicum.context import Context
from modicum.evidence import Claim
from modicum.measurement import Gradients
from modicum.scores import Budget
from modicum.selection import DeepFool
from modicum.selection.cal import features_and_probabilities
from modicum.valuation import margin


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    from scipy.stats import spearmanr

    started = time.perf_counter()
    alike, half, tenth, free, random_half, random_tenth, full = ([] for _ in range(7))
    for seed in range(seeds):
        data, ctx = modicum.load("digits", seed=seed), Context(seed=seed)
        table = Gradients((0.2,)).measure(data, RECIPE, ctx)
        n = len(data.train)
        chosen = {share: DeepFool().select(data, Budget(keep=share), ctx, table) for share in (0.1, 0.5)}
        undecided = np.empty(n)
        undecided[table.positions(data.train).numpy()] = margin(features_and_probabilities(table)[1])
        alike.append(-float(spearmanr(chosen[0.1].values, undecided)[0]))
        half.append(accuracy(data, chosen[0.5].positions, seed))
        tenth.append(accuracy(data, chosen[0.1].positions, seed))
        loose = DeepFool(per_class=False).select(data, Budget(keep=0.1), ctx, table)
        free.append(accuracy(data, loose.positions, seed))
        random_half.append(accuracy(data, random_of(n, round(0.5 * n), seed), seed))
        random_tenth.append(accuracy(data, random_of(n, round(0.1 * n), seed), seed))
        full.append(accuracy(data, random_of(n, n, seed), seed))
    seconds, unit = time.perf_counter() - started, "% test accuracy"
    most, few, chance, rare, everything = (
        statistics.mean(values) for values in (half, tenth, random_half, random_tenth, full)
    )
    return [
        claim(
            "ranks as the margin of probabilities does, above 0.7",
            alike, 0.7, statistics.mean(alike) > 0.7, "Spearman correlation", seconds,
        ),
        claim(
            "half of the samples train within half a point of all data, for as many steps",
            half, everything, most >= everything - 0.5, unit, seconds,
        ),
        claim("half of the samples beat a random half", half, chance, most > chance, unit, seconds),
        claim("a tenth beats a random tenth", tenth, rare, few > rare, unit, seconds),
        claim(
            "at a tenth it is worse without a budget for every class",
            free, few, statistics.mean(free) < few, unit, seconds,
        ),
    ]  # fmt: skip
