"""What selection while training saves on MNIST: 20,000 training images, a perceptron, 10 epochs. Seconds are the lesser of
two runs, of the processor, so that other work on the machine counts little. The control is plain training that is shortened
to as many visits."""

from __future__ import annotations

import functools
import statistics
import time
from dataclasses import replace
from pathlib import Path

from protocol import claim

import modicum
from modicum.context import Context
from modicum.dataset import Splits
from modicum.evidence import Claim
from modicum.methods import make
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

__all__ = ["RECIPE", "mnist", "saving"]

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
RECIPE = Recipe(model="mlp(hidden=128)", epochs=10, batch_size=64, lr=0.05)


@functools.cache
def mnist(n: int = 20_000) -> Splits:
    """The first n images of the training split, and the whole test split."""
    whole = modicum.load(SHARED / "mnist.npz")
    return whole._replace(train=whole.train[:n])


def saving(method: str, seeds: int) -> list[Claim]:
    """Seconds of a fit that are saved, and accuracy beside full and shortened training."""
    started, data = time.perf_counter(), mnist()
    rows = []
    for seed in range(max(seeds, 5)):
        pairs = [(_run("", RECIPE, data, seed), _run(method, RECIPE, data, seed)) for _ in range(2)]
        (_, full, _), (_, ours, visits) = pairs[0]
        _, short, _ = _run("", replace(RECIPE, epochs=RECIPE.epochs * visits), data, seed)
        plain, seconds = (min(run[0] for run in runs) for runs in zip(*pairs))
        rows.append((100 * (1 - seconds / plain), full, ours, short))
    saved, full_, ours_, short_ = (list(column) for column in zip(*rows))
    seconds = time.perf_counter() - started
    lost = [a - b for a, b in zip(full_, ours_)]
    error = statistics.stdev(lost) / len(lost) ** 0.5
    return [
        claim(
            "at least 25 % of the seconds of a fit saved, MNIST",
            saved,
            0.0,
            statistics.mean(saved) >= 25,
            "% of seconds",
            seconds,
        ),
        claim(
            "accuracy less than one standard error below full training, MNIST",
            ours_,
            statistics.mean(full_),
            statistics.mean(lost) < error,
            "% test accuracy",
            seconds,
        ),
        claim(
            "no worse than training for as many visits on all data, MNIST",
            ours_,
            statistics.mean(short_),
            statistics.mean(ours_) >= statistics.mean(short_),
            "% test accuracy",
            seconds,
        ),
    ]


def _run(method: str, recipe: Recipe, data: Splits, seed: int) -> tuple[float, float, float]:
    """Seconds, test accuracy, and the share of the visits of plain training."""
    ctx = Context(seed=seed)
    before = time.process_time()
    done = fit(data.train, recipe, ctx, sampler=make(method).sampler(data, recipe, ctx) if method else None)
    seconds = time.process_time() - before
    visits = sum(done.history["samples"]) / (RECIPE.epochs * len(data.train))
    return seconds, 100 * done.evaluate(data.test).score, visits
