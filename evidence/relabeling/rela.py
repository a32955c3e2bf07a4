"""RELA around BYOL on 4,000 CIFAR-10 images, at 10, 20 and 50 % of the steps of 12 epochs, with the scaled switch.

Priors: the student's own untrained network; the same architecture trained on 4,000 MNIST digits; the same trained
without labels on 4,000 other CIFAR-10 images. What training a prior cost is not counted, because it is what a user finds
for free; its pass over the data and the whitening are. Beside them what a sceptic asks for: the prior's own features,
targets for the whole run, targets of the wrong samples.
"""

from __future__ import annotations

import functools
import time
from dataclasses import replace

import torch
from pretraining_of import AUGMENT, FILES, NEIGHBORS, RECIPE, TRAIN, Outcome, images, learn
from protocol import claim

import modicum
from modicum.context import Context
from modicum.dataset import Splits
from modicum.evidence import Claim
from modicum.pretraining import pretrain
from modicum.pretraining.probes import knn_probe
from modicum.relabeling import Prior, Rela, relabel
from modicum.training.fit import fit

__all__ = ["run"]

EPOCHS = 12
BASE = f"byol(hidden=256, final_momentum=None, augment={AUGMENT!r})"
SCHEDULE = replace(RECIPE, epochs=EPOCHS, schedule="constant")
PRIOR_SEED = 1000


@functools.cache
def prior_of(name: str) -> str | Prior:
    """The prior of a name, trained where it has to be."""
    ctx = Context(seed=PRIOR_SEED)
    if name == "mnist":
        return Prior(fit(images("mnist").train, replace(RECIPE, epochs=3), ctx).model, name, (1, 28, 28))
    if name == "cifar10":
        others = modicum.load(FILES["cifar10"], limit=None, label="label").train[TRAIN : 2 * TRAIN]
        data = Splits(others, others[:0], others[:0])
        return Prior(pretrain(data, "simclr(hidden=256)", RECIPE, ctx).encoder, name)
    return name


def method(prior: str = "untrained", switch: str = "scaled", shuffled: int | None = None) -> Rela:
    """The learner of a prior; `shuffled` is the seed of targets that belong to other samples."""
    chosen = prior_of(prior)
    if shuffled is None:
        return Rela(base=BASE, prior=chosen, switch=switch)
    right = relabel(images(), chosen)  # as wide as the student, whose architecture it has
    order = torch.randperm(len(right), generator=Context(seed=shuffled).generator("shuffle"))
    return Rela(base=BASE, prior=right.replace(targets=right.targets[order]), switch=switch)


@functools.cache
def learned(share: float, seed: int, prior: str = "", switch: str = "scaled", shuffled: bool = False) -> Outcome:
    """One run; without a prior the base."""
    if not prior:
        return learn(BASE, images(), seed, SCHEDULE, share=share)
    return learn(method(prior, switch, seed if shuffled else None), images(), seed, SCHEDULE, share=share)


def knn(seeds: int, share: float, *args: str, **options: bool) -> list[float]:
    """k-NN accuracy in percent, a number a seed."""
    return [learned(share, seed, *args, **options).knn for seed in range(seeds)]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def direct(name: str) -> float:
    """k-NN accuracy in percent of the prior's own features."""
    prior, data = prior_of(name), images()
    assert isinstance(prior, Prior)
    a, b = (prior.features(part, Context()) for part in (data.train, data.test))
    return 100 * float(knn_probe(a, data.train.labels, b, data.test.labels, k=NEIGHBORS))


def run(seeds: int = 3) -> list[Claim]:
    """Better than the base after as many steps, for no more compute; not without the right targets."""
    found = []
    for share in (0.1, 0.2, 0.5):
        for prior in ("untrained", "mnist", "cifar10"):
            started = time.perf_counter()
            base, ours = knn(seeds, share), knn(seeds, share, prior)
            found.append(
                claim(
                    f"k-NN accuracy is above that of BYOL with a prior {prior!r} at {100 * share:.0f} % of the steps",
                    ours, mean(base), mean(ours) > mean(base), "% accuracy", time.perf_counter() - started,
                )
            )  # fmt: skip
    started = time.perf_counter()
    ours, wrong = knn(seeds, 0.2, "cifar10"), knn(seeds, 0.2, "cifar10", shuffled=True)
    always, own = knn(seeds, 0.5, "cifar10", "always"), direct("cifar10")
    half = knn(seeds, 0.5, "cifar10")
    cost = [learned(0.2, seed, "cifar10").flops / learned(0.2, seed).flops for seed in range(seeds)]
    seconds = time.perf_counter() - started
    return [
        *found,
        claim(
            "FLOPs at 20 % of the steps, the prior's pass and the whitening included, are not above those of BYOL",
            cost, 1.0, mean(cost) <= 1, "of BYOL", seconds,
        ),
        claim(
            "Targets of the wrong samples are worse than the right ones (measured: wrong, baseline: right; 20 %)",
            wrong, mean(ours), mean(wrong) < mean(ours), "% accuracy", 0.0,
        ),
        claim(
            "Better than the prior's own features at 50 % of the steps",
            half, own, mean(half) > own, "% accuracy", 0.0,
        ),
        claim(
            "Leaving the targets is better than staying with them at 50 % of the steps",
            half, mean(always), mean(half) > mean(always), "% accuracy", 0.0,
        ),
    ]  # fmt: skip
