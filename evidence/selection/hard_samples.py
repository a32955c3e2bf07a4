"""Hard samples on MNIST, 6,000 images, a perceptron, 8 epochs, batches of 64, five seeds: the accuracy at as many updates
as plain training on the same fixed batches, beside random batches in every round; with a fifth of the labels wrong; and
the seconds that are saved when an epoch is a round."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import torch
from protocol import claim
from torch import Tensor
from while_training_of import mnist, saving

from modicum.context import Context, generator
from modicum.dataset import Splits
from modicum.evidence import Claim
from modicum.selection import HardBatchSampler
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

EPOCHS = 8
RECIPE = Recipe(model="mlp(hidden=64)", epochs=EPOCHS, batch_size=64, lr=0.05)


class RandomBatches(HardBatchSampler):
    """As many of the same batches in every round, drawn at random: the control."""

    def order(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        """All batches at first, then a random share of them in the order of the partition."""
        count = len(self.batches)
        drawn = torch.randperm(count, generator=generator(self.seed, "control", epoch))[: self.each_round]
        return torch.cat([self.batches[b] for b in (sorted(drawn.tolist()) if epoch else range(count))]), None


def accuracy(data: Splits, delta: float, seed: int, kind: type[HardBatchSampler] = HardBatchSampler) -> float:
    """Percent right after the updates of `EPOCHS` plain epochs."""
    recipe = replace(RECIPE, epochs=1 + (EPOCHS - 1) / delta)
    sampler = kind(len(data.train), RECIPE.batch_size, None, delta, seed)
    return 100 * fit(data.train, recipe, Context(seed=seed), sampler=sampler).evaluate(data.test).score


def noisy(data: Splits, seed: int, share: float = 0.2) -> Splits:
    """A share of the training labels is another one."""
    draw, n = generator(seed, "noise"), len(data.train)
    wrong = torch.randperm(n, generator=draw)[: round(share * n)]
    labels = data.train.labels.clone()
    labels[wrong] = (labels[wrong] + torch.randint(1, 10, (len(wrong),), generator=draw)) % 10
    return data._replace(train=data.train.replace(targets=labels))


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started, count = time.perf_counter(), max(seeds, 5)
    data = mnist(6_000)
    at = {delta: [accuracy(data, delta, seed) for seed in range(count)] for delta in (1.0, 0.8, 0.5, 0.2)}
    control = [accuracy(data, 0.5, seed, RandomBatches) for seed in range(count)]
    wrong = {d: [accuracy(noisy(data, seed), d, seed) for seed in range(count)] for d in (1.0, 0.2)}
    seconds, unit = time.perf_counter() - started, "% test accuracy"
    means = {delta: statistics.mean(values) for delta, values in at.items()}
    plain, few = statistics.mean(wrong[1.0]), statistics.mean(wrong[0.2])
    near = abs(means[0.8] - means[1.0]) <= 1
    return [
        claim("delta = 0.8 within a point of all batches at equal updates", at[0.8], means[1.0], near, unit, seconds),
        claim(
            "delta = 0.5 better than all batches at equal updates",
            at[0.5],
            means[1.0],
            means[0.5] > means[1.0],
            unit,
            seconds,
        ),
        claim(
            "delta = 0.5 better than random batches at equal updates",
            at[0.5],
            statistics.mean(control),
            means[0.5] > statistics.mean(control),
            unit,
            seconds,
        ),
        claim(
            "with a fifth of the labels wrong, delta = 0.2 is worse than all batches",
            wrong[0.2],
            plain,
            few < plain,
            unit,
            seconds,
        ),
        *saving("hard-samples", seeds),
    ]
