"""Accuracies on digits of a selection by features against the harder control, a random subset of every class."""

from __future__ import annotations

import statistics
import time
from typing import Any

from protocol import claim
from selection_of import RECIPE, accuracy

import modicum
from modicum.context import Context
from modicum.evidence import Claim
from modicum.methods import make
from modicum.scores import Budget

__all__ = ["against_stratified"]


def _kept(method: str, data: Any, per_class: int, seed: int) -> Any:
    made, ctx = make(method), Context(seed=seed)
    measured = (need.measure(data, RECIPE, ctx) for need in made.needs())
    return made.select(data, Budget(per_class=per_class), ctx, *measured).positions


def against_stratified(method: str, per_class: int, text: str, seeds: int, better: bool = True) -> Claim:
    """The claim that training on the selection is better, or worse, than on as many random samples of every class."""
    started, ours, chance = time.perf_counter(), [], []
    for seed in range(seeds):
        data = modicum.load("digits", seed=seed)
        ours.append(accuracy(data, _kept(method, data, per_class, seed), seed))
        chance.append(accuracy(data, _kept("stratified", data, per_class, seed), seed))
    difference = statistics.mean(ours) - statistics.mean(chance)
    holds = difference > 0 if better else difference < 0
    return claim(text, ours, statistics.mean(chance), holds, "% test accuracy", time.perf_counter() - started)
