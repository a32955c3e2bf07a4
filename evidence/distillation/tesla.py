"""TESLA on digits, as MTT there: its gradient is another one, and at 20 steps of the student it costs accuracy."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

from distillation_of import beats_random, digits, distilled, trials
from protocol import claim
from trajectories_of import DIGITS

from modicum.distillation import TESLA
from modicum.evidence import Claim

METHOD = TESLA(**DIGITS)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    claims = beats_random(METHOD, digits(), 1, 5.0, seeds=seeds)
    started, exact, approximate = time.perf_counter(), [], []
    for seed in range(seeds):
        for found, method in ((exact, replace(METHOD, grad="adjoint")), (approximate, METHOD)):
            found += trials(distilled(method, digits(), 1, seed), digits(), seed).accuracies
    mean, other = statistics.mean(exact), statistics.mean(approximate)
    text = "The exact gradient trains at least as well as the approximate one of tesla, the same otherwise"
    seconds = time.perf_counter() - started
    return [*claims, claim(text, exact, other, mean >= other, "% test accuracy", seconds)]


if __name__ == "__main__":
    for found in run():
        print(found)
