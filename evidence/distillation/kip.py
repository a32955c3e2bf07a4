"""KIP on digits and MNIST: what kernel ridge regression, an infinitely wide network, learns from one and ten synthetic
images a class, and what a finite network does, against as many random real ones and against the best labels for real ones."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from distillation_of import beats_random, digits, distilled, mnist
from protocol import claim

from modicum.dataset import Dataset, Splits
from modicum.distillation import KIP, Distilled, kernel_answers, random_real
from modicum.evidence import Claim
from modicum.scores import Budget

DIGITS = KIP(iterations=300)
SOLVED = KIP(images="fixed", labels="solved")
MNIST = KIP(iterations=300, precision="float32")
MORE = replace(MNIST, iterations=600)


def predicted(made: Distilled, test: Dataset) -> float:
    """Test accuracy of the kernel predictor in percent."""
    return 100 * float((kernel_answers(made, test).argmax(1) == test.labels).float().mean())


def real(made: Distilled, data: Splits, per_class: int, seed: int) -> float:
    """The same of random real samples."""
    subset = data.train[random_real(data.train, Budget(per_class=per_class), seed)]
    return predicted(replace(made, dataset=subset), data.test)


def infinite(method: KIP, sets: list[Splits], per_class: int, least: float, what: str) -> Claim:
    """The kernel predictor is at least so accurate."""
    started, made, random = time.perf_counter(), [], []
    for seed, data in enumerate(sets):
        synthetic = distilled(method, data, per_class, seed)
        made.append(predicted(synthetic, data.test))
        random.append(real(synthetic, data, per_class, seed))
    text = f"the kernel predictor of {what} is right on at least {least:g} % of the test images"
    mean, baseline = sum(made) / len(made), sum(random) / len(random)
    return claim(text, made, baseline, mean >= least, "% test accuracy", time.perf_counter() - started)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    small: list[Splits] = [digits(seed) for seed in range(seeds)]
    large: list[Splits] = [mnist()]
    cases: list[tuple[Any, ...]] = [
        (DIGITS, small, 1, 90.0, "1 digit a class made by kip"),
        (DIGITS, small, 10, 97.0, "10 digits a class made by kip"),
        (SOLVED, small, 1, 75.0, "1 real digit a class with solved labels"),
        (SOLVED, small, 10, 95.0, "10 real digits a class with solved labels"),
        (MNIST, large, 1, 85.5, "1 MNIST digit a class made by kip"),
        (MORE, large, 10, 95.0, "10 MNIST digits a class made by kip in 600 iterations"),
    ]
    found = [infinite(*case) for case in cases]
    for per_class, gain in ((1, 15.0), (10, 4.0)):
        found += beats_random(DIGITS, digits(), per_class, gain, seeds=1, networks=3)
    return found


if __name__ == "__main__":
    for one in run():
        print(one)
