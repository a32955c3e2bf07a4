"""Test accuracy on MNIST after training on few of 10,000 images, always for as many steps, with right labels or a fifth of
them wrong; scores come from one training of six epochs of the same small network."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

import modicum
from modicum.context import Context
from modicum.dataset import Splits
from modicum.measurement.features import Features, FeatureTable
from modicum.methods import make
from modicum.scores import Budget, Scores, Selection
from modicum.selection.scored import Scored
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

__all__ = ["KEEP", "accuracy", "chosen", "encoded", "mnist", "scored"]

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
MODEL, TRAIN, KEEP = "mlp(hidden=128, layers=1)", 10_000, 0.05
PROXY = Recipe(model=MODEL, epochs=6, batch_size=64, lr=0.05)
STUDENT = Recipe(model=MODEL, steps=900, batch_size=64, lr=0.05)


@functools.cache
def mnist(seed: int, share: float = 0.0) -> Splits:
    """Splits whose training labels are wrong for a share of the samples."""
    data = modicum.load(SHARED / "mnist.npz", limit=TRAIN)
    draw = torch.Generator().manual_seed(seed)
    labels = data.train.labels.clone()
    wrong = torch.randperm(len(labels), generator=draw)[: round(share * len(labels))]
    labels[wrong] = (labels[wrong] + torch.randint(1, 10, (len(wrong),), generator=draw)) % 10
    return Splits(data.train.replace(targets=labels), data.valid, data.test[:2000])


@functools.cache
def scored(method: str, seed: int, share: float = 0.0) -> Scores:
    """The scores of a valuation."""
    return Scored(method).measure(mnist(seed, share), PROXY, Context(seed=seed))


@functools.cache
def encoded(seed: int, share: float = 0.0) -> FeatureTable:
    """Features of the network after two of the six epochs."""
    return Features("trained", 1 / 3).measure(mnist(seed, share), PROXY, Context(seed=seed))


def chosen(method: str, seed: int, share: float = 0.0, *, score: str = "", features: bool = False) -> Selection:
    """What a selection keeps of the data."""
    tables = (*((scored(score, seed, share),) if score else ()), *((encoded(seed, share),) if features else ()))
    return make(method).select(mnist(seed, share), Budget(keep=KEEP), Context(seed=seed), *tables)


def accuracy(selection: Selection, seed: int, share: float = 0.0) -> float:
    """Percent of the test samples that are classified right after training on the kept samples."""
    data = mnist(seed, share)
    return 100 * fit(selection.taken_from(data.train), STUDENT, Context(seed=seed)).evaluate(data.test).score
