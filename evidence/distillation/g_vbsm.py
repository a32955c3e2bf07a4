"""G-VBSM on digits: images recovered from a residual network and a ConvNet, labeled by both."""

from __future__ import annotations

from distillation_of import digits
from teachers_of import beats_noise

from modicum.distillation import GVBSM
from modicum.evidence import Claim

METHOD = GVBSM(
    iterations=200,
    r_bn=0.1,
    scale=(0.5, 1.0),
    jitter=0.0,
    views=(0.5, 1.0),
    backbones=("resnet9(width=8)", "convnet(width=16)"),
)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    return beats_noise(METHOD, digits(), 10, 20.0, model="convnet(width=16)", seeds=seeds)


if __name__ == "__main__":
    for claim in run():
        print(claim)
