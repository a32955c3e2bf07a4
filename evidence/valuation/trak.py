"""TRAK finds wrong labels, and predicts what models of subsets do, the better the more models it has."""

from __future__ import annotations

import statistics
import time
from typing import NamedTuple

import numpy as np
import torch
from lds_of import MNIST, MNIST_FILE, TARGETS, halves, mnist, mnist_halves
from protocol import accuracy_of, as_splits, auroc, claim, noisy_digits
from torch import Tensor

import modicum
from modicum.context import Context
from modicum.dataset import Splits
from modicum.evidence import Claim
from modicum.measurement import Gradients, GradientTable
from modicum.measurement.per_sample import log_odds
from modicum.training.recipe import Recipe
from modicum.valuation import Trak, linear_datamodeling_score, tracin, trak

LINEAR = Recipe(model="linear", epochs=20, batch_size=32, lr=0.05, weight_decay=1e-2)
DIGITS = Recipe(model="mlp(hidden=32, layers=1)", epochs=15, batch_size=32, lr=0.05)


class Lds(NamedTuple):
    """Linear datamodeling scores of TRAK with 1, 3 and 10 models, and of the product of gradients of one model."""

    one: float
    three: float
    ten: float
    product: float


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims, on one thread: a second one gains nothing for small models, and costs where others work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured(seeds)
    finally:
        torch.set_num_threads(threads)


def _measured(seeds: int) -> list[Claim]:
    started = time.perf_counter()
    found, dropped, random = [], [], []
    for seed in range(seeds):
        data, ctx, method = noisy_digits(seed), Context(seed=seed), Trak()
        splits, n, k = as_splits(data), len(data.y), round(0.8 * len(data.y))
        values = method.score(splits, ctx, *(need.measure(splits, LINEAR, ctx) for need in method.needs())).values
        found.append(auroc(-values, data.flipped))
        dropped.append(accuracy_of(data, np.argsort(-values, kind="stable")[:k]))
        random.append(accuracy_of(data, np.random.default_rng(seed).permutation(n)[:k]))
    seconds, base = time.perf_counter() - started, statistics.mean(random)
    labels = claim(
        "finds a fifth of wrong labels with AUROC above 0.85",
        found,
        0.5,
        statistics.mean(found) > 0.85,
        "AUROC",
        seconds,
    )
    better = claim(
        "dropping the lowest fifth beats dropping a random fifth by 8 points",
        dropped,
        base,
        statistics.mean(dropped) >= base + 8,
        "% test accuracy",
        seconds,
    )
    train, valid, _ = modicum.load("digits")
    small = _claims("digits", Splits(train[:500], valid[:TARGETS], valid), DIGITS, list(range(seeds)))
    return [labels, better, *small, *(_claims("MNIST", mnist(), MNIST, [0]) if MNIST_FILE.is_file() else [])]


def _claims(name: str, data: Splits, recipe: Recipe, seeds: list[int]) -> list[Claim]:
    started = time.perf_counter()
    scores = [lds(data, recipe, seed) for seed in seeds]
    seconds = time.perf_counter() - started
    one, three, ten, product = (statistics.mean(column) for column in zip(*scores))
    ours, unit = [score.ten for score in scores], "LDS"
    return [
        claim(
            f"{name}: ten models predict 100 models of other halves with LDS above 0.1 and above that of the products "
            "of the gradients of one model",
            ours,
            product,
            ten > max(0.1, product),
            unit,
            seconds,
        ),
        claim(f"{name}: the LDS rises from one model to three to ten", ours, one, one < three < ten, unit, seconds),
    ]


def lds(data: Splits, recipe: Recipe, seed: int) -> Lds:
    """The scores against the margins of models of random halves, each the mean over three seeds."""
    masks, outputs = mnist_halves() if recipe is MNIST else halves(data, recipe, seed)
    ctx = Context(seed=seed)
    table = Gradients((1.0,), runs=10, share=0.5).measure(data, recipe, ctx)
    inside = masks[:, table.positions(data.train)].numpy()

    def of(models: int, parts: tuple[Tensor, Tensor, Tensor]) -> float:
        tau = trak(*(part[:models] for part in parts), per_target=True)
        return linear_datamodeling_score(tau, inside, outputs)

    parts = projected(table, len(data.train) // 4)
    alone = Gradients().measure(data, recipe, ctx)
    pairs = (alone.gradients(part)[None] for part in ("train", "valid"))  # type: ignore[arg-type]
    product = linear_datamodeling_score(tracin(*pairs, torch.ones(1), per_target=True), inside, outputs)
    return Lds(of(1, parts), of(3, parts), of(10, parts), product)


def projected(table: GradientTable, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The features of the training and the validation samples, and the errors, of all models."""
    runs = range(table.runs)
    train = torch.stack([table.gradients("train", r, function=log_odds, dimensions=k, seed=r) for r in runs])
    valid = torch.stack([table.gradients("valid", r, function=log_odds, dimensions=k, seed=r) for r in runs])
    return train, valid, torch.stack([-torch.expm1(-table.values("train", r)) for r in runs])
