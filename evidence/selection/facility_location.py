"""Facility location trains better than random subsets of every class where few are kept, and epsilon must be small."""

from __future__ import annotations

import statistics
import time

import torch
from protocol import claim
from submodular_of import against_stratified

import modicum
from modicum.evidence import Claim
from modicum.selection import facility_location

METHOD = "facility-location(encoder='inputs')"
PICKS = 100


def stochastic(seeds: int) -> Claim:
    """Values of stochastic picks relative to greedy ones, with few candidates and with enough."""
    started, loose, tight = time.perf_counter(), [], []
    for seed in range(seeds):
        digits = modicum.load("digits", seed=seed).train
        pixels = digits.prepare(digits.inputs).flatten(1)
        best = float(facility_location(pixels, PICKS, kernel="rbf")[1].sum())
        for epsilon, ratios in ((0.9, loose), (0.01, tight)):
            draw = torch.Generator().manual_seed(seed)
            gains = facility_location(pixels, PICKS, "stochastic", kernel="rbf", epsilon=epsilon, generator=draw)[1]
            ratios.append(100 * float(gains.sum()) / best)
    return claim(
        "stochastic greedy with epsilon = 0.01 reaches 98 % of greedy's value; with 0.9, as others have it, less",
        tight,
        statistics.mean(loose),
        min(tight) > 98 > statistics.mean(loose),
        "% of greedy's value",
        time.perf_counter() - started,
    )


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    return [
        against_stratified(METHOD, 3, "with 3 digits of each class kept it beats random ones of every class", seeds),
        against_stratified(METHOD, 10, "with 10 digits of each class kept it beats random ones of every class", seeds),
        stochastic(seeds),
    ]
