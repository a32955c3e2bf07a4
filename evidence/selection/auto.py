"""Auto: whether a pilot on a few samples keeps what trains the better model."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import replace

import torch
from distillation_of import mnist
from protocol import claim
from selection_of import random_of

import modicum
from modicum.context import Context
from modicum.dataset import Splits
from modicum.evidence import Claim
from modicum.scores import Budget
from modicum.selection import Auto
from modicum.selection.pruning_pilot import by_difficulty
from modicum.training.many import fit_many
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="mlp(hidden=128, layers=1)", epochs=30, batch_size=32, lr=0.05)
KEEPS = (0.1, 0.2, 0.4)
IMAGES = 3000  # of MNIST
LATER = "el2n(runs=3, until=0.3)"
CASES = (
    ("digits", "el2n", "1,078 digits by el2n"),
    ("mnist", LATER, f"{IMAGES:,} of MNIST by el2n after 30 percent of the steps"),
)
MODELS = 2  # trained on each choice
RULES = ("random", "hardest", "easiest")


def accuracies(method: Auto, data: Splits, seed: int) -> list[dict[str, float]]:
    """For each share kept the test accuracies in percent, each after the steps of its share."""
    ctx, n = Context(seed=seed), len(data.train)
    (pilot,) = method.needs()
    table = pilot.measure(data, RECIPE, ctx)
    scores, found = by_difficulty(table.scores, data.train), []
    for keep in KEEPS:
        subsets = {
            "auto": method.select(data, Budget(keep=keep), ctx, table).positions,
            "random": random_of(n, round(keep * n), seed + 100),
            "hardest": scores.kept(keep, "hardest", method.class_balance),
            "easiest": scores.kept(keep, "easiest", method.class_balance),
        }
        fits = fit_many(
            data.train,
            replace(RECIPE, steps=max(1, round(keep * RECIPE.steps_for(n)))),
            ctx,
            subsets=[torch.from_numpy(at) for at in subsets.values() for _ in range(MODELS)],
            seeds=[seed + 1000 * (model + 1) for _ in subsets for model in range(MODELS)],
        )
        scored = [100 * done.evaluate(data.test).score for done in fits]
        found.append({name: statistics.mean(scored[MODELS * i :][:MODELS]) for i, name in enumerate(subsets)})
    return found


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims; the pilot trains on 3 to 25 percent of the samples."""
    claims = []
    for name, score, words in CASES:
        started = time.perf_counter()
        runs = [
            accuracies(Auto(score), modicum.load("digits", seed=seed) if name == "digits" else mnist(IMAGES), seed)
            for seed in range(seeds)
        ]
        seconds = (time.perf_counter() - started) / (len(KEEPS) + 1)
        for place, keep in enumerate(KEEPS):
            rows = [found[place] for found in runs]
            means = {rule: statistics.mean(row[rule] for row in rows) for rule in RULES}
            told = ", ".join(f"{rule} {mean:.1f}" for rule, mean in means.items())
            auto = [row["auto"] for row in rows]
            behind = [row["random"] - row["auto"] for row in rows]
            noise = statistics.stdev(behind) / math.sqrt(seeds) if seeds > 1 else 0.0
            claims.append(
                claim(
                    f"keeping {100 * keep:.0f} percent of {words}, no worse than random samples by two standard errors of the "
                    f"difference ({told})",
                    auto,
                    means["random"],
                    statistics.mean(behind) <= 2 * noise,
                    "percent test accuracy; baseline: random samples",
                    seconds,
                )
            )
        gaps = [statistics.mean(max(row[rule] for rule in RULES) - row["auto"] for row in found) for found in runs]
        random = statistics.mean(max(row[rule] for rule in RULES) - row["random"] for found in runs for row in found)
        claims.append(
            claim(
                f"on {words}, it is nearer to the best of random, hardest and easiest, known afterwards, than random samples",
                gaps,
                random,
                statistics.mean(gaps) < random,
                "percent points of test accuracy behind the best rule, mean of the three shares; baseline: random samples",
                seconds,
            )
        )
    return claims
