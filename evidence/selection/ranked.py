"""Keeping one end of a ranking: the hardest of noisy data are its wrong labels, and skipping them repairs it.

Digits, 1,000 training samples, a fifth of the labels wrong or none, EL2N of three short runs, 30 % kept, a small network
trained for as many steps on every subset.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from protocol import as_splits, claim, noisy_digits
from selection_of import RECIPE, accuracy, random_of

from modicum.context import Context
from modicum.evidence import Claim
from modicum.scores import Budget
from modicum.selection import Ranked
from modicum.selection.scored import Scored

TRAIN, KEEP = 1000, 0.3
RULES = {
    "hardest": Ranked("el2n(runs=3)"),
    "without the hardest quarter": Ranked("el2n(runs=3)", skip=0.25),
    "middle": Ranked("el2n(runs=3)", order="middle"),
    "easiest": Ranked("el2n(runs=3)", order="easiest"),
}


def measure(seed: int, share: float) -> tuple[dict[str, float], float]:
    """Test accuracy by rule, and the share of wrong labels among the hardest."""
    noisy = noisy_digits(seed, TRAIN, share=share)
    data, ctx = as_splits(noisy), Context(seed=seed)
    scores = Scored("el2n(runs=3)").measure(data, RECIPE, ctx)
    kept = {name: rule.select(data, Budget(keep=KEEP), ctx, scores).positions for name, rule in RULES.items()}
    found = {name: accuracy(data, positions, seed) for name, positions in kept.items()}
    found["random"] = accuracy(data, random_of(TRAIN, round(KEEP * TRAIN), seed), seed)
    return found, float(np.mean(noisy.flipped[kept["hardest"]]))


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started = time.perf_counter()
    noisy, clean = ([measure(seed, share) for seed in range(seeds)] for share in (0.2, 0.0))
    seconds, mean = time.perf_counter() - started, statistics.mean

    def of(name: str, every: list[tuple[dict[str, float], float]] = noisy) -> list[float]:
        return [found[name] for found, _ in every]

    shares = [share for _, share in noisy]
    better = "without the hardest quarter"
    return [
        claim(
            "more than half of the hardest 30 % have a wrong label, of all a fifth",
            shares,
            0.2,
            mean(shares) > 0.5,
            "share of wrong labels",
            seconds,
        ),
        claim(
            "without the hardest quarter the next hardest train 20 points better than the hardest",
            of(better),
            mean(of("hardest")),
            mean(of(better)) >= mean(of("hardest")) + 20,
            "% test accuracy",
            seconds,
        ),
        claim(
            "with wrong labels the middle of the ranking trains better than a random subset",
            of("middle"),
            mean(of("random")),
            mean(of("middle")) > mean(of("random")),
            "% test accuracy",
            seconds,
        ),
        claim(
            "with right labels and 300 samples the hardest train better than a random subset",
            of("hardest", clean),
            mean(of("random", clean)),
            mean(of("hardest", clean)) > mean(of("random", clean)),
            "% test accuracy",
            seconds,
        ),
        claim(
            "with right labels and 300 samples the hardest train better than the easiest",
            of("hardest", clean),
            mean(of("easiest", clean)),
            mean(of("hardest", clean)) > mean(of("easiest", clean)),
            "% test accuracy",
            seconds,
        ),
    ]
