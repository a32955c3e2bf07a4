"""DATM on digits: early epochs of the experts suit one sample a class, late ones twenty.

Experts are multilayer perceptrons of 64 and 64 units, trained plainly at a learning rate of 0.05 for 30 epochs, of which
the first four, or the tenth to the twentieth, are matched. Both windows have the same settings, and labels are learned.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

from distillation_of import digits, real, trials
from protocol import claim

from modicum.context import Context
from modicum.distillation import DATM
from modicum.evidence import Claim
from modicum.scores import Budget
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="mlp(hidden=64)")
METHOD = DATM(
    iterations=80, syn_steps=20, max_start=4, first_start=0, lr_img=20.0, lr_lr=1e-5, lr_start=0.02, lr_y=1.0,
    experts=10, epochs=30, lr_expert=0.05, batch_real=32, rho=0, augment="none", model=RECIPE.model,
)  # fmt: skip
WINDOWS = {"early": (0, 4), "late": (10, 20)}
SIZES = {1: 20.0, 20: 5.0}  # samples a class, and the step size on them


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started = time.perf_counter()
    found: dict[tuple[int, str], list[float]] = {(k, name): [] for k in SIZES for name in (*WINDOWS, "random")}
    for seed in range(seeds):
        data, ctx = digits(seed), Context(seed=seed)
        experts = METHOD.needs()[0].measure(data, RECIPE, ctx)
        for per_class, lr_img in SIZES.items():
            for name, (low, high) in WINDOWS.items():
                method = replace(METHOD, min_start=low, max_start=high, lr_img=lr_img)
                made = method.distill(data, Budget(per_class=per_class), RECIPE, ctx, experts)
                found[per_class, name] += trials(made, data, seed).accuracies
            found[per_class, "random"] += real(made, data, per_class, seed)
    mean = {which: statistics.fmean(values) for which, values in found.items()}
    seconds, unit = time.perf_counter() - started, "% test accuracy"
    return [
        claim(
            "1 sample a class of digits made from early epochs train at least 12 points better than as many random ones",
            found[1, "early"], mean[1, "random"], mean[1, "early"] >= mean[1, "random"] + 12, unit, seconds,
        ),
        claim(
            "20 samples a class of digits made from late epochs train at least 2 points better than as many random ones",
            found[20, "late"], mean[20, "random"], mean[20, "late"] >= mean[20, "random"] + 2, unit, 0.0,
        ),
        claim(
            "with 1 sample a class early epochs are better than late ones", found[1, "early"], mean[1, "late"],
            mean[1, "early"] > mean[1, "late"], unit, 0.0,
        ),
        claim(
            "with 20 samples a class late epochs are better than early ones", found[20, "late"], mean[20, "early"],
            mean[20, "late"] > mean[20, "early"], unit, 0.0,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    for each in run():
        print(each)
