"""DSA on digits: gradients matched under the transforms that networks are then trained with."""

from __future__ import annotations

from distillation_of import beats_random, digits

from modicum.distillation import DSA
from modicum.evidence import Claim


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims; the random real samples are transformed alike."""
    return beats_random(DSA(iterations=100, batch_real=64), digits(), 1, 12.0, seeds=seeds, networks=2)


if __name__ == "__main__":
    for claim in run():
        print(claim)
