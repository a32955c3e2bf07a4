"""SimCLR: what it learns without labels; its compute is what every other learner gets."""

from __future__ import annotations

from pretraining_of import claims

from modicum.evidence import Claim

__all__ = ["METHOD", "run"]

METHOD = "simclr(hidden=256)"


def run(seeds: int = 3) -> list[Claim]:
    """Better than the untrained network and than pixels."""
    return claims(METHOD, seeds)
