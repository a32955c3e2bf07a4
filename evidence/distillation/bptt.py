"""BPTT on digits: in the storage of one image a class, ten images, or sixty that are sums of eight bases."""

from __future__ import annotations

from distillation_of import beats_random, digits

from modicum.distillation import BPTT
from modicum.evidence import Claim

MODEL = "mlp(hidden=64, layers=2)"
PLAIN = BPTT(iterations=300, steps=30, lr=0.05, lr_img=1.0, model=MODEL)
BASES = BPTT(iterations=500, steps=30, lr=0.03, lr_img=1.5, bases=8, model=MODEL)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    found = []
    for method, gain, name in ((PLAIN, 15.0, "digits"), (BASES, 10.0, "digits (by 8 bases)")):
        found += beats_random(method, digits(), 1, gain, model=MODEL, seeds=seeds, name=name)
    return found


if __name__ == "__main__":
    for one in run():
        print(one)
