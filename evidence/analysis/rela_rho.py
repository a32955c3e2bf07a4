"""Targets between labels and posterior probabilities on two Gaussians: gradient noise, and how near descent comes."""

from __future__ import annotations

import time

from protocol import claim

from modicum.analysis import relabeling_noise
from modicum.evidence import Claim

__all__ = ["run"]


def run(seeds: int = 3) -> list[Claim]:
    """Noise falls with (1 - rho)^2, and so does the distance to the optimum; smaller spread is less noise."""
    started = time.perf_counter()
    wide = [relabeling_noise((0.0, 0.5, 0.9, 1.0), seed=seed) for seed in range(seeds)]
    tight = [relabeling_noise((0.0,), variance=0.1, seed=seed) for seed in range(seeds)]
    seconds = time.perf_counter() - started
    share = [w.noise[1] / w.noise[0] for w in wide]
    distance = [w.distance[2] / w.distance[0] for w in wide]
    exact = [w.distance[3] for w in wide]
    spread = [t.noise[0] for t in tight]
    return [
        claim(
            "Gradient noise with targets half way to the posterior is a quarter of that with labels",
            share, 0.25, all(abs(s - 0.25) < 0.0125 for s in share), "share", seconds,
        ),
        claim(
            "Nine tenths of the way descent ends at a hundredth of the squared distance, within a factor of 1.5",
            distance, 0.01, all(0.01 / 1.5 < d < 0.015 for d in distance), "share", 0.0,
        ),
        claim(
            "With the posterior itself descent arrives: the squared distance is below 1e-15 (baseline: labels)",
            exact, wide[0].distance[0], all(e < 1e-15 for e in exact), "squared distance", 0.0,
        ),
        claim(
            "A within-class variance of 0.1 instead of 1 gives less gradient noise",
            spread, wide[0].noise[0], all(s < w.noise[0] for s, w in zip(spread, wide)), "trace", 0.0,
        ),
    ]  # fmt: skip
