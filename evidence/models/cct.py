"""Compact transformers on 2,000 CIFAR-10 images: tokens by convolutions against patches, at the same number of epochs.

All have two encoder blocks of width 128 and train eight epochs with the light recipe of the paper, without AutoAugment.
"""

from __future__ import annotations

import functools
import time

from pretraining_of import FILES, TEST
from protocol import claim

import modicum
from modicum.context import Context
from modicum.dataset import Splits
from modicum.evidence import Claim
from modicum.models import cct, vit_lite
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

TRAIN, EPOCHS = 2000, 8
SHAPE, CLASSES, DROPPED = (3, 32, 32), 10, {"attention_dropout": 0.1, "stochastic_depth": 0.1}
MODELS = {
    "cct": lambda: cct(SHAPE, CLASSES, layers=2, convolutions=2, **DROPPED),
    "class": lambda: cct(SHAPE, CLASSES, layers=2, convolutions=2, pool="class", **DROPPED),
    "vit": lambda: vit_lite(SHAPE, CLASSES, layers=2, **DROPPED),
}


@functools.cache
def images() -> Splits:
    """The images of the claims."""
    whole = modicum.load(FILES["cifar10"], label="label", limit=None)
    return Splits(whole.train[:TRAIN], whole.valid[:TEST], whole.test[:TEST])


@functools.cache
def accuracy(model: str, seed: int) -> float:
    """Test accuracy in percent."""
    data = images()
    recipe = Recipe(
        MODELS[model], EPOCHS, batch_size=64, optimizer="adamw", lr=5e-4, weight_decay=0.03, warmup=0.1,
        label_smoothing=0.1, augment=("crop(padding=4)", "flip"),
    )  # fmt: skip
    return 100 * fit(data.train, recipe, Context(seed=seed)).evaluate(data.test).score


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started = time.perf_counter()
    found = {model: [accuracy(model, seed) for seed in range(seeds)] for model in MODELS}
    mean = {model: sum(values) / seeds for model, values in found.items()}
    seconds = time.perf_counter() - started
    where = f"{TRAIN:,} images of CIFAR-10, {EPOCHS} epochs"
    return [
        claim(
            f"CCT-2/3x2 is at least 5 points more accurate than ViT-Lite-2/4 ({where})",
            found["cct"], mean["vit"], mean["cct"] >= mean["vit"] + 5, "% accuracy", seconds,
        ),
        claim(
            f"Pooling the sequence is at least as accurate as a class token ({where})",
            found["cct"], mean["class"], mean["cct"] >= mean["class"], "% accuracy", 0.0,
        ),
    ]  # fmt: skip
