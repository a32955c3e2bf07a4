"""Entropy: what a young model cannot place is what half of the data should be, and not a tenth."""

from __future__ import annotations

from uncertainty_of import claims_of

from modicum.evidence import Claim
from modicum.valuation import Entropy


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    return claims_of(Entropy(), seeds)
