"""Influence predicts what leaving a sample out does to the validation loss, and finds wrong labels."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F
from lds_of import MNIST_FILE, lds_on_mnist
from protocol import accuracy_of, as_splits, auroc, claim, noisy_digits
from scipy.stats import spearmanr
from torch import Tensor

from modicum.context import Context
from modicum.dataset import Splits
from modicum.evidence import Claim
from modicum.measurement import Gradients
from modicum.measurement.features import FeatureTable
from modicum.measurement.softmax import SoftmaxHead, fit_softmax
from modicum.measurement.solver import Solver
from modicum.training.recipe import Recipe
from modicum.valuation import Influence, influence_on_loss
from modicum.valuation.influence import head_influence


def pixels(seed: int) -> Tensor:
    """The images of the protocol in its order, as numbers from 0 to 1: no rare pixel makes a sample stand far out."""
    from sklearn.datasets import load_digits

    images = load_digits().data
    return torch.from_numpy(images[np.random.default_rng(seed).permutation(len(images))] / 16)


def predicted_and_true(
    train: Tensor, valid: Tensor, labels: Tensor, wanted: Tensor, seed: int, newton: bool = False
) -> tuple[float, float]:
    """Pearson correlation and slope of 20 random samples' changes of the validation loss when each is left out."""
    head, _ = fit_softmax(train, labels, 10)
    goal = head.mean_gradient(F.pad(valid.double(), (0, 1), value=1.0), wanted)
    values = head_influence(head, goal, Solver(), newton).numpy() / len(labels)
    chosen = np.random.default_rng(seed).permutation(len(labels))[:20]
    change = np.array([leave_one_out(head, int(i), valid.double(), wanted) for i in chosen])
    slope = np.polyfit(values[chosen], change, 1)[0]
    return float(np.corrcoef(values[chosen], change)[0, 1]), float(slope)


def leave_one_out(head: SoftmaxHead, i: int, x: Tensor, y: Tensor) -> float:
    """The change of the validation loss when the head is fit again without a sample."""
    importance = head.importance.clone()
    importance[i] = 0
    again, _ = fit_softmax(head.features[:, :-1], head.targets, 10, head.l2, importance=importance, start=head.weights)
    before, after = (F.cross_entropy(F.pad(x, (0, 1), value=1.0) @ h.weights.T, y) for h in (head, again))
    return float(after - before)


def attribution(data: Splits, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """(targets, n) of influence by EK-FAC on one trained network."""
    table = Gradients().measure(data, recipe, Context())
    inputs = [d.prepare(d.inputs) for d in (table.train, data.valid)]
    targets = [d.prepare_targets() for d in (table.train, data.valid)]
    pairs = influence_on_loss(
        table.model(), inputs[0], targets[0], inputs[1], targets[1], solver=Solver("ek-fac"), pairs=True
    )
    return pairs.T, table.positions(data.train)


def against_retraining() -> list[Claim]:
    """The linear datamodeling score of EK-FAC on MNIST, where the data are there."""
    if not MNIST_FILE.is_file():
        return []
    started = time.perf_counter()
    score = lds_on_mnist(attribution)
    text = "MNIST: by EK-FAC on one network it predicts 100 models of other halves with LDS above 0.1"
    return [claim(text, [score], 0.0, score > 0.1, "LDS", time.perf_counter() - started)]


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    return [*_on_digits(seeds), *against_retraining()]


def _on_digits(seeds: int) -> list[Claim]:
    started = time.perf_counter()
    found, full, dropped, random = [], [], [], []
    near, far, newton, factored, plain = [], [], [], [], []
    for seed in range(seeds):
        data = noisy_digits(seed)
        splits = as_splits(data)
        features = FeatureTable(splits.train.inputs, splits.valid.inputs)
        values, ek_fac = (
            method.score(splits, Context(seed=seed), features).values
            for method in (Influence(), Influence(solver="ek-fac"))
        )
        n, k = len(values), round(0.8 * len(values))
        found.append(auroc(-values, data.flipped))
        full.append(accuracy_of(data, np.arange(n)))
        dropped.append(accuracy_of(data, np.argsort(-values, kind="stable")[:k]))
        random.append(accuracy_of(data, np.random.default_rng(seed).permutation(n)[:k]))
        x, y, valid_x, valid_y = (torch.from_numpy(a) for a in (data.x, data.y, data.valid_x, data.valid_y))
        head, _ = fit_softmax(x, y, 10)
        goal = head.mean_gradient(F.pad(valid_x.double(), (0, 1), value=1.0), valid_y)
        factored.append(spearmanr(ek_fac, values).statistic)
        plain.append(spearmanr(head.products(goal[:, None])[:, 0].numpy(), values).statistic)
        images = pixels(seed)
        near.append(predicted_and_true(images[:300], images[300:600], y, valid_y, seed))
        far.append(predicted_and_true(x, valid_x, y, valid_y, seed))
        newton.append(predicted_and_true(x, valid_x, y, valid_y, seed, newton=True))
    seconds = time.perf_counter() - started
    base, everything = statistics.mean(random), statistics.mean(full)
    return [
        claim(
            "finds a fifth of wrong labels with AUROC above 0.9",
            found, 0.5, statistics.mean(found) > 0.9, "AUROC", seconds,
        ),
        claim(
            "dropping the lowest fifth beats dropping a random fifth by 8 points",
            dropped, base, statistics.mean(dropped) >= base + 8, "% test accuracy", seconds,
        ),
        claim(
            "dropping the lowest fifth beats training on everything by 5 points",
            dropped, everything, statistics.mean(dropped) >= everything + 5, "% test accuracy", seconds,
        ),
        claim(
            "on pixels from 0 to 1, the predicted and the retrained change of the validation loss of 20 samples left out correlate above 0.99",
            [r for r, _ in near], 0.0, min(r for r, _ in near) > 0.99, "Pearson r", seconds,
        ),
        claim(
            "on pixels from 0 to 1, the retrained change is 0.9 to 1.25 times the predicted one",
            [s for _, s in near], 1.0, all(0.9 <= s <= 1.25 for _, s in near), "slope", seconds,
        ),
        claim(
            "on standardized digits, where rare pixels have a high leverage, they correlate above 0.99 as well",
            [r for r, _ in far], 0.0, min(r for r, _ in far) > 0.99, "Pearson r", seconds,
        ),
        claim(
            "on standardized digits a Newton step for every sample brings the slope nearer to one",
            [s for _, s in newton], statistics.mean(s for _, s in far),
            abs(statistics.mean(s for _, s in newton) - 1) < abs(statistics.mean(s for _, s in far) - 1),
            "slope", seconds,
        ),
        claim(
            "EK-FAC ranks samples more like exact influence than the product of gradients does",
            factored, statistics.mean(plain), min(f - p for f, p in zip(factored, plain)) > 0.1, "Spearman", seconds,
        ),
    ]  # fmt: skip
