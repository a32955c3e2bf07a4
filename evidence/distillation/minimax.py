"""Minimax on digits: samples of a small diffusion model, against as many random real ones."""

from __future__ import annotations

from distillation_of import beats_random, digits

from modicum.distillation import Minimax
from modicum.evidence import Claim

METHOD = Minimax(iterations=1200, batch_size=64, width=16, steps=20)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    return beats_random(METHOD, digits(), 1, 0.0, model="convnet(width=16)", seeds=seeds)


if __name__ == "__main__":
    for claim in run():
        print(claim)
