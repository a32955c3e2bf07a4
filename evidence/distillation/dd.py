"""DD on digits: ten images for one network, which are useless to others, and ten images for any network."""

from __future__ import annotations

import time
from dataclasses import replace

from distillation_of import beats_random, digits, distilled, trials
from protocol import claim

from modicum.distillation import DD
from modicum.evidence import Claim

MODEL = "mlp(hidden=64, layers=2)"
FIXED = DD(iterations=1500, steps=1, passes=3, fixed=True, batch_real=256, model=MODEL)
ANY = DD(
    iterations=100,
    steps=1,
    passes=10,
    networks=4,
    batch_real=256,
    lr=0.5,
    lr_img=0.1,
    lr_lr=0.05,
    init="real",
    model=MODEL,
)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    data, started, own, others = digits(), time.perf_counter(), [], []
    found = beats_random(ANY, data, 1, 10.0, model=MODEL, seeds=seeds)
    for seed in range(seeds):
        made = distilled(FIXED, data, 1, seed, MODEL)
        own += trials(made, data, seed, 1).accuracies
        others += trials(replace(made, seed=None), data, 1000 + seed, 3).accuracies
    mean, elsewhere = sum(own) / len(own), sum(others) / len(others)
    seconds = time.perf_counter() - started
    unit = "% test accuracy"
    found.append(
        claim(
            "ten images and three steps train their own initialization to 80 %",
            own,
            elsewhere,
            mean >= 80,
            unit,
            seconds,
        )
    )
    text = "other initializations are at least 15 points worse on images made for one"
    found.append(claim(text, others, mean, elsewhere <= mean - 15, unit, 0.0))
    return found


if __name__ == "__main__":
    for one in run():
        print(one)
