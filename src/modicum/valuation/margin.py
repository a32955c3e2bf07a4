"""Uncertainty of a trained model: margin, entropy and least confidence. No label is needed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from modicum.arrays import Array, back, probabilities_of
from modicum.methods import Card
from modicum.reading import labels_of, recorded
from modicum.scores import Scores
from modicum.training.outputs import confidence_gap
from modicum.valuation.spread import mean_and_error

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.traces import Traces

__all__ = ["Margin", "entropy", "least_confidence", "margin"]


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
    return _mean(1 - confidence_gap(checked), probabilities)


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
    return _mean(nats / math.log(checked.shape[-1]) if normalize else nats, probabilities)


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
    return _mean(1 - checked.amax(-1), probabilities)


def _mean(scores: torch.Tensor, like: Array) -> Array:
    return back((scores.mean(0) if scores.ndim == 2 else scores).cpu().numpy(), like)


@dataclass(frozen=True)
class Margin:
    """Samples between two classes are worth most to a model that has learned the rest.

    Args:
        runs: Training runs that are averaged.
        until: Share of the training run after which the probabilities are taken.
    """

    runs: int = 1
    until: float = 0.2

    card: ClassVar[Card] = Card(
        key="margin",
        title="How close the two most probable classes are",
        paper="Coleman et al., Selection via Proxy, 2020, arXiv 1906.11829",
        saves=("samples", "labels"),
    )

    def needs(self) -> tuple[Traces]:
        """Traces up to where the probabilities are taken."""
        from modicum.measurement.traces import Traces

        return (Traces(self.runs, self.until),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """One less the mean gap over runs, with its standard error."""
        labels = labels_of("train", data.train, classes=2)
        with ctx.ledger.clock("choose", self.card.key):
            gaps, errors = mean_and_error(recorded("gap", measured[0].gap, data.train, epochs=False))
        return Scores(
            1 - gaps, data.train.ids, self.card.key, "difficulty", "probability", labels.numpy(), errors=errors
        )
