"""Beta Shapley finds wrong labels from what samples add to few others; compared with Data Shapley on the same permutations."""

from __future__ import annotations

import statistics

import torch
from protocol import as_splits, auroc, claim, noisy_digits
from values_of import Standard

from modicum.context import Context
from modicum.evidence import Claim
from modicum.measurement.utilities import Utilities
from modicum.training.recipe import Recipe
from modicum.valuation.permutations import PermutationRun, carry_out

KINDS = [("beta", 16.0, 1.0), ("beta", 4.0, 1.0), ("beta", 1.0, 1.0)]


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims: all kinds are read from the same utilities."""
    early, wider, even = Standard(), Standard(), []
    for seed in range(seeds):
        data = noisy_digits(seed)
        utility = Utilities("ridge").measure(as_splits(data), Recipe(), Context(seed=seed))
        sampling = PermutationRun(utility, KINDS, torch.Generator().manual_seed(seed), 1000)
        sixteen, four, one = (found.values for found in carry_out(sampling))
        early.add(sixteen, data, seed)
        wider.add(four, data, seed)
        even.append(auroc(-one, data.flipped))
    base = statistics.mean(even)
    return [
        *early.claims(0.9, 8),
        *(
            claim(
                f"({alpha}, 1) finds them with an AUROC that is at most 0.01 below that of (1, 1), Data Shapley",
                standard.found,
                base,
                statistics.mean(standard.found) >= base - 0.01,
                "AUROC",
                early.seconds,
            )
            for alpha, standard in ((16, early), (4, wider))
        ),
    ]
