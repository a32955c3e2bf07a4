"""DM on digits: ten synthetic images, one a class, and a hundred, against as many random real ones.

The network is the depth-2 ConvNet of width 32 with instance norm; 600 iterations with 64 real images a class and the
published augmentation, without flips, in the matching and in the evaluation, real images included.
"""

from __future__ import annotations

from distillation_of import beats_random, digits

from modicum.distillation import DM
from modicum.evidence import Claim

METHOD = DM(iterations=600, lr_img=1.0, batch_real=64)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    return [
        *beats_random(METHOD, digits(), 1, 15, seeds=seeds, at_least=89.1),
        *beats_random(METHOD, digits(), 10, 1, seeds=seeds),
    ]


if __name__ == "__main__":
    for found in run():
        print(found)
