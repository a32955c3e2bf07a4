"""RCIG on digits: samples and their labels learned by the implicit gradient through linearized networks, against random
real samples trained by the same recipe (squared error, Adam, averaged weights, augmentation).

Its settings for MNIST and images with color ask for an accelerator.
"""

from __future__ import annotations

from distillation_of import beats_random, digits

from modicum.distillation import RCIG
from modicum.evidence import Claim

METHOD = RCIG(
    iterations=150, lr_img=2e-2, lr_label=1e-2, pool=4, batch_real=128, scale=10.0, lr_pool=1e-3, lr_net=1e-3, ema=0.95
)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    model = "convnet(width=16, norm='none', growth=2)"
    return beats_random(METHOD, digits(), 1, 15.0, model=model, seeds=seeds, at_least=84.0)


if __name__ == "__main__":
    for claim in run():
        print(claim)
