"""Claims on images that a teacher labels, beside noise and real images that the same teacher labels."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from distillation_of import distilled, real, trials
from protocol import claim

from modicum.dataset import Splits
from modicum.evidence import Claim
from modicum.methods import spec

__all__ = ["beats_noise"]


def beats_noise(
    method: Any, data: Splits, per_class: int, gain: float, *, model: str, seeds: int = 3, networks: int = 2
) -> list[Claim]:
    """Recovered images are better by so many points than the noise they came from, under the same teacher's labels; the
    second claim is how far they are from random real images under these labels, whichever way it goes."""
    started, made, noise, baseline = time.perf_counter(), [], [], []
    for seed in range(seeds):
        done = distilled(method, data, per_class, seed, model)
        made += trials(done, data, seed, networks).accuracies
        noise += trials(replace(done, dataset=done.snapshots[0].dataset), data, seed, networks).accuracies
        baseline += real(done, data, per_class, seed, networks)
    mean, from_noise, from_real = (sum(v) / len(v) for v in (made, noise, baseline))
    what = f"{per_class} images a class of digits recovered by {spec(method).partition('(')[0]}"
    seconds, unit = time.perf_counter() - started, "% test accuracy"
    return [
        claim(
            f"{what} train at least {gain:g} points better than the noise they came from, labeled by the same teacher",
            made, from_noise, mean >= from_noise + gain, unit, seconds,
        ),
        claim(
            f"{what} do not train better than as many random real images labeled by the same teacher",
            made, from_real, mean <= from_real, unit, 0.0,
        ),
    ]  # fmt: skip
