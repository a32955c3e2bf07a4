"""Data Banzhaf finds wrong labels, and its ranking stands noise of the utility better than that of Data Shapley."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from protocol import as_splits, claim, noisy_digits
from torch import Tensor
from values_of import Standard, values_of

from modicum.context import Context
from modicum.evidence import Claim
from modicum.measurement.utilities import Utilities
from modicum.training.recipe import Recipe
from modicum.valuation import DataBanzhaf, data_banzhaf, tmc_shapley

NOISE = 0.05  # standard deviation of what is added to accuracies
PERMUTATIONS = 20


class Disturbed:
    """A utility whose answers are wrong by normal noise, new each time."""

    def __init__(self, utility: Any, seed: int) -> None:
        self.utility, self.players, self.full = utility, utility.players, utility.full
        self.draw = torch.Generator().manual_seed(seed)

    def disturb(self, values: Tensor) -> Tensor:
        return values + NOISE * torch.randn(values.shape, generator=self.draw, dtype=torch.float64)

    def values(self, masks: Tensor) -> Tensor:
        return self.disturb(self.utility.values(masks))

    def prefixes(self, orders: Tensor, tolerance: float | None = None, patience: int = 5) -> tuple[Tensor, Tensor]:
        values, length = self.utility.prefixes(orders, tolerance, patience)
        return self.disturb(values), length


def agreement(a: Any, b: Any) -> float:
    """Spearman's rank correlation."""
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    standard, banzhaf, shapley = Standard(), [], []
    for seed in range(seeds):
        data = noisy_digits(seed)
        standard.add(values_of(DataBanzhaf(), data, seed), data, seed)
        utility = Utilities("ridge").measure(as_splits(data), Recipe(), Context(seed=seed))
        pairs: list[list[Any]] = [[], []]
        for noise in (2 * seed, 2 * seed + 1):  # two runs: other noise, and other sets
            draw, disturbed = torch.Generator().manual_seed(noise), Disturbed(utility, noise)
            pairs[0].append(data_banzhaf(disturbed, draw, PERMUTATIONS * utility.players).values)
            found = tmc_shapley(disturbed, draw, PERMUTATIONS, truncation="none", stop="budget")
            pairs[1].append(found.values)
        banzhaf.append(agreement(*pairs[0]))
        shapley.append(agreement(*pairs[1]))
    return [
        *standard.claims(0.9, 6),
        claim(
            "with noise of 0.05 in the accuracies, two runs of 6,000 utilities agree more than two of Data Shapley",
            banzhaf,
            statistics.mean(shapley),
            statistics.mean(banzhaf) > statistics.mean(shapley),
            "rank correlation",
            standard.seconds,
        ),
    ]
