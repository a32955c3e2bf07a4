"""D2 pruning: it hardly keeps duplicates, and its messages repair much of what the hardest alone spoil; after the cutoff of
the very hardest they add little.

Digits with every sample twice: pairs among what is kept. MNIST, 10,000 training samples of which 500 are kept, EL2N of one
short training, a small network trained for as many steps on every subset.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from protocol import claim
from pruning_of import accuracy, chosen
from selection_of import RECIPE

import modicum
from modicum.context import Context
from modicum.evidence import Claim
from modicum.selection import d2_pruning
from modicum.selection.scored import Scored

TWICE = 0.1


def pairs(seed: int) -> tuple[float, float]:
    """Percent of what is kept that is the second of a pair, by D2 pruning and by the score alone."""
    data = modicum.load("digits", seed=seed)
    n, x = len(data.train), data.train.prepare(data.train.inputs).flatten(1).numpy()
    scores = Scored("el2n(runs=3)").measure(data, RECIPE, Context(seed=seed)).values
    twice, rows, k = np.tile(scores, 2), np.concatenate([x, x]), round(2 * TWICE * n)
    picks = (d2_pruning(twice, rows, k), np.argsort(-twice, kind="stable")[:k])
    ours, top = (100 * (1 - len(np.unique(picked % n)) / k) for picked in picks)
    return ours, top


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started, mean = time.perf_counter(), statistics.mean
    second = [pairs(seed) for seed in range(seeds)]

    def of(method: str, share: float = 0.0, score: str = "el2n", features: bool = True) -> list[float]:
        made = (chosen(method, seed, share, score=score, features=features) for seed in range(seeds))
        return [accuracy(selection, seed, share) for seed, selection in enumerate(made)]

    ours, uncut = of("d2-pruning"), of("d2-pruning(beta=0.0)")
    hardest, chance = of("ranked", features=False), of("stratified", score="", features=False)
    deaf = of("d2-pruning(neighbors=0)")
    noisy, noisy_chance = of("d2-pruning", 0.2), of("stratified", 0.2, "", False)
    seconds = time.perf_counter() - started
    return [
        claim(
            "of a tenth of data in which each sample comes twice less than 5 % are the second of a pair",
            [first for first, _ in second],
            mean([top for _, top in second]),
            mean([first for first, _ in second]) < 5,
            "% of those kept",
            seconds,
        ),
        claim(
            "without a cutoff it beats the hardest by 5 points",
            uncut,
            mean(hardest),
            mean(uncut) >= mean(hardest) + 5,
            "% test accuracy",
            seconds,
        ),
        claim(
            "after the cutoff messages add half a point",
            ours,
            mean(deaf),
            mean(ours) >= mean(deaf) + 0.5,
            "% test accuracy",
            seconds,
        ),
        claim(
            "it beats a random subset of every class",
            ours,
            mean(chance),
            mean(ours) > mean(chance),
            "% test accuracy",
            seconds,
        ),
        claim(
            "with a fifth of the labels wrong it beats a random subset of every class",
            noisy,
            mean(noisy_chance),
            mean(noisy) > mean(noisy_chance),
            "% test accuracy",
            seconds,
        ),
    ]
