"""What the most undecided samples of a young model are good for: the three claims that every uncertainty is asked for."""

from __future__ import annotations

import statistics
import time
from typing import Any

from protocol import claim
from selection_of import RECIPE, accuracy, random_of

import modicum
from modicum.context import Context
from modicum.evidence import Claim

__all__ = ["claims_of"]


def claims_of(method: Any, seeds: int) -> list[Claim]:
    """Half and a tenth of the digits, the most undecided ones, beside random ones and all."""
    started = time.perf_counter()
    half, random_half, tenth, random_tenth, surest, full = [], [], [], [], [], []
    for seed in range(seeds):
        data, ctx = modicum.load("digits", seed=seed), Context(seed=seed)
        scores = method.score(data, ctx, *(need.measure(data, RECIPE, ctx) for need in method.needs()))
        n = len(data.train)
        half.append(accuracy(data, scores.kept(0.5), seed))
        tenth.append(accuracy(data, scores.kept(0.1), seed))
        surest.append(accuracy(data, scores.kept(0.1, "easiest"), seed))
        random_half.append(accuracy(data, random_of(n, round(0.5 * n), seed), seed))
        random_tenth.append(accuracy(data, random_of(n, round(0.1 * n), seed), seed))
        full.append(accuracy(data, random_of(n, n, seed), seed))
    seconds, unit = time.perf_counter() - started, "% test accuracy"
    all_of_them, chance, few = (statistics.mean(values) for values in (full, random_half, random_tenth))
    most = statistics.mean(half)
    return [
        claim(
            "the most undecided half trains within half a point of all data, for as many steps",
            half, all_of_them, most >= all_of_them - 0.5, unit, seconds,
        ),
        claim("the most undecided half beats a random half", half, chance, most > chance, unit, seconds),
        claim(
            "the most undecided tenth is worse than a random tenth",
            tenth, few, statistics.mean(tenth) < few, unit, seconds,
        ),
        claim(
            "the surest tenth, which the released code of DeepCore keeps, is worse than a random tenth",
            surest, few, statistics.mean(surest) < few, unit, seconds,
        ),
    ]  # fmt: skip
