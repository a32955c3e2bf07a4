"""Entropy: how undecided a trained model is between all classes. No label is needed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from modicum.arrays import Array, probabilities_of
from modicum.methods import Card
from modicum.valuation.spread import mean_of_runs
from modicum.valuation.uncertainty import Uncertainty

__all__ = ["Entropy", "entropy"]


def entropy(probabilities: Array, normalize: bool = False) -> Array:
    """The entropy of the predicted classes: `-sum_c p_c log p_c`, with 0 log 0 = 0.

    Args:
        probabilities: (n, c), or (runs, n, c) of several models, which are averaged; rows sum to 1.
        normalize: Divide by log c.

    Returns:
        (n,) difficulties from 0 (sure) to log c nats, or to 1.

    Raises:
        DataError: Another shape, fewer than two classes, or rows that do not sum to 1.

    Example:
        >>> import numpy as np
        >>> entropy(np.array([[0.5, 0.5], [0.0, 1.0]]), normalize=True).tolist()
        [1.0, 0.0]

    Reference:
        Lewis, Gale, A Sequential Algorithm for Training Text Classifiers, 1994, arXiv cmp-lg/9407020.
    """
    checked = probabilities_of(probabilities, (2, 3), "(n, c) or (runs, n, c)")
    nats = torch.special.entr(checked).sum(-1)
    return mean_of_runs(nats / math.log(checked.shape[-1]) if normalize else nats, probabilities)


@dataclass(frozen=True)
class Entropy(Uncertainty):
    """Samples that a proxy model cannot place are worth most to a model that has learned the rest.

    Args:
        runs: Training runs that are averaged.
        until: Share of the training run after which the probabilities are taken.
        deepcore_compat: Keep the surest first, as DeepCore's released code does when it does not balance classes.
    """

    card: ClassVar[Card] = Card(
        key="entropy",
        title="How undecided a young model is between all classes",
        paper="Lewis, Gale, A Sequential Algorithm for Training Text Classifiers, 1994, arXiv cmp-lg/9407020; "
        "Coleman et al., Selection via Proxy, 2020, arXiv 1906.11829",
        saves=("samples", "labels"),
    )
    column: ClassVar[str] = "entropy"
    unit: ClassVar[str] = "nats"
