"""CAFE on digits: means of every stage matched in 20 networks that learn from the set in between."""

from __future__ import annotations

from distillation_of import beats_random, digits

from modicum.distillation import CAFE
from modicum.evidence import Claim


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    method = CAFE(iterations=20, batch_real=64, probe=16, outer=10, inner=5)
    return beats_random(method, digits(), 1, 12.0, seeds=seeds)


if __name__ == "__main__":
    for claim in run():
        print(claim)
