"""Data Shapley of a ridge classifier finds wrong labels, where leave-one-out of the same classifier hardly does."""

from __future__ import annotations

import statistics

import torch
from protocol import as_splits, auroc, claim, noisy_digits
from values_of import Standard, values_of

from modicum.context import Context
from modicum.evidence import Claim
from modicum.measurement.utilities import Utilities
from modicum.training.recipe import Recipe
from modicum.valuation import DataShapley


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    standard, alone = Standard(), []
    for seed in range(seeds):
        data = noisy_digits(seed)
        standard.add(values_of(DataShapley(permutations=500), data, seed), data, seed)
        utility = Utilities("ridge").measure(as_splits(data), Recipe(), Context(seed=seed))
        without = utility.values(~torch.eye(utility.players, dtype=torch.bool))
        alone.append(auroc((without - utility.full).numpy(), data.flipped))
    base = statistics.mean(alone)
    return [
        *standard.claims(0.8, 8),
        claim(
            "finds them with AUROC at least 0.1 above leave-one-out of the same learner",
            standard.found,
            base,
            statistics.mean(standard.found) >= base + 0.1,
            "AUROC",
            standard.seconds,
        ),
    ]
