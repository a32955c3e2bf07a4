"""Test accuracy of digits classifiers trained on a subset, always for the same number of optimizer steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from modicum.context import Context
from modicum.dataset import Splits
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

__all__ = ["RECIPE", "STEPS", "accuracy", "random_of"]

STEPS = 600
RECIPE = Recipe(model="mlp(hidden=128, layers=1)", steps=STEPS, batch_size=32, lr=0.05)


def accuracy(data: Splits, keep: np.ndarray[Any, Any], seed: int) -> float:
    """Percent of the test samples that are classified right after training on the kept samples."""
    return 100 * fit(data.train[keep], RECIPE, Context(seed=seed)).evaluate(data.test).score


def random_of(n: int, k: int, seed: int) -> np.ndarray[Any, Any]:
    """k of n positions."""
    return np.random.default_rng(seed).permutation(n)[:k]
