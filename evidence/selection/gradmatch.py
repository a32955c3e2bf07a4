"""GradMatch on digits: the gradient that a tenth of the samples gives, and what training on them gives."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from protocol import claim
from selection_of import RECIPE, accuracy, random_of

import modicum
from modicum.context import Context
from modicum.dataset import Dataset, Splits
from modicum.evidence import Claim
from modicum.methods import Selector
from modicum.scores import Budget, Selection
from modicum.selection import Craig, Gradmatch
from modicum.selection.gradient_rows import GradientRows
from modicum.training.fit import fit

KEEP = 0.1


def trained(data: Splits, kept: Dataset, seed: int) -> float:
    """Percent of the test samples that are classified right after training on weighted samples."""
    return 100 * fit(kept, RECIPE, Context(seed=seed)).evaluate(data.test).score


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started = time.perf_counter()
    methods: dict[str, Selector] = {"gradmatch": Gradmatch(l2=0.0, part="all"), "paper": Gradmatch(), "craig": Craig()}
    off: dict[str, list[float]] = {"random": []}
    right: dict[str, list[float]] = {"random": []}
    for seed in range(seeds):
        data, ctx = modicum.load("digits", seed=seed), Context(seed=seed)
        n = len(data.train)
        table = Gradmatch().needs()[0].measure(data, RECIPE, ctx)
        rows, place = GradientRows(*table.factors("train")), np.empty(n, dtype=np.int64)
        place[table.positions(data.train).numpy()] = np.arange(n)
        whole = rows.combined()

        def distance(chosen: Selection, rows: GradientRows = rows, whole: torch.Tensor = whole) -> float:
            assert chosen.weights is not None
            at = torch.from_numpy(place[chosen.positions])  # noqa: B023
            return 100 * float(
                (rows[at].combined(torch.from_numpy(chosen.weights).float()) - whole).norm() / whole.norm()
            )

        for name, method in methods.items():
            chosen = method.select(data, Budget(keep=KEEP), ctx, table)
            off.setdefault(name, []).append(distance(chosen))
            right.setdefault(name, []).append(trained(data, chosen.taken_from(data.train), seed))
        k = len(chosen)
        for draw in range(3):
            some = np.sort(random_of(n, k, 100 * seed + draw))
            off["random"].append(distance(Selection(some, np.full(k, n / k))))
            right["random"].append(accuracy(data, some, seed))
    seconds = time.perf_counter() - started
    means = {name: statistics.mean(values) for name, values in off.items()}
    return [
        claim(
            "without a penalty, the gradient of a tenth is nearer to that of all than a random tenth's",
            off["gradmatch"],
            means["random"],
            means["gradmatch"] < means["random"],
            "% of the gradient",
            seconds,
        ),
        claim(
            "and nearer than the tenth that CRAIG chooses",
            off["gradmatch"],
            means["craig"],
            means["gradmatch"] < means["craig"],
            "% of the gradient",
            seconds,
        ),
        claim(
            "with the penalty of the paper, 0.5, and the row of the own class, it is nearer than a random tenth's too",
            off["paper"],
            means["random"],
            means["paper"] < means["random"],
            "% of the gradient",
            seconds,
        ),
        claim(
            "without a penalty, training on that tenth beats a random tenth",
            right["gradmatch"],
            statistics.mean(right["random"]),
            statistics.mean(right["gradmatch"]) > statistics.mean(right["random"]),
            "% test accuracy",
            seconds,
        ),
        claim(
            "as in the paper, training on that tenth is no worse than on a random tenth",
            right["paper"],
            statistics.mean(right["random"]),
            statistics.mean(right["paper"]) >= statistics.mean(right["random"]),
            "% test accuracy",
            seconds,
        ),
    ]
