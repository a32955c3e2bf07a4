"""The common protocol of the claims on synthetic sets: made from the training split alone, trained by the set's own recipe on
new networks, tested on the test split, beside as many random real samples trained by the same recipe."""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from protocol import claim

import modicum
from modicum.context import Context
from modicum.dataset import Splits
from modicum.distillation import Distilled, random_real, train_and_test, whitened
from modicum.distillation.evaluate import Trials
from modicum.evidence import Claim
from modicum.methods import make, spec
from modicum.scores import Budget
from modicum.training.recipe import Recipe

__all__ = ["beats_random", "digits", "distilled", "mnist", "real", "trials"]

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@functools.cache
def digits(seed: int = 0) -> Splits:
    """Images of 8 px, 1,797 in all."""
    return modicum.load("digits", seed=seed)


@functools.cache
def mnist(limit: int | None = None) -> Splits:
    """Images of 28 px; the first 2,000 of the test split unless all training images are asked for."""
    whole = modicum.load(SHARED / "mnist.npz", limit=limit)
    return whole if limit is None else Splits(whole.train, whole.valid, whole.test[:2000])


def distilled(
    method: Any, data: Splits, per_class: int, seed: int, model: str = "convnet(width=32)", zca: float = 0.0
) -> Distilled:
    """A set made from the training split."""
    chosen, whitening = make(method) if isinstance(method, str) else method, None
    if zca:
        data, whitening = whitened(data, zca)
    ctx, recipe = Context(seed=seed), Recipe(model=model)
    measured = [need.measure(data, recipe, ctx) for need in chosen.needs()]
    made = chosen.distill(data, Budget(per_class=per_class), recipe, ctx, *measured)
    return replace(made, whitening=whitening)


def trials(made: Distilled, data: Splits, seed: int, networks: int = 3) -> Trials:
    """Test accuracies of new networks."""
    return train_and_test(made, data.test, Context(seed=seed), networks)


def real(made: Distilled, data: Splits, per_class: int, seed: int, networks: int = 3) -> list[float]:
    """Test accuracies of as many random real samples by the same recipe, other samples for every network."""
    train = made.prepared(data.train)
    found = []
    for draw in range(networks if made.seed is None else 1):
        subset = train[random_real(train, Budget(per_class=per_class), 1000 * seed + draw)]
        found += trials(replace(made, dataset=subset), data, 1000 * seed + draw, 1).accuracies
    return found


def beats_random(
    method: Any,
    data: Splits,
    per_class: int,
    gain: float,
    *,
    model: str = "convnet(width=32)",
    seeds: int = 3,
    networks: int = 3,
    zca: float = 0.0,
    at_least: float | None = None,
    name: str = "digits",
) -> list[Claim]:
    """Better by so many points than as many random real samples; with `at_least`, this accurate too."""
    started, made, baseline = time.perf_counter(), [], []
    for seed in range(seeds):
        synthetic = distilled(method, data, per_class, seed, model, zca)
        made += trials(synthetic, data, seed, networks).accuracies
        baseline += real(synthetic, data, per_class, seed, networks)
    mean, random = sum(made) / len(made), sum(baseline) / len(baseline)
    text = spec(make(method) if isinstance(method, str) else method).partition("(")[0]
    plural = "sample" if per_class == 1 else "samples"
    what = f"{per_class} {plural} a class of {name} made by {text}"
    seconds = time.perf_counter() - started
    found = [
        claim(
            f"{what} train at least {gain:g} points better than as many random ones",
            made, random, mean >= random + gain, "% test accuracy", seconds,
        )
    ]  # fmt: skip
    if at_least is not None:
        text = f"{what} train to at least {at_least:g} %"
        found.append(claim(text, made, random, mean >= at_least, "% test accuracy", 0.0))
    return found
