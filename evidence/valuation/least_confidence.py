"""Least confidence: what a young model is least sure of is what half of the data should be, and not a tenth."""

from __future__ import annotations

from uncertainty_of import claims_of

from modicum.evidence import Claim
from modicum.valuation import LeastConfidence


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    return claims_of(LeastConfidence(), seeds)
