"""Masked language modeling: what a small transformer learns from 6,920 sentences."""

from __future__ import annotations

from texts_of import claims

from modicum.evidence import Claim

__all__ = ["run"]


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    return claims("masked-lm", seeds)
