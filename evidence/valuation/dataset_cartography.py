"""Data maps: wrong labels lie where confidence is low, and the ambiguous third of clean digits is a good third."""

from __future__ import annotations

import statistics
import time

import numpy as np
from protocol import as_splits, auroc, claim, noisy_digits
from selection_of import RECIPE as STEPS
from selection_of import accuracy, random_of

import modicum
from modicum.context import Context
from modicum.evidence import Claim
from modicum.measurement.traces import Traces
from modicum.training.recipe import Recipe
from modicum.valuation import DatasetCartography

RECIPE = Recipe(
    model="mlp(hidden=128, layers=1)", epochs=10, batch_size=32, lr=0.05, weight_decay=0, schedule="constant"
)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started, found, ranked, mixed = time.perf_counter(), [], [], []
    ambiguous, easy, random, full = [], [], [], []
    for seed in range(seeds):
        noisy = noisy_digits(seed, train=1000, share=0.1)
        data, ctx = as_splits(noisy), Context(seed=seed)
        table = Traces().measure(data, RECIPE, ctx)
        hard = DatasetCartography("hard").score(data, ctx, table)
        found.append(100 * float(noisy.flipped[hard.kept(0.2)].sum() / noisy.flipped.sum()))
        ranked.append(auroc(hard.values, noisy.flipped))
        varies = DatasetCartography().score(data, ctx, table)
        mixed.append(100 * float(np.mean(noisy.flipped[varies.kept(0.33)])))
        clean = modicum.load("digits", seed=seed)
        traces = Traces().measure(clean, STEPS, ctx)
        for region, values in (("ambiguous", ambiguous), ("easy", easy)):
            kept = DatasetCartography(region).score(clean, ctx, traces).kept(0.33)
            values.append(accuracy(clean, kept, seed))
        n = len(clean.train)
        random.append(accuracy(clean, random_of(n, round(0.33 * n), seed), seed))
        full.append(accuracy(clean, random_of(n, n, seed), seed))
    seconds, unit = time.perf_counter() - started, "% test accuracy"
    third, chance, least, everything = (statistics.mean(values) for values in (ambiguous, random, easy, full))
    return [
        claim(
            "more than 70 % of a tenth of wrong labels are in the fifth of lowest confidence",
            found, 20.0, statistics.mean(found) > 70, "% of the wrong labels", seconds,
        ),
        claim(
            "low confidence finds wrong labels with AUROC above 0.95",
            ranked, 0.5, statistics.mean(ranked) > 0.95, "AUROC", seconds,
        ),
        claim(
            "the most variable third holds a smaller share of wrong labels than all data",
            mixed, 10.0, statistics.mean(mixed) < 10, "% wrong labels", seconds,
        ),
        claim("the ambiguous third beats a random third", ambiguous, chance, third > chance, unit, seconds),
        claim("the ambiguous third beats the easy third", ambiguous, least, third > least, unit, seconds),
        claim(
            "the ambiguous third trains within half a point of all data, for as many steps",
            ambiguous, everything, third >= everything - 0.5, unit, seconds,
        ),
    ]  # fmt: skip
