"""MoCo v2: its representation against the untrained network's and raw pixels, at the compute of SimCLR. The head fits the small encoder; that of the paper would cost more than the encoder does."""

from __future__ import annotations

from pretraining_of import claims

from modicum.evidence import Claim


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    return claims("moco-v2(hidden=256)", seeds)
