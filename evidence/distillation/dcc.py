"""DCC on digits: 15 networks of ten updates each, all but the first four on the gradient of all classes together."""

from __future__ import annotations

from distillation_of import beats_random, digits

from modicum.distillation import DCC
from modicum.evidence import Claim


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    method = DCC(iterations=15, batch_real=64, warmup_networks=4)
    return beats_random(method, digits(), 1, 12.0, seeds=seeds)


if __name__ == "__main__":
    for claim in run():
        print(claim)
