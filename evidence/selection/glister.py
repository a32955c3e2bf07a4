"""GLISTER on digits with wrong labels: 300 of 1,000 samples, 40 % of them mislabeled, chosen by 200 clean ones."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch
from protocol import claim

from modicum.evidence import Claim
from modicum.selection import glister

TRAIN, VALID, KEEP, RATE = 1000, 200, 300, 0.01
Array = np.ndarray[Any, np.dtype[Any]]


def learner(x: Array, y: Array) -> Any:
    """Multinomial logistic regression with an L2 penalty of 1e-2 on the mean loss."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1 / (1e-2 * len(x)), max_iter=2000).fit(x, y)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    from sklearn.datasets import load_digits

    started, seeds = time.perf_counter(), max(seeds, 5)
    right: dict[str, list[float]] = {"15": [], "1": [], "random": []}
    wrong: dict[str, list[float]] = {"15": [], "1": [], "random": []}
    images, labels = load_digits(return_X_y=True)
    for seed in range(seeds):
        draw = np.random.default_rng(seed)
        order = draw.permutation(len(images))
        x, y = images[order].astype(np.float64), labels[order].astype(np.int64)
        mean, deviation = x[:TRAIN].mean(0), x[:TRAIN].std(0)
        x = (x - mean) / np.where(deviation > 0, deviation, 1)
        noisy, flipped = y[:TRAIN].copy(), np.zeros(TRAIN, dtype=bool)
        flipped[draw.choice(TRAIN, round(0.4 * TRAIN), replace=False)] = True
        noisy[flipped] = (noisy[flipped] + draw.integers(1, 10, flipped.sum())) % 10
        model = learner(x[:TRAIN], noisy)
        h = np.hstack([x, np.ones((len(x), 1))])
        valid, test = slice(TRAIN, TRAIN + VALID), slice(TRAIN + VALID, None)
        e = model.predict_proba(x[:TRAIN]) - np.eye(10)[noisy]
        logits = torch.from_numpy(model.decision_function(x[valid]))
        chosen = {"random": draw.permutation(TRAIN)[:KEEP]}
        for rounds in (15, 1):
            picks, _ = glister((e, h[:TRAIN]), logits.numpy(), h[valid], y[valid], KEEP, RATE, rounds)
            chosen[str(rounds)] = picks
        for name, kept in chosen.items():
            wrong[name].append(100 * float(flipped[kept].mean()))
            right[name].append(100 * float(learner(x[kept], noisy[kept]).score(x[test], y[test])))
    seconds = time.perf_counter() - started
    means = {name: statistics.mean(values) for name, values in right.items()}
    return [
        claim(
            "15 rounds beat random samples by 8 points",
            right["15"],
            means["random"],
            means["15"] > means["random"] + 8,
            "% test accuracy",
            seconds,
        ),
        claim(
            "they beat one round, the static choice, which serves a few classes",
            right["15"],
            means["1"],
            means["15"] > means["1"],
            "% test accuracy",
            seconds,
        ),
        claim(
            "of 40 % wrong labels less than 15 % are left among the chosen",
            wrong["15"],
            statistics.mean(wrong["random"]),
            statistics.mean(wrong["15"]) < 15,
            "% wrong labels",
            seconds,
        ),
    ]
