"""Linear datamodeling scores: how well an attribution predicts the margins of models trained on random halves."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info, Splits
from modicum.measurement.per_sample import log_odds
from modicum.training.many import fit_many
from modicum.training.recipe import Recipe
from modicum.valuation import linear_datamodeling_score

__all__ = ["MNIST", "MNIST_FILE", "TARGETS", "halves", "lds_on_mnist", "mnist", "mnist_halves"]

MNIST = Recipe(model="mlp(hidden=32, layers=1)", epochs=10, batch_size=64, lr=0.05)
MNIST_FILE = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "mnist.npz"
SUBSETS, TARGETS = 100, 100


@cache
def mnist(n: int = 2000) -> Splits:
    """The first images of MNIST."""
    with np.load(MNIST_FILE) as arrays:
        images, labels = arrays["train_images"][: n + TARGETS], arrays["train_labels"][: n + TARGETS]
    inputs = torch.from_numpy(images.astype(np.float32)).reshape(len(images), 1, 28, 28) / 255
    info = Info(modality="image", classes=tuple("0123456789"), mean=(0.1307,), std=(0.3081,), source="MNIST")
    whole = Dataset(inputs, torch.from_numpy(labels.astype(np.int64)), info=info)
    return Splits(whole[:n], whole[n:], whole[n:])


def halves(data: Splits, recipe: Recipe, seed: int) -> tuple[Tensor, Tensor]:
    """(subsets, n) random halves, and (subsets, targets) the margins of models trained on them, over three seeds."""
    n = len(data.train)
    masks = torch.zeros(SUBSETS, n, dtype=torch.bool)
    for i, mask in enumerate(masks):
        mask[torch.randperm(n, generator=generator(seed, "halves", i))[: n // 2]] = True
    subsets = [mask.nonzero().flatten() for mask in masks for _ in range(3)]
    numbers = [10_000_000 + 1000 * seed + i for i in range(len(subsets))]
    fits = fit_many(data.train, recipe, Context(), subsets=subsets, seeds=numbers, together=100)
    inputs, targets = data.valid.prepare(data.valid.inputs), data.valid.prepare_targets()
    with torch.no_grad():
        margins = torch.stack([log_odds(done.model(inputs), targets) for done in fits])
    return masks, margins.reshape(SUBSETS, 3, -1).mean(1)


@cache
def mnist_halves() -> tuple[Tensor, Tensor]:
    """The 300 models that every attribution is held against."""
    return halves(mnist(), MNIST, 0)


def lds_on_mnist(attribution: Callable[[Splits, Recipe], tuple[Tensor, Tensor]]) -> float:
    """The score of an attribution.

    Args:
        attribution: Gives (targets, n) how much each training sample helps each target, and (n,) where its rows are in
            the training set.
    """
    masks, outputs = mnist_halves()
    values, positions = attribution(mnist(), MNIST)
    return float(linear_datamodeling_score(values, masks[:, positions].numpy(), outputs))
