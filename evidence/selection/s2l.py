"""SmallToLarge on digits: a perceptron with 8 hidden units chooses for one with 256. A pool where one class is rare, and a
pool where ten easy samples come a hundred times each."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from protocol import claim
from selection_of import random_of

import modicum
from modicum.context import Context
from modicum.dataset import Splits
from modicum.evidence import Claim
from modicum.scores import Budget
from modicum.selection import S2L
from modicum.training.evaluate import forward
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

TARGET = Recipe(model="mlp(hidden=256, layers=1)", steps=600, batch_size=32, lr=0.05)
PROXY = Recipe(epochs=20, batch_size=32, lr=0.05)
Array = np.ndarray[Any, np.dtype[Any]]


def rare(seed: int, share: float = 0.05) -> Splits:
    """Digits whose class 8 is a twentieth of the training samples."""
    data = modicum.load("digits", seed=seed)
    of = data.train.labels.numpy()
    few = np.flatnonzero(of == 8)
    others = np.flatnonzero(of != 8)
    keep = np.concatenate([others, few[: round(share / (1 - share) * len(others))]])
    return data._replace(train=data.train[np.sort(keep)])


def repeated(seed: int, times: int = 100) -> tuple[Splits, Array]:
    """Digits where the ten samples with the least loss come so many times, and which samples those are."""
    data = modicum.load("digits", seed=seed)
    easy = np.argsort(_traced(data, seed).loss[0].mean(0).numpy())[:10]
    positions = np.concatenate([np.arange(len(data.train)), np.repeat(easy, times - 1)])
    train = data.train[positions].replace(ids=np.arange(len(positions)))
    return data._replace(train=train), np.isin(positions, easy)


def _traced(data: Splits, seed: int) -> Any:
    return S2L().needs()[0].measure(data, PROXY, Context(seed=seed))


def chosen(data: Splits, budget: Budget, seed: int, clusters: int = 100) -> dict[str, Array]:
    """The samples that S2L, the largest loss, EL2N and chance keep."""
    table, n = _traced(data, seed), len(data.train)
    k = budget.count(n)
    return {
        "s2l": S2L(clusters).select(data, budget, Context(seed=seed), table).positions,
        "loss": np.sort(np.argsort(-table.loss[0].mean(0).numpy(), kind="stable")[:k]),
        "el2n": np.sort(np.argsort(-table.error[0].numpy(), kind="stable")[:k]),
        "random": np.sort(random_of(n, k, seed)),
    }


def recall(data: Splits, keep: Array, seed: int) -> float:
    """Mean over the classes of the percent found, by a large model trained on the kept samples."""
    model = fit(data.train[keep], TARGET, Context(seed=seed)).model
    right = (forward(model, data.test, Context()).argmax(1) == data.test.labels).numpy()
    of = data.test.labels.numpy()
    return 100 * statistics.mean(float(right[of == c].mean()) for c in range(10))


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started, found, copies, pool = time.perf_counter(), [], [], []
    for seed in range(max(seeds, 5)):
        data = rare(seed)
        kept = chosen(data, Budget(keep=0.15), seed)
        found.append({name: recall(data, keep, seed) for name, keep in kept.items()})
        data, copy = repeated(seed)
        kept = chosen(data, Budget(keep=0.15), seed)
        copies.append({name: 100 * float(copy[keep].mean()) for name, keep in kept.items()})
        pool.append(100 * float(copy.mean()))
    seconds = time.perf_counter() - started
    ours = [row["s2l"] for row in found]
    claims = []
    for name, title in (("random", "random samples"), ("loss", "the largest losses"), ("el2n", "the largest EL2N")):
        mean = statistics.mean(row[name] for row in found)
        text = f"a class at 5 %, 15 % kept: recall no lower than with {title}"
        claims.append(claim(text, ours, mean, statistics.mean(ours) >= mean, "% mean recall", seconds))
    shares, whole = [row["s2l"] for row in copies], statistics.mean(pool)
    text = "ten samples a hundred times: at most half their share of the pool among the kept"
    return [*claims, claim(text, shares, whole, statistics.mean(shares) <= whole / 2, "% of kept samples", seconds)]
