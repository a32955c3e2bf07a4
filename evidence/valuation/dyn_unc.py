"""Dyn-Unc: a quarter of the data can go without loss, as of a random quarter too; at half it tells more."""

from __future__ import annotations

import statistics
import time

from protocol import claim
from selection_of import RECIPE, accuracy, random_of

import modicum
from modicum.context import Context
from modicum.evidence import Claim
from modicum.measurement.traces import Traces
from modicum.valuation import DynUnc


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started = time.perf_counter()
    most, half, random_most, random_half, sure, full = [], [], [], [], [], []
    for seed in range(seeds):
        data, ctx = modicum.load("digits", seed=seed), Context(seed=seed)
        scores = DynUnc().score(data, ctx, Traces().measure(data, RECIPE, ctx))
        n = len(data.train)
        most.append(accuracy(data, scores.kept(0.75), seed))
        half.append(accuracy(data, scores.kept(0.5), seed))
        sure.append(accuracy(data, scores.kept(0.5, "easiest"), seed))
        random_most.append(accuracy(data, random_of(n, round(0.75 * n), seed), seed))
        random_half.append(accuracy(data, random_of(n, round(0.5 * n), seed), seed))
        full.append(accuracy(data, random_of(n, n, seed), seed))
    seconds, unit = time.perf_counter() - started, "% test accuracy"
    kept, middle, chance, other, low, everything = (
        statistics.mean(values) for values in (most, half, random_most, random_half, sure, full)
    )
    return [
        claim(
            "three quarters train within 0.3 points of all data, for as many steps",
            most, everything, kept >= everything - 0.3, unit, seconds,
        ),
        claim("three quarters beat random ones", most, chance, kept > chance, unit, seconds),
        claim("the most uncertain half beats a random half", half, other, middle > other, unit, seconds),
        claim("the most uncertain half beats the least uncertain", half, low, middle > low, unit, seconds),
    ]  # fmt: skip
