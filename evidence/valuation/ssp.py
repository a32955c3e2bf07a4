"""Self-supervised prototypes: keep the easy when data are scarce and the hard when they are plentiful.

Digits, 1,200 training samples, standardized pixels as the (weak) encoder, ten prototypes, as many samples of each class,
logistic regression. A random subset of the same size is shown beside it, and wins with this encoder.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from protocol import claim

from modicum.evidence import Claim
from modicum.scores import Budget, Scores
from modicum.valuation import ssp

SIZES = (50, 300, 720)


def accuracies(seed: int) -> dict[tuple[str, int], float]:
    """Test accuracy in percent by rule and size."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    images, labels = images[order], labels[order]
    spread = images[:1200].std(0)
    x = (images - images[:1200].mean(0)) / np.where(spread > 0, spread, 1)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    scores = Scores(ssp(x[:1200], 10, seed), np.arange(1200), "ssp", "difficulty", "cosine distance", labels[:1200])
    found: dict[tuple[str, int], float] = {}
    for size in SIZES:
        budget = Budget(per_class=size // 10)
        chance = Scores(np.random.default_rng(seed).random(1200), scores.ids, "random", "value", "", labels[:1200])
        rules: dict[str, Any] = {"easy": scores.kept(budget, "easiest"), "hard": scores.kept(budget, "hardest")}
        for rule, keep in {**rules, "random": chance.kept(budget)}.items():
            model = LogisticRegression(C=1.0, max_iter=2000).fit(x[keep], labels[keep])
            found[rule, size] = 100 * float(model.score(x[1200:], labels[1200:]))
    return found


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started = time.perf_counter()
    every = [accuracies(seed) for seed in range(seeds)]
    seconds = time.perf_counter() - started
    claims = []
    for size, better, worse, points in ((50, "easy", "hard", 10), (300, "hard", "easy", 2), (720, "hard", "easy", 2)):
        values, base = ([a[rule, size] for a in every] for rule in (better, worse))
        holds = statistics.mean(values) >= statistics.mean(base) + points
        text = f"with {size} samples the {better} beat the {worse} by {points} points"
        claims.append(claim(text, values, statistics.mean(base), holds, "% test accuracy", seconds))
    for size in (50, 300):
        values, base = ([a[rule, size] for a in every] for rule in ("easy" if size == 50 else "hard", "random"))
        holds = statistics.mean(values) > statistics.mean(base)
        text = f"with {size} samples the better rule beats random ones"
        claims.append(claim(text, values, statistics.mean(base), holds, "% test accuracy", seconds))
    return claims
