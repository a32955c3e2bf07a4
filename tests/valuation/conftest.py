"""The definition of a semivalue, over all subsets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]


def over_all_subsets(utility: Callable[[list[int]], float], n: int, kind: str = "shapley") -> Array:
    """(n,) Shapley, Banzhaf or leave-one-out values of a function of sorted positions."""
    table = {s: utility(list(s)) for size in range(n + 1) for s in itertools.combinations(range(n), size)}
    values = np.zeros(n)
    for subset, before in table.items():
        size = len(subset)
        if size == n:
            continue
        weights = {
            "shapley": 1 / (n * math.comb(n - 1, size)),
            "banzhaf": 0.5 ** (n - 1),
            "loo": float(size == n - 1),
        }
        for i in set(range(n)) - set(subset):
            values[i] += weights[kind] * (table[tuple(sorted((*subset, i)))] - before)
    return values


def by_definition(
    train: Array,
    valid: Array,
    utility: Callable[[int, Array, list[int]], float],
    kind: str = "shapley",
) -> Array:
    """The mean over validation points; `utility` gets one's number, the ranking of all, and the sorted ranks in the set."""
    n = len(train)
    values = np.zeros((len(valid), n))
    for j, query in enumerate(valid):
        order = np.argsort(((train - query) ** 2).sum(1), kind="stable")
        values[j, order] = over_all_subsets(lambda ranks: utility(j, order, ranks), n, kind)  # noqa: B023
    return values


def problem(
    n: int = 8, m: int = 3, d: int = 4, classes: int = 3, seed: int = 0, dtype: Any = np.float64
) -> tuple[Array, Array, Array, Array]:
    """Training features and labels, validation features and labels: the last of classes that are trained on."""
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(n) % classes)
    valid = draw.normal(size=(m, d)).astype(dtype)
    return draw.normal(size=(n, d)).astype(dtype), labels, valid, labels[draw.integers(0, n, m)]


@pytest.fixture(name="by_definition")
def _by_definition() -> Callable[..., Array]:
    return by_definition


@pytest.fixture(name="problem")
def _problem() -> Callable[..., tuple[Array, Array, Array, Array]]:
    return problem
