"""What a valuation makes of the digits with wrong labels of the protocol: the two claims that every one is asked for."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from protocol import Noisy, accuracy_of, as_splits, auroc, claim

from modicum.context import Context
from modicum.evidence import Claim
from modicum.training.recipe import Recipe

__all__ = ["Standard", "values_of"]

Array = np.ndarray[Any, np.dtype[Any]]


def values_of(method: Any, data: Noisy, seed: int) -> Array:
    """Values of the training samples."""
    splits, ctx = as_splits(data), Context(seed=seed)
    measured = [need.measure(splits, Recipe(), ctx) for need in method.needs()]
    values: Array = method.score(splits, ctx, *measured).values
    return values


class Standard:
    """Collects, seed by seed, what the two claims need."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.found: list[float] = []
        self.dropped: list[float] = []
        self.random: list[float] = []

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.perf_counter() - self.started

    def add(self, values: Array, data: Noisy, seed: int) -> None:
        """Of one seed."""
        n, k = len(values), round(0.8 * len(values))
        self.found.append(auroc(-values, data.flipped))
        self.dropped.append(accuracy_of(data, np.argsort(-values, kind="stable")[:k]))
        self.random.append(accuracy_of(data, np.random.default_rng(seed).permutation(n)[:k]))

    def claims(self, least: float, gain: float) -> list[Claim]:
        """AUROC above `least`, and `gain` points above random after dropping the lowest fifth."""
        base = statistics.mean(self.random)
        return [
            claim(
                f"finds a fifth of wrong labels with AUROC above {least:g}",
                self.found,
                0.5,
                statistics.mean(self.found) > least,
                "AUROC",
                self.seconds,
            ),
            claim(
                f"dropping the lowest fifth beats dropping a random fifth by {gain:g} points",
                self.dropped,
                base,
                statistics.mean(self.dropped) >= base + gain,
                "% test accuracy",
                self.seconds,
            ),
        ]
