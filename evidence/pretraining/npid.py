"""NPID on CIFAR-10: what it learns without labels from one view an image, with noise instead of the full softmax too."""

from __future__ import annotations

import statistics

from pretraining_of import claims, equal_compute
from protocol import claim

from modicum.evidence import Claim

__all__ = ["METHOD", "run"]

METHOD, NOISE = "npid(hidden=256)", "npid(hidden=256, negatives=1024, bank_init='features')"


def run(seeds: int = 3) -> list[Claim]:
    """Better than the untrained network and than pixels, at the compute of SimCLR; and the two forms of its loss."""
    full, noise = equal_compute(METHOD, "cifar10", seeds), equal_compute(NOISE, "cifar10", seeds)
    baseline, values = statistics.mean(f.knn for f in full), [f.knn for f in noise]
    text = "Noise-contrastive estimation with 1,024 rows is within 2 points of the full softmax at equal compute"
    near = abs(statistics.mean(values) - baseline) <= 2
    seconds = sum(f.seconds for f in noise)
    return [*claims(METHOD, seeds), claim(text, values, baseline, near, "% k-NN accuracy", seconds)]
