"""Smooth experts on digits: how evenly they move, and what a set is worth that was made with them.

Experts are multilayer perceptrons trained for 20 epochs with momentum 0.9 and weight decay 1e-3, at a learning rate of
0.02 at which the first epochs are the fastest, as they are on large data at the published 0.003. The penalty takes the
slope of a whole sample: of images with one channel the published form asks every single pixel for a slope of one.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import torch
from distillation_of import digits, real, trials
from protocol import claim

from modicum.context import Context
from modicum.distillation import SmoothExpert, flat_network
from modicum.evidence import Claim
from modicum.measurement.experts import Experts, ExpertTable
from modicum.models import build
from modicum.scores import Budget
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="mlp(hidden=64)")
METHOD = SmoothExpert(
    iterations=120, syn_steps=20, max_start=4, lr_img=3.0, lr_lr=1e-5, lr_start=0.03, experts=4, epochs=20,
    lr_expert=0.02, batch_real=32, norm="sample", augment="none", model=RECIPE.model,
)  # fmt: skip
FIRST = 10  # epochs whose displacement is looked at


def displacement(experts: ExpertTable) -> torch.Tensor:
    """(count, FIRST) how far the weights move in each of the first epochs."""
    steps = experts.weights[:, 1 : FIRST + 1] - experts.weights[:, :FIRST]
    return steps.square().sum(2).sqrt()


def accuracies(experts: ExpertTable, seed: int) -> list[float]:
    """Of each expert after its last epoch, in percent."""
    data = digits(seed)
    _, call = flat_network(build(RECIPE.model, data.train, 0))
    x = data.test.prepare(data.test.inputs)
    right = [call(experts.at(e, experts.epochs), x).argmax(1) == data.test.labels for e in range(experts.count)]
    return [100 * float(each.float().mean()) for each in right]


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started = time.perf_counter()
    made: list[float] = []
    baseline: list[float] = []
    moved, spread, ends = ({on: list[float]() for on in (False, True)} for _ in range(3))
    for seed in range(seeds):
        data = digits(seed)
        (smooth,) = METHOD.needs()
        for on in (False, True):
            kind: Experts = smooth if on else replace(smooth, ramp=False, penalty=0.0)
            experts = kind.measure(data, RECIPE, Context(seed=seed))
            way = displacement(experts)
            moved[on] += way.mean(1).tolist()
            spread[on] += (way.std(1) / way.mean(1)).tolist()
            ends[on] += accuracies(experts, seed)
        synthetic = METHOD.distill(data, Budget(per_class=1), RECIPE, Context(seed=seed), experts)
        made += trials(synthetic, data, seed).accuracies
        baseline += real(synthetic, data, 1, seed)
    mean = {name: {on: statistics.fmean(v[on]) for on in v} for name, v in (("m", moved), ("s", spread), ("a", ends))}
    seconds = time.perf_counter() - started
    return [
        claim(
            "1 sample a class of digits made by smooth-expert train at least 15 points better than as many random ones",
            made, statistics.fmean(baseline), statistics.fmean(made) >= statistics.fmean(baseline) + 15,
            "% test accuracy", seconds,
        ),
        claim(
            "ramp and penalty make the first ten epochs of experts shorter", moved[True], mean["m"][False],
            mean["m"][True] < mean["m"][False], "mean distance an epoch", 0.0,
        ),
        claim(
            "ramp and penalty make the first ten epochs of experts more even", spread[True], mean["s"][False],
            mean["s"][True] < mean["s"][False], "standard deviation over mean of the distance", 0.0,
        ),
        claim(
            "experts with ramp and penalty end within one point of those without", ends[True], mean["a"][False],
            abs(mean["a"][True] - mean["a"][False]) <= 1, "% test accuracy", 0.0,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    for found in run():
        print(found)
