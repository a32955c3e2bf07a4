"""SRe2L on digits: images recovered from the batch norms of a small residual network, labeled by it.

The steps are fewer than published, and the weight of the statistics is larger, as a small network has few layers.
"""

from __future__ import annotations

from distillation_of import digits
from teachers_of import beats_noise

from modicum.distillation import SRe2L
from modicum.evidence import Claim

METHOD = SRe2L(
    iterations=200, r_bn=0.1, scale=(0.5, 1.0), jitter=0.0, views=(0.5, 1.0), teacher="resnet9(width=8)"
)  # fmt: skip


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    return beats_noise(METHOD, digits(), 10, 20.0, model="convnet(width=16)", seeds=seeds)


if __name__ == "__main__":
    for claim in run():
        print(claim)
