"""Margin: how close the two most probable classes of a trained model are. No label is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from modicum.arrays import Array, NumPy, probabilities_of
from modicum.methods import Card
from modicum.training.outputs import confidence_gap
from modicum.valuation.spread import mean_of_runs
from modicum.valuation.uncertainty import Uncertainty

__all__ = ["Margin", "margin"]


def margin(probabilities: Array) -> Array:
    """How close the two most probable classes are: `1 - (p_(1) - p_(2))`.

    Args:
        probabilities: (n, c), or (runs, n, c) of several models, which are averaged; rows sum to 1.

    Returns:
        (n,) difficulties from 0 (sure) to 1 (undecided).

    Raises:
        DataError: Another shape, fewer than two classes, or rows that do not sum to 1.

    Example:
        >>> import numpy as np
        >>> margin(np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])).tolist()
        [0.75, 0.0]

    Reference:
        Coleman et al., Selection via Proxy, 2020, arXiv 1906.11829.
    """
    checked = probabilities_of(probabilities, (2, 3), "(n, c) or (runs, n, c)")
    return mean_of_runs(1 - confidence_gap(checked), probabilities)


@dataclass(frozen=True)
class Margin(Uncertainty):
    """Samples between two classes are worth most to a model that has learned the rest.

    Args:
        runs: Training runs that are averaged.
        until: Share of the training run after which the probabilities are taken.
        deepcore_compat: Keep the surest first, as DeepCore's released code does when it does not balance classes.
    """

    card: ClassVar[Card] = Card(
        key="margin",
        title="How close the two most probable classes are",
        paper="Coleman et al., Selection via Proxy, 2020, arXiv 1906.11829",
        saves=("samples", "labels"),
    )
    column: ClassVar[str] = "gap"

    @staticmethod
    def difficulty(column: NumPy) -> NumPy:
        """What is left of one."""
        return 1 - column
