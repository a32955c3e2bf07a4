"""TracIn finds wrong labels, and dropping what it values least makes a better model."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from lds_of import MNIST_FILE, lds_on_mnist
from protocol import accuracy_of, as_splits, auroc, claim, noisy_digits
from torch import Tensor

from modicum.context import Context
from modicum.dataset import Splits
from modicum.evidence import Claim
from modicum.measurement import Gradients
from modicum.scores import Scores
from modicum.training.recipe import Recipe
from modicum.valuation import Tracin, tracin

LINEAR = Recipe(model="linear", epochs=20, batch_size=32, lr=0.05, weight_decay=1e-2)
DEEP = Recipe(model="mlp", epochs=15, batch_size=32, lr=0.05)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims, on one thread: a second one gains nothing for small models, and costs where others work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured(seeds)
    finally:
        torch.set_num_threads(threads)


def attribution(data: Splits, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """(targets, n) of TracIn over nine checkpoints, by gradients of all layers projected to 2,048 numbers."""
    table = Gradients(tuple((k + 1) / 9 for k in range(9))).measure(data, recipe, Context())
    train, valid = (
        torch.stack([table.gradients(part, 0, c, dimensions=2048) for c in range(table.checkpoints)])
        for part in ("train", "valid")
    )
    return torch.as_tensor(tracin(train, valid, table.rates, per_target=True)), table.positions(data.train)


def against_retraining() -> list[Claim]:
    """TracIn's linear datamodeling score on MNIST, where the data are there."""
    if not MNIST_FILE.is_file():
        return []
    started = time.perf_counter()
    score = lds_on_mnist(attribution)
    text = "MNIST: nine checkpoints of one run predict 100 models of other halves with LDS above 0.1"
    return [claim(text, [score], 0.0, score > 0.1, "LDS", time.perf_counter() - started)]


def _measured(seeds: int) -> list[Claim]:
    return [*_labels(seeds), *against_retraining()]


def _labels(seeds: int) -> list[Claim]:
    started = time.perf_counter()
    found, deep, own, last, dropped, random = ([] for _ in range(6))
    for seed in range(seeds):
        data = noisy_digits(seed)
        splits, n, k = as_splits(data), len(data.y), round(0.8 * len(data.y))
        values = scored(Tracin(), splits, LINEAR, seed).values
        found.append(auroc(-values, data.flipped))
        dropped.append(accuracy_of(data, np.argsort(-values, kind="stable")[:k]))
        random.append(accuracy_of(data, np.random.default_rng(seed).permutation(n)[:k]))
        deep.append(auroc(-scored(Tracin(layers="all"), splits, DEEP, seed).values, data.flipped))
        own.append(auroc(scored(Tracin(against="self"), splits, DEEP, seed).values, data.flipped))
        last.append(auroc(scored(Tracin(checkpoints=1, against="self"), splits, DEEP, seed).values, data.flipped))
    seconds = time.perf_counter() - started
    base, end = statistics.mean(random), statistics.mean(last)
    return [
        claim(
            "on a linear model finds a fifth of wrong labels with AUROC above 0.9",
            found,
            0.5,
            statistics.mean(found) > 0.9,
            "AUROC",
            seconds,
        ),
        claim(
            "on a network with a hidden layer and all its gradients, with AUROC above 0.75",
            deep,
            0.5,
            statistics.mean(deep) > 0.75,
            "AUROC",
            seconds,
        ),
        claim(
            "self-influence finds them with AUROC above 0.85, and better than at the last checkpoint only",
            own,
            end,
            statistics.mean(own) > max(0.85, end),
            "AUROC",
            seconds,
        ),
        claim(
            "dropping the lowest fifth beats dropping a random fifth by 8 points",
            dropped,
            base,
            statistics.mean(dropped) >= base + 8,
            "% test accuracy",
            seconds,
        ),
    ]


def scored(method: Tracin, splits: Splits, recipe: Recipe, seed: int) -> Scores:
    """The scores of a method with its measurement."""
    ctx = Context(seed=seed)
    return method.score(splits, ctx, *(need.measure(splits, recipe, ctx) for need in method.needs()))
