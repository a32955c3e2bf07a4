"""SqrtKL on CIFAR-10 and MNIST at equal compute: each of its three parts on and off, the methods it wants to beat, and plain entropy
maximization, whose gradient the released loss has. The head is as narrow as the encoder is small."""

from __future__ import annotations

import itertools
import statistics

from pretraining_of import Outcome, claims, equal_compute
from protocol import claim

from modicum.evidence import Claim

__all__ = ["METHOD", "SHARE", "run"]

METHOD = "sqrtkl(hidden=256)"
SHARE = 0.5  # of the common budget, for all but the common claims: the parts are to help early
PARTS = {
    "bank_init": ("Starting the bank with the untrained network's features", "features", "random"),
    "bank_update": ("Moving the bank along the whole gradient", "grad", "ema"),
    "parts": ("The SqrtKL loss", "both", "none"),
}


def variant(**options: str) -> str:
    """The method with other parts."""
    return f"{METHOD[:-1]}, {', '.join(f'{name}={value!r}' for name, value in options.items())})"


FULL = variant(bank_init="features", bank_update="grad", parts="both")  # the text of the ablation, so that it runs once


def measured(method: str, seeds: int) -> tuple[Outcome, ...]:
    """At the smaller budget."""
    return equal_compute(method, "cifar10", seeds, SHARE)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    return [*claims(METHOD, seeds), *claims(METHOD, seeds, "mnist"), *ablation(seeds), *rivals(seeds)]


def ablation(seeds: int) -> list[Claim]:
    """Each part on against off, averaged over the settings of the two others; and half the weight on plain entropy."""
    grid = [
        dict(zip(PARTS, chosen, strict=True)) for chosen in itertools.product(*(pair[1:] for pair in PARTS.values()))
    ]
    accuracy = {tuple(options.values()): [f.knn for f in measured(variant(**options), seeds)] for options in grid}
    found = []
    for at, (what, on, off) in enumerate(PARTS.values()):
        with_it, without = (
            [statistics.mean(a) for a in zip(*(v for k, v in accuracy.items() if k[at] == setting), strict=True)]
            for setting in (on, off)
        )
        baseline = statistics.mean(without)
        text = f"{what} raises k-NN accuracy, averaged over the other two parts on and off"
        better = statistics.mean(with_it) > baseline
        found.append(claim(text, with_it, baseline, better, "% k-NN accuracy", 0.0))
    plain = measured(variant(parts="plain"), seeds)
    values, baseline = [f.knn for f in plain], statistics.mean(accuracy["features", "grad", "both"])
    text = "Plain entropy maximization with half the weight is within 1 point of SqrtKL: their gradients are equal"
    same = abs(statistics.mean(values) - baseline) <= 1
    return [*found, claim(text, values, baseline, same, "% k-NN accuracy", sum(f.seconds for f in plain))]


def rivals(seeds: int) -> list[Claim]:
    """Against the methods it is compared with in the paper, at equal compute."""
    mine, found = measured(FULL, seeds), []
    for rival, name in (
        ("npid(hidden=256)", "NPID"),
        ("moco-v2(hidden=256)", "MoCo-v2"),
        ("simclr(hidden=256)", "SimCLR"),
    ):
        theirs = measured(rival, seeds)
        values, baseline = [f.knn for f in mine], statistics.mean(f.knn for f in theirs)
        text = f"k-NN accuracy is above that of {name} at half of the common compute"
        better = statistics.mean(values) > baseline
        found.append(claim(text, values, baseline, better, "% k-NN accuracy", sum(f.seconds for f in theirs)))
    return found
