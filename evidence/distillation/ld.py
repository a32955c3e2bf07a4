"""LD on digits: learned labels of twenty real images against their true ones."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from distillation_of import digits, distilled, trials
from protocol import claim

from modicum.distillation import LD
from modicum.evidence import Claim

MODEL = "mlp(hidden=64, layers=2)"
METHOD = LD(iterations=1200, lr_label=3e-3, batch_real=128, model=MODEL)
PER_CLASS = 2


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claim."""
    data, started, learned, true = digits(), time.perf_counter(), [], []
    for seed in range(seeds):
        made = distilled(METHOD, data, PER_CLASS, seed, MODEL)
        own = torch.arange(10).repeat_interleave(PER_CLASS)
        learned += trials(made, data, seed, 3).accuracies
        true += trials(replace(made, dataset=made.dataset.replace(targets=own)), data, seed, 3).accuracies
    baseline = sum(true) / len(true)
    holds = sum(learned) / len(learned) >= baseline + 2
    text = "learned labels of 2 real samples a class of digits train at least 2 points better than their true ones"
    return [claim(text, learned, baseline, holds, "% test accuracy", time.perf_counter() - started)]


if __name__ == "__main__":
    for one in run():
        print(one)
