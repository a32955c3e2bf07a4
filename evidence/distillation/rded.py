"""RDED on digits: the real images that a teacher finds easiest, against random ones under the same teacher's labels.

Images of 8 px have no parts worth cropping, so that whole images are scored: what is left of the method is the choice.
"""

from __future__ import annotations

from distillation_of import beats_random, digits

from modicum.distillation import RDED
from modicum.evidence import Claim

METHOD = RDED(crops=1, scale=(1.0, 1.0), teacher="resnet9(width=8)")


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    return beats_random(METHOD, digits(), 10, 0.0, seeds=seeds, networks=2)


if __name__ == "__main__":
    for claim in run():
        print(claim)
