"""FRePo on digits and MNIST: samples and their labels learned by ridge regression on the features of a pool of networks,
against random real samples trained by the same recipe (squared error, Adam, averaged weights, augmentation)."""

from __future__ import annotations

from distillation_of import beats_random, digits, mnist

from modicum.distillation import FRePo
from modicum.evidence import Claim

METHOD = FRePo(iterations=500, lr_img=1e-2, lr_label=1e-2, pool=4, batch_real=256, lr_net=1e-3)
LARGER = FRePo(iterations=1500, lr_img=3e-2, lr_label=1e-2, pool=4, batch_real=128, lr_net=3e-4)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    claims = beats_random(METHOD, digits(), 1, 15.0, seeds=seeds, at_least=86.0)
    data = mnist(10_000)
    return claims + beats_random(LARGER, data, 1, 10.0, seeds=1, networks=3, at_least=85.0, name="MNIST")


if __name__ == "__main__":
    for claim in run():
        print(claim)
