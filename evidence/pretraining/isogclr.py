"""iSogCLR on CIFAR-10: what it learns without labels."""

from __future__ import annotations

from pretraining_of import claims

from modicum.evidence import Claim

__all__ = ["METHOD", "run"]

METHOD = "isogclr(hidden=256)"


def run(seeds: int = 3) -> list[Claim]:
    """Better than the untrained network and than pixels, at the compute of SimCLR."""
    return claims(METHOD, seeds)
