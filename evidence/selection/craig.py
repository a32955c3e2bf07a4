"""CRAIG: a tenth of the digits, weighted, stands for the gradient of all; and what training on a tenth of MNIST gives, by
gradients of a model or by the inputs, for as many steps as a tenth of ten epochs has."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from protocol import claim
from while_training_of import mnist

import modicum
from modicum.context import Context
from modicum.dataset import Dataset
from modicum.evidence import Claim
from modicum.measurement import Gradients
from modicum.scores import Budget
from modicum.selection import Craig
from modicum.selection.gradient_rows import GradientRows
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="linear", epochs=20, batch_size=32, lr=0.05)
KEEP = 0.1
NETWORK = Recipe(model="mlp(hidden=128, layers=2)", epochs=10, batch_size=64, lr=0.05)
IMAGES, SEEDS = 10_000, 5


def distance(rows: GradientRows, picks: torch.Tensor, weights: torch.Tensor) -> float:
    """How far the weighted gradient of the picks is from that of all, as a share of the latter."""
    whole = rows.combined()
    return float((rows[picks].combined(weights.to(rows.left)) - whole).norm() / whole.norm())


def regression(train: Dataset, weights: torch.Tensor, test: Dataset) -> float:
    """Test loss in nats of a logistic regression with an L2 penalty of 1e-3, trained to the end on weighted samples."""
    x, z = (F.pad(part.prepare(part.inputs, "cpu").flatten(1), (0, 1), value=1.0).double() for part in (train, test))
    layer = torch.zeros(10, x.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([layer], max_iter=200, line_search_fn="strong_wolfe")
    share = weights.double() / weights.sum()

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = (
            F.cross_entropy(x @ layer.T, train.labels, reduction="none") * share
        ).sum() + 5e-4 * layer.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return float(F.cross_entropy(z @ layer.detach().T, test.labels))


def trained(seeds: int) -> dict[str, list[float]]:
    """Percent of the test images of MNIST that are classified right after training on a tenth of the training images."""
    data, right = mnist(IMAGES), dict[str, list[float]]()
    few = replace(NETWORK, steps=round(KEEP * NETWORK.steps_for(IMAGES)))

    def score(name: str, kept: Dataset, recipe: Recipe, seed: int) -> None:
        done = fit(kept, recipe, Context(seed=seed))
        right.setdefault(name, []).append(100 * done.evaluate(data.test).score)

    for seed in range(seeds):
        ctx, draw = Context(seed=seed), np.random.default_rng(seed)
        for method in (Craig(), Craig(part="outputs"), Craig(part="inputs")):
            measured = method.needs()[0].measure(data, NETWORK, ctx)
            kept = method.select(data, Budget(keep=KEEP), ctx, measured).taken_from(data.train)
            score(method.part, kept, few, seed)
            if method.part == "all":
                score("clipped", kept, replace(few, clip=1.0), seed)
        score("random", data.train[draw.permutation(IMAGES)[: len(kept)]], few, seed)
    return right


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started = time.perf_counter()
    ours, random, off, off_random = [], [], [], []
    method = Craig()
    for seed in range(seeds):
        data, ctx = modicum.load("digits", seed=seed), Context(seed=seed)
        n = len(data.train)
        table = Gradients((method.until,)).measure(data, RECIPE, ctx)
        rows, order = GradientRows(*table.factors("train")), table.positions(data.train)
        place = torch.empty_like(order)
        place[order] = torch.arange(n)
        chosen = method.select(data, Budget(keep=KEEP), ctx, table)
        assert chosen.weights is not None
        kept, weights = torch.from_numpy(chosen.positions), torch.from_numpy(chosen.weights)
        ours.append(100 * distance(rows, place[kept], weights))
        full = regression(data.train, torch.ones(n), data.test)
        off.append(abs(regression(data.train[kept], weights, data.test) - full))
        for draw in range(3):
            some = torch.from_numpy(np.random.default_rng(100 * seed + draw).permutation(n)[: len(kept)])
            even = torch.full((len(some),), n / len(some))
            random.append(100 * distance(rows, place[some], even))
            off_random.append(abs(regression(data.train[some], even, data.test) - full))
    right = trained(max(seeds, SEEDS))
    means = {name: statistics.mean(values) for name, values in right.items()}
    seconds = time.perf_counter() - started
    return [
        claim(
            "the gradient of a tenth, weighted, is off by less than half of what a random tenth is",
            ours,
            statistics.mean(random),
            statistics.mean(ours) < statistics.mean(random) / 2,
            "% of the gradient",
            seconds,
        ),
        claim(
            "a logistic regression on it has a test loss nearer to that on all samples than on a random tenth",
            off,
            statistics.mean(off_random),
            statistics.mean(off) < statistics.mean(off_random),
            "nats from the test loss of all",
            seconds,
        ),
        *(
            claim(
                f"by {text}, training on a tenth of MNIST is no worse than on a random tenth",
                right[name],
                means["random"],
                means[name] >= means["random"],
                "% test accuracy",
                seconds,
            )
            for name, text in (
                ("inputs", "the inputs"),
                ("all", "gradients of a model"),
                ("outputs", "their factors at the outputs alone"),
            )
        ),
        claim(
            "by gradients of a model, clipped gradients make training on it better and steadier",
            right["clipped"],
            means["all"],
            means["clipped"] > means["all"] and statistics.stdev(right["clipped"]) < statistics.stdev(right["all"]),
            "% test accuracy",
            seconds,
        ),
    ]
