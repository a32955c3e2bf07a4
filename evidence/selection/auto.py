"""Auto: whether a pilot on a few samples says which side of the border a data set is on."""

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
from modicum.comparison.prepare import score_with
from modicum.context import Context
from modicum.dataset import Splits
from modicum.evidence import Claim
from modicum.methods import make
from modicum.scores import Budget
from modicum.selection import Auto
from modicum.training.many import fit_many
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="mlp(hidden=128, layers=1)", epochs=30, batch_size=32, lr=0.05)
SCORE = "el2n(runs=3, until=0.3)"
DIGITS = ((200, 0.1), (200, 0.5), (1000, 0.1), (1000, 0.2), (1000, 0.5))
MNIST = ((1000, 0.05), (1000, 0.2), (1000, 0.5))
NAMES = ("auto", "hardest", "easiest", "random")


def case(data: Splits, n: int, keep: float, seed: int) -> tuple[str, dict[str, float]]:
    """The side that the pilot takes, and the test accuracies in percent, each after the steps of its share."""
    part = data._replace(train=data.train[random_of(len(data.train), n, seed)], valid=data.valid[:1000])
    ctx = Context(seed=seed)
    method = Auto(SCORE, class_balance=0.5)
    curve, _ = method.needs()
    scores = score_with(make(SCORE), part, RECIPE, ctx)
    chosen = method.select(part, Budget(keep=keep), ctx, curve.measure(part, RECIPE, ctx), scores)
    subsets = {
        "auto": chosen.positions,
        **{order: scores.kept(keep, order, 0.5) for order in ("hardest", "easiest")},
        "random": random_of(n, round(keep * n), seed + 100),
    }
    steps = max(1, round(keep * RECIPE.steps_for(n)))
    fits = fit_many(
        part.train,
        replace(RECIPE, steps=steps),
        ctx,
        subsets=[torch.from_numpy(at) for at in subsets.values()],
        seeds=[seed] * len(subsets),
    )
    side = next(name for name in (*NAMES[1:3], "random") if f"kept the {name}" in chosen.note or name == "random")
    return side, {name: 100 * done.evaluate(part.test).score for name, done in zip(subsets, fits)}


def _standard_error(values: list[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims; the pilot trains on 3 to 25 percent of the samples."""
    started = time.perf_counter()
    right: dict[str, list[float]] = {"digits": [], "mnist": []}
    gains: dict[str, list[float]] = {"digits": [], "mnist": []}
    against: dict[str, list[float]] = {"digits": [], "mnist": []}
    for seed in range(seeds):
        for name, data, cases in (
            ("digits", modicum.load("digits", seed=seed), DIGITS),
            ("mnist", mnist(4000), MNIST),
        ):
            found = [case(data, n, keep, seed) for n, keep in cases]
            truth = ["hardest" if score["hardest"] >= score["easiest"] else "easiest" for _, score in found]
            right[name].append(100 * statistics.mean(side == told for (side, _), told in zip(found, truth)))
            gains[name].append(statistics.mean(s["auto"] - min(s["hardest"], s["easiest"]) for _, s in found))
            against[name].append(statistics.mean(s["auto"] - s["random"] for _, s in found))
    seconds = (time.perf_counter() - started) / 6
    said = {
        "digits": "200 and 1,000 digits, keeping 10 to 50 percent",
        "mnist": "1,000 of MNIST, keeping 5 to 50 percent",
    }
    claims = []
    for name, words in said.items():
        mean = statistics.mean(right[name])
        claims += [
            claim(
                f"on {words}, the pilot takes the better side more often than chance",
                right[name],
                50.0,
                mean > 50,
                "percent of the cases",
                seconds,
            ),
            claim(
                f"on {words}, it trains a better model than the wrong side",
                gains[name],
                0.0,
                statistics.mean(gains[name]) > 0,
                "percent points of test accuracy over the worse of hardest and easiest",
                seconds,
            ),
            claim(
                f"on {words}, it trains a better model than random samples, by a standard error",
                against[name],
                0.0,
                statistics.mean(against[name]) > _standard_error(against[name]),
                "percent points of test accuracy over random",
                seconds,
            ),
        ]
    return claims
