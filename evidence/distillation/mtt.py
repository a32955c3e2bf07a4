"""MTT on digits: ten synthetic images on which a multilayer perceptron of 64 and 64 units goes where experts go on all."""

from __future__ import annotations

from distillation_of import beats_random, digits
from trajectories_of import DIGITS

from modicum.distillation import MTT
from modicum.evidence import Claim

METHOD = MTT(**DIGITS)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    return beats_random(METHOD, digits(), 1, 10.0, seeds=seeds, at_least=74.4)


if __name__ == "__main__":
    for claim in run():
        print(claim)
