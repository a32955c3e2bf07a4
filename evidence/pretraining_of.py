"""The common protocol of the claims on learning without labels: 4,000 CIFAR-10 images (or MNIST), a residual network of
nine layers of width 8, the same augmentation and for every learner the compute of some epochs of SimCLR, then weighted
k-NN and a linear probe on 2,000 test images. Digits cannot show anything here: their raw pixels are better than any learned
feature. Heads are as narrow as the encoder is small: those of the papers would cost more than it does."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from protocol import claim

import modicum
from modicum.context import Context
from modicum.dataset import Splits
from modicum.evidence import Claim
from modicum.ledger import Ledger
from modicum.methods import make
from modicum.pretraining import pretrain
from modicum.pretraining.learner import backbone_for
from modicum.pretraining.probes import knn_probe, linear_probe
from modicum.training.evaluate import forward
from modicum.training.recipe import Recipe

__all__ = [
    "RECIPE",
    "Outcome",
    "budget",
    "claims",
    "equal_compute",
    "images",
    "learn",
    "outcome",
    "pixels",
    "steps_within",
    "untrained",
]

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
FILES = {"cifar10": SHARED / "cifar10-train.parquet", "mnist": SHARED / "mnist.npz"}
NAMES = {"cifar10": "CIFAR-10", "mnist": "MNIST"}
RECIPE = Recipe("resnet9(width=8)", epochs=6, batch_size=128, optimizer="adamw", lr=1e-3, weight_decay=0.01)
AUGMENT = "sqrtkl"  # crops of a fifth of the image or more, mild colors, mirroring; of gray digits crops alone
TRAIN, TEST, NEIGHBORS = 4000, 2000, 50


@dataclass(frozen=True)
class Outcome:
    """What an encoder is worth.

    Args:
        knn: Test accuracy of weighted k-NN in percent.
        linear: Of a linear probe.
        seconds: Of learning.
        flops: Of learning, priors and teachers included.
    """

    knn: float
    linear: float
    seconds: float
    flops: int


@functools.cache
def images(name: str = "cifar10") -> Splits:
    """The training images, and as many others as the probes need; the probes of test images never see the learning."""
    label = {"label": "label"} if name == "cifar10" else {}
    whole = modicum.load(FILES[name], limit=None, **label)
    train = whole.train[:TRAIN]
    return Splits(train, whole.valid[:TEST], whole.test[:TEST])


def outcome(encode: Any, data: Splits, seconds: float = 0.0, flops: int = 0) -> Outcome:
    """Both probes on a representation, `encode(dataset) -> (n, d)`."""
    train, test = encode(data.train), encode(data.test)
    knn = knn_probe(train, data.train.labels, test, data.test.labels, k=NEIGHBORS)
    linear = linear_probe(train, data.train.labels, test, data.test.labels)
    return Outcome(100 * float(knn), 100 * float(linear), seconds, flops)


def fair(method: Any, data: Splits) -> Any:
    """The learner with the augmentation that all get."""
    chosen = make(method) if isinstance(method, str) else method
    if not hasattr(chosen, "augment"):
        return chosen
    return replace(chosen, augment="crops" if data.train.inputs.shape[1] == 1 else AUGMENT)


def learn(method: Any, data: Splits, seed: int, recipe: Recipe = RECIPE, **options: Any) -> Outcome:
    """Pretrain and probe."""
    ctx = Context(seed=seed)
    done = pretrain(data, fair(method, data), recipe, ctx, **options)
    total = done.ledger.total()
    return outcome(lambda d: forward(done.encoder, d, Context()), data, total.seconds, total.flops)


@functools.cache
def pixels(name: str = "cifar10") -> Outcome:
    """The probes on the standardized inputs themselves."""
    return outcome(lambda d: d.prepare(d.inputs).flatten(1), images(name))


@functools.cache
def untrained(name: str = "cifar10", seeds: int = 3, recipe: Recipe = RECIPE) -> tuple[Outcome, ...]:
    """The probes on encoders with initial weights, one for each seed."""
    data = images(name)
    return tuple(
        outcome(lambda d, s=seed: forward(backbone_for(recipe, d, s), d, Context()), data) for seed in range(seeds)
    )


def flops_of(method: str, data: Splits, recipe: Recipe, steps: int) -> int:
    """FLOPs of so many steps."""
    ledger = Ledger()
    pretrain(data, fair(method, data), replace(recipe, steps=steps), Context(ledger=ledger))
    return ledger.total().flops


@functools.cache
def budget(name: str = "cifar10", share: float = 1.0) -> int:
    """FLOPs that every learner gets: those of SimCLR for the epochs of the recipe."""
    data = images(name)
    one, two = (flops_of("simclr(hidden=256)", data, RECIPE, steps) for steps in (1, 2))
    return round(share * RECIPE.epochs * (TRAIN // RECIPE.batch_size) * (two - one))


@functools.cache
def steps_within(method: str, name: str = "cifar10", flops: int | None = None, recipe: Recipe = RECIPE) -> int:
    """Steps of a learner that cost no more than the budget, what comes before the first step included."""
    data, flops = images(name), budget(name) if flops is None else flops
    one, two = (flops_of(method, data, recipe, steps) for steps in (1, 2))
    return max(1, (flops - (one - (two - one))) // (two - one))


@functools.cache
def equal_compute(method: str, name: str, seeds: int, share: float = 1.0) -> tuple[Outcome, ...]:
    """A learner at a share of the budget, once for each seed."""
    recipe = replace(RECIPE, steps=steps_within(method, name, budget(name, share)))
    return tuple(learn(method, images(name), seed, recipe) for seed in range(seeds))


def claims(method: str, seeds: int = 3, name: str = "cifar10") -> list[Claim]:
    """At the compute of some epochs of SimCLR the representation is better than the untrained one and than pixels."""
    started = time.perf_counter()
    found = equal_compute(method, name, seeds)
    before = untrained(name, seeds)
    raw = pixels(name)
    seconds = time.perf_counter() - started
    mean = sum(f.knn for f in found) / len(found)
    mean_before = sum(f.knn for f in before) / len(before)
    knn, linear = [f.knn for f in found], [f.linear for f in found]
    linear_before = sum(f.linear for f in before) / len(before)
    where = f"{TRAIN:,} images of {NAMES[name]}, compute of {RECIPE.epochs:.0f} epochs of SimCLR"
    return [
        claim(
            f"k-NN accuracy is above that of the untrained network ({where})",
            knn, mean_before, mean > mean_before, "% accuracy", seconds,
        ),
        claim(
            f"k-NN accuracy is above that of raw pixels ({where})",
            knn, raw.knn, mean > raw.knn, "% accuracy", 0.0,
        ),
        claim(
            f"A linear probe is more accurate than on the untrained network ({where})",
            linear, linear_before, sum(linear) / len(linear) > linear_before, "% accuracy", 0.0,
        ),
    ]  # fmt: skip
