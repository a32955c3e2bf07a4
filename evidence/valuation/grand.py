"""GraNd: averaging runs makes its ranking repeatable; the last layer ranks as all layers do; hard samples suffice at
half the data; a tenth of them misleads on MNIST, but not on digits, which are easier."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from lds_of import MNIST_FILE
from protocol import claim
from selection_of import RECIPE, accuracy, random_of

import modicum
from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.evidence import Claim
from modicum.measurement import Gradients
from modicum.valuation import Grand

RUNS, UNTIL = 5, 0.2


def mnist(seed: int) -> Splits:
    """5,000 images to train on and the first 2,000 of the test set."""
    info = Info(modality="image", classes=tuple("0123456789"), mean=(0.1307,), std=(0.3081,), source="MNIST")
    with np.load(MNIST_FILE) as arrays:
        at = np.random.default_rng(seed).permutation(len(arrays["train_images"]))[:5000]
        parts = [(arrays[f"{part}_images"][rows], arrays[f"{part}_labels"][rows])
                 for part, rows in (("train", at), ("test", np.arange(2000)))]  # fmt: skip
    train, test = (
        Dataset(
            torch.from_numpy(x.reshape(-1, 1, 28, 28) / np.float32(255)),
            torch.from_numpy(y.astype(np.int64)),
            info=info,
        )
        for x, y in parts
    )
    return Splits(train, test, test)


def on_mnist(seeds: int) -> list[Claim]:
    """What the hardest half and the hardest tenth are worth, where the data are there."""
    if not MNIST_FILE.is_file():
        return []
    started = time.perf_counter()
    found: dict[str, list[float]] = {name: [] for name in ("half", "tenth", "random half", "random tenth", "all")}
    for seed in range(seeds):
        data, ctx = mnist(seed), Context(seed=seed)
        scores, n = Grand(RUNS, UNTIL).score(data, ctx, Gradients((UNTIL,), RUNS).measure(data, RECIPE, ctx)), 5000
        kept = {"half": scores.kept(0.5), "tenth": scores.kept(0.1), "all": np.arange(n)}
        kept |= {"random half": random_of(n, n // 2, seed), "random tenth": random_of(n, n // 10, seed)}
        for name, at in kept.items():
            found[name].append(accuracy(data, at, seed))
    seconds, unit = time.perf_counter() - started, "% test accuracy"
    mean = {name: statistics.mean(values) for name, values in found.items()}
    return [
        claim(
            "5,000 of MNIST: the hardest half trains within half a point of all, for as many steps",
            found["half"], mean["all"], mean["half"] >= mean["all"] - 0.5, unit, seconds,
        ),
        claim(
            "5,000 of MNIST: the hardest half beats a random half",
            found["half"], mean["random half"], mean["half"] > mean["random half"], unit, seconds,
        ),
        claim(
            "5,000 of MNIST: the hardest tenth is worse than a random tenth",
            found["tenth"], mean["random tenth"], mean["tenth"] < mean["random tenth"], unit, seconds,
        ),
    ]  # fmt: skip


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    from scipy.stats import spearmanr

    def alike(a: np.ndarray, b: np.ndarray) -> float:
        return float(spearmanr(a, b)[0])

    started, single, averaged, last = time.perf_counter(), [], [], []
    half, tenth, random_tenth, full = [], [], [], []
    for seed in range(seeds):
        data = modicum.load("digits", seed=seed)
        scored = {}
        for which in (0, 1):
            ctx = Context(seed=1000 * seed + 500 * which)
            table = Gradients((UNTIL,), RUNS).measure(data, RECIPE, ctx)
            method = Grand(RUNS, UNTIL)
            scored[which] = method.score(data, ctx, table)
            scored[which, "one"] = method.score(data, ctx, Gradients((UNTIL,)).measure(data, RECIPE, ctx))
            scored[which, "last"] = Grand(RUNS, UNTIL, last_layer=True).score(data, ctx, table)
        single.append(alike(scored[0, "one"].values, scored[1, "one"].values))
        averaged.append(alike(scored[0].values, scored[1].values))
        last.append(alike(scored[0].values, scored[0, "last"].values))
        scores, n = scored[0], len(data.train)
        half.append(accuracy(data, scores.kept(0.5), seed))
        tenth.append(accuracy(data, scores.kept(0.1), seed))
        random_tenth.append(accuracy(data, random_of(n, round(0.1 * n), seed), seed))
        full.append(accuracy(data, random_of(n, n, seed), seed))
    seconds = time.perf_counter() - started
    one, many, everything, chance = (statistics.mean(values) for values in (single, averaged, full, random_tenth))
    return [
        claim(
            f"the ranking of {RUNS} runs repeats better than that of one",
            averaged, one, many > one, "Spearman correlation", seconds,
        ),
        claim(
            "the last layer ranks as all layers do, above 0.9",
            last, 0.9, statistics.mean(last) > 0.9, "Spearman correlation", seconds,
        ),
        claim(
            "the hardest half trains within half a point of all data, for as many steps",
            half, everything, statistics.mean(half) >= everything - 0.5, "% test accuracy", seconds,
        ),
        claim(
            "the hardest tenth is worse than a random tenth",
            tenth, chance, statistics.mean(tenth) < chance, "% test accuracy", seconds,
        ),
        *on_mnist(seeds),
    ]  # fmt: skip
