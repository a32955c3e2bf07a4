"""IDC on digits: ten stored images, each decoded into four training images, matched in five networks that learn from real
data; 200 updates in all, a thousandth of the published number."""

from __future__ import annotations

from distillation_of import beats_random, digits

from modicum.distillation import IDC
from modicum.evidence import Claim


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    method = IDC(iterations=5, inner=40, lr_img=2.6e-3, real_samples=64)
    return beats_random(method, digits(), 1, 4.0, seeds=seeds, networks=1)


if __name__ == "__main__":
    for claim in run():
        print(claim)
