"""Least confidence: what the most probable class of a trained model leaves. No label is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from modicum.arrays import Array, NumPy, probabilities_of
from modicum.methods import Card
from modicum.valuation.spread import mean_of_runs
from modicum.valuation.uncertainty import Uncertainty

__all__ = ["LeastConfidence", "least_confidence"]


def least_confidence(probabilities: Array) -> Array:
    """What the most probable class leaves: `1 - max_c p_c`.

    Args:
        probabilities: (n, c), or (runs, n, c) of several models, which are averaged; rows sum to 1.

    Returns:
        (n,) difficulties from 0 (sure) to 1 - 1/c (undecided).

    Raises:
        DataError: Another shape, fewer than two classes, or rows that do not sum to 1.

    Example:
        >>> import numpy as np
        >>> least_confidence(np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])).tolist()
        [0.5, 0.0]

    Reference:
        Lewis, Gale, A Sequential Algorithm for Training Text Classifiers, 1994, arXiv cmp-lg/9407020.
    """
    checked = probabilities_of(probabilities, (2, 3), "(n, c) or (runs, n, c)")
    return mean_of_runs(1 - checked.amax(-1), probabilities)


@dataclass(frozen=True)
class LeastConfidence(Uncertainty):
    """Samples whose best guess is unsure are worth most to a model that has learned the rest.

    Args:
        runs: Training runs that are averaged.
        until: Share of the training run after which the probabilities are taken.
        deepcore_compat: Keep the surest first, as DeepCore's released code does when it does not balance classes.
    """

    card: ClassVar[Card] = Card(
        key="least-confidence",
        title="What the most probable class of a young model leaves",
        paper="Lewis, Gale, A Sequential Algorithm for Training Text Classifiers, 1994, arXiv cmp-lg/9407020; "
        "Coleman et al., Selection via Proxy, 2020, arXiv 1906.11829",
        saves=("samples", "labels"),
    )
    column: ClassVar[str] = "top"

    @staticmethod
    def difficulty(column: NumPy) -> NumPy:
        """What is left of one."""
        return 1 - column
