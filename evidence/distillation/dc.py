"""DC on digits: noise becomes images on which a network has the gradients of its class."""

from __future__ import annotations

from distillation_of import beats_random, digits

from modicum.distillation import DC
from modicum.evidence import Claim


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    return beats_random(DC(iterations=100, batch_real=64), digits(), 1, 12.0, seeds=seeds, at_least=85.0)


if __name__ == "__main__":
    for claim in run():
        print(claim)
