"""The common protocol of the claims on learning from unlabeled texts: SST-2 with its 2,000 most frequent words, a
transformer of one block of width 64, for every learner the compute of ten epochs of masked language modeling. Two linear
probes on the mean of the states of the tokens: polarity, and whether two neighboring words were exchanged (which no bag
of words can tell)."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from protocol import claim

import modicum
from modicum.context import Context, generator
from modicum.dataset import Dataset, Splits
from modicum.evidence import Claim
from modicum.ledger import Ledger
from modicum.pretraining import linear_probe, pretrain
from modicum.pretraining.learner import backbone_for
from modicum.training.evaluate import forward
from modicum.training.recipe import Recipe

__all__ = ["EPOCHS", "RECIPE", "Outcome", "claims", "equal_compute", "exchanged", "few_words", "texts", "untrained"]

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
EPOCHS, WORDS = 10, 2000
RECIPE = Recipe(
    "transformer(width=64, heads=4, layers=1)", epochs=EPOCHS, batch_size=64, optimizer="adamw", lr=3e-3,
    weight_decay=0.01, warmup=0.1, schedule="one-cycle",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What an encoder is worth.

    Args:
        polarity: Test accuracy of a linear probe in percent.
        order: The same, of telling texts with two exchanged words from those as written.
        flops: Of learning.
        learner: What was trained.
    """

    polarity: float
    order: float
    flops: int = 0
    learner: Any = None


def few_words(data: Dataset, words: int = WORDS) -> Dataset:
    """The same texts with all but the most frequent words unknown."""
    info = replace(data.info, vocabulary=data.info.vocabulary[:words])
    return data.replace(inputs=data.inputs.masked_fill(data.inputs >= words, 1), info=info)


@functools.cache
def texts() -> Splits:
    """SST-2, with the test sentences as test split."""
    return Splits(*(few_words(part) for part in modicum.load(SHARED / "sst2")))


def exchanged(data: Dataset, seed: int) -> Dataset:
    """Texts of at least four words, in half of which two neighboring words, unlike each other, are exchanged."""
    draw, x = generator(seed, "exchange"), data.inputs.clone()
    unlike = (x[:, 1:] != x[:, :-1]) & (x[:, 1:] != 0)
    kept = unlike.sum(1) >= 3
    x, unlike = x[kept], unlike[kept]
    at = torch.rand(unlike.shape, generator=draw).masked_fill(~unlike, -1).argmax(1)
    rows = (torch.rand(len(x), generator=draw) < 0.5).nonzero().flatten()
    first, second = x[rows, at[rows]], x[rows, at[rows] + 1]
    x[rows, at[rows]], x[rows, at[rows] + 1] = second, first
    labels = torch.zeros(len(x), dtype=torch.int64).index_fill(0, rows, 1)
    return Dataset(x, labels, info=replace(data.info, classes=("as written", "exchanged")))


def outcome(encoder: Any, data: Splits, flops: int = 0, learner: Any = None) -> Outcome:
    """Both probes."""
    found = []
    for train, test in ((data.train, data.test), (exchanged(data.train, 0), exchanged(data.test, 1))):
        a, b = (forward(encoder, part, Context()) for part in (train, test))
        found.append(100 * float(linear_probe(a, train.labels, b, test.labels)))
    return Outcome(found[0], found[1], flops, learner)


@functools.cache
def untrained(seeds: int = 3) -> tuple[Outcome, ...]:
    """The probes on encoders with initial weights, one for each seed."""
    data = texts()
    return tuple(outcome(backbone_for(RECIPE, data.train, seed).eval(), data) for seed in range(seeds))


def flops_of(method: str, steps: int) -> int:
    """FLOPs of so many steps."""
    ledger = Ledger()
    pretrain(texts(), method, replace(RECIPE, steps=steps), Context(ledger=ledger))
    return ledger.total().flops


@functools.cache
def equal_compute(method: str, seeds: int = 3) -> tuple[Outcome, ...]:
    """A learner within the compute of the protocol, generator and discriminator counted, once for each seed."""
    data = texts()
    whole = EPOCHS * (len(data.train) // RECIPE.batch_size) * flops_of("masked-lm", 1)
    recipe = replace(RECIPE, steps=max(1, whole // flops_of(method, 1)))
    found = []
    for seed in range(seeds):
        done = pretrain(data, method, recipe, Context(seed=seed))
        found.append(outcome(done.encoder, data, done.ledger.total().flops, done.learner))
    return tuple(found)


def claims(method: str, seeds: int = 3) -> list[Claim]:
    """The representation tells more about a text than that of the untrained network."""
    started = time.perf_counter()
    found, before = equal_compute(method, seeds), untrained(seeds)
    seconds = time.perf_counter() - started
    where = f"SST-2, {WORDS:,} words, compute of {EPOCHS} epochs of masked language modeling"
    made = []
    for what, name in (("whether two words were exchanged", "order"), ("the polarity", "polarity")):
        values = [getattr(each, name) for each in found]
        base = sum(getattr(each, name) for each in before) / len(before)
        holds = sum(values) / len(values) > base
        text = f"A linear probe tells {what} better than on the untrained network ({where})"
        made.append(claim(text, values, base, holds, "% accuracy", seconds))
        seconds = 0.0
    return made
