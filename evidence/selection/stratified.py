"""A stratified subset: exact class proportions, which help where a class has only a few samples."""

from __future__ import annotations

import statistics
import time

import torch
from protocol import claim
from selection_of import accuracy

import modicum
from modicum.context import Context
from modicum.evidence import Claim
from modicum.scores import Budget
from modicum.selection import Random, Stratified

KEEP = 30
DRAWS = 4


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started = time.perf_counter()
    balanced, plain, off, off_plain = [], [], [], []
    for seed in range(seeds):
        data = modicum.load("digits", seed=seed)
        share = KEEP * torch.bincount(data.train.labels).double() / len(data.train)
        for draw in range(DRAWS):
            ctx = Context(seed=100 * seed + draw)
            for method, scored, counted in ((Stratified(), balanced, off), (Random(), plain, off_plain)):
                keep = method.select(data, Budget(keep=KEEP), ctx).positions
                scored.append(accuracy(data, keep, ctx.seed))
                counts = torch.bincount(data.train.labels[torch.from_numpy(keep)], minlength=10)
                counted.append(float((counts - share).abs().max()))
    seconds = time.perf_counter() - started
    return [
        claim(
            "no class is off its share by a whole sample",
            off,
            statistics.mean(off_plain),
            max(off) < 1,
            "samples",
            seconds,
        ),
        claim(
            f"{KEEP} stratified digits train better than {KEEP} random ones",
            balanced,
            statistics.mean(plain),
            statistics.mean(balanced) > statistics.mean(plain),
            "% test accuracy",
            seconds,
        ),
    ]
