"""Supervised prototypes: keep the easy when data are scarce and the hard when they are plentiful.

Digits, 1,200 training samples, standardized pixels as the (weak) encoder, as many samples of each class, logistic
regression: the experiment of self-supervised prototypes with the means of the classes in place of clusters.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from protocol import auroc, claim, noisy_digits
from scipy.stats import spearmanr

from modicum.evidence import Claim
from modicum.scores import Budget, Scores
from modicum.valuation import ssp, supervised_prototypes

SIZES = (50, 300, 720)


def measured(seed: int) -> dict[Any, float]:
    """Test accuracy in percent by rule and size, and how alike both kinds of prototypes rank."""
    from sklearn.linear_model import LogisticRegression

    data = noisy_digits(seed, 1200, share=0.0)
    x, y = data.x, data.y
    test = np.concatenate([data.valid_x, data.test_x]), np.concatenate([data.valid_y, data.test_y])
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, test[0])]
    distances = supervised_prototypes(x, y)
    scores = Scores(distances, np.arange(1200), "supervised-prototypes", "difficulty", "cosine distance", y)
    chance = Scores(np.random.default_rng(seed).random(1200), scores.ids, "random", "value", "", y)
    found: dict[Any, float] = {"alike": float(spearmanr(distances, ssp(x, 10, seed))[0])}
    for size in SIZES:
        budget = Budget(per_class=size // 10)
        rules = {"easy": scores.kept(budget, "easiest"), "hard": scores.kept(budget), "random": chance.kept(budget)}
        for rule, keep in rules.items():
            model = LogisticRegression(C=1.0, max_iter=2000).fit(unit[0][keep], y[keep])
            found[rule, size] = 100 * float(model.score(unit[1], test[1]))
    noisy = noisy_digits(seed, 1000, share=0.1)
    found["wrong"] = auroc(supervised_prototypes(noisy.x, noisy.y), noisy.flipped)
    return found


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started = time.perf_counter()
    every = [measured(seed) for seed in range(seeds)]
    seconds = time.perf_counter() - started

    def against(text: str, ours: tuple[str, int], theirs: tuple[str, int], points: float) -> Claim:
        values, base = ([a[key] for a in every] for key in (ours, theirs))
        holds = statistics.mean(values) > statistics.mean(base) + points
        return claim(text, values, statistics.mean(base), holds, "% test accuracy", seconds)

    alike, wrong = ([a[name] for a in every] for name in ("alike", "wrong"))
    return [
        against("with 50 samples the easy beat the hard by 10 points", ("easy", 50), ("hard", 50), 10),
        against("with 300 samples the hard beat the easy by 2 points", ("hard", 300), ("easy", 300), 2),
        against("with 720 samples the hard beat the easy by 2 points", ("hard", 720), ("easy", 720), 2),
        against("with 50 samples the easy beat random ones", ("easy", 50), ("random", 50), 0),
        against("with 720 samples the hard beat random ones", ("hard", 720), ("random", 720), 0),
        claim(
            "ranks as prototypes without labels do, above 0.5",
            alike, 0.0, statistics.mean(alike) > 0.5, "Spearman correlation", seconds,
        ),
        claim(
            "finds a tenth of wrong labels with AUROC above 0.9",
            wrong, 0.5, statistics.mean(wrong) > 0.9, "AUROC", seconds,
        ),
    ]  # fmt: skip
