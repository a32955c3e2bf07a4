"""The common protocol of the claims on noisy labels: digits, 300 training, 300 validation and the rest test samples,
standardized, a fifth of the training labels replaced by a random other class, and a multinomial logistic regression
with an L2 penalty of 1e-2 on the mean loss."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

import numpy as np
import torch

from modicum.dataset import Dataset, Info, Splits
from modicum.evidence import Claim

__all__ = ["Noisy", "accuracy_of", "as_splits", "auroc", "claim", "logistic", "noisy_digits"]

Array = np.ndarray[Any, np.dtype[Any]]


class Noisy(NamedTuple):
    """Digits with wrong labels in the training part."""

    x: Array
    y: Array
    valid_x: Array
    valid_y: Array
    test_x: Array
    test_y: Array
    flipped: Array


def noisy_digits(seed: int, train: int = 300, valid: int = 300, share: float = 0.2) -> Noisy:
    """The data of the protocol."""
    from sklearn.datasets import load_digits

    draw = np.random.default_rng(seed)
    images, labels = load_digits(return_X_y=True)
    order = draw.permutation(len(images))
    images, labels = images[order], labels[order].astype(np.int64)
    mean, std = images[:train].mean(0), images[:train].std(0)
    x = ((images - mean) / np.where(std > 0, std, 1)).astype(np.float32)
    y = labels[:train].copy()
    flipped = np.zeros(train, dtype=bool)
    flipped[draw.choice(train, round(share * train), replace=False)] = True
    y[flipped] = (y[flipped] + draw.integers(1, 10, flipped.sum())) % 10
    a, b = train, train + valid
    return Noisy(x[:a], y, x[a:b], labels[a:b], x[b:], labels[b:], flipped)


def as_splits(data: Noisy) -> Splits:
    """The same data as data sets."""
    info = Info(classes=tuple("0123456789"), source="digits with wrong labels")
    pairs = ((data.x, data.y), (data.valid_x, data.valid_y), (data.test_x, data.test_y))
    return Splits(*(Dataset(torch.from_numpy(x), torch.from_numpy(y), info=info) for x, y in pairs))


def logistic(x: Array, y: Array) -> Any:
    """The learner of the protocol; scikit-learn's C multiplies the sum of the losses."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1 / (1e-2 * len(x)), max_iter=2000).fit(x, y)


def accuracy_of(data: Noisy, keep: Array) -> float:
    """Test accuracy in percent of the learner on the kept samples."""
    return 100 * float(logistic(data.x[keep], data.y[keep]).score(data.test_x, data.test_y))


def auroc(difficulty: Array, flipped: Array) -> float:
    """How well a high number tells a flipped label."""
    from sklearn.metrics import roc_auc_score

    finite = np.where(np.isinf(difficulty), np.finfo(np.float32).max, difficulty)
    return float(roc_auc_score(flipped, finite))


def claim(text: str, values: list[float], baseline: float, holds: bool, unit: str, seconds: float) -> Claim:
    """A claim from what was measured once a seed."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return Claim(text, statistics.mean(values), deviation, len(values), baseline, bool(holds), unit, seconds)
