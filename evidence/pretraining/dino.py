"""DINO on CIFAR-10: what it learns without labels, with a head and a teacher that fit a run of a few hundred steps."""

from __future__ import annotations

from pretraining_of import claims

from modicum.evidence import Claim

__all__ = ["METHOD", "run"]

METHOD = "dino(momentum=0.99, hidden=256, bottleneck=64, prototypes=512)"


def run(seeds: int = 3) -> list[Claim]:
    """Better than the untrained network and than pixels, at the compute of SimCLR."""
    return claims(METHOD, seeds)
