"""Least confidence: what the most probable class of a trained model leaves. No label is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from modicum.arrays import Array, probabilities_of
from modicum.methods import Card
from modicum.reading import labels_of, recorded
from modicum.scores import Order, Scores
from modicum.valuation.spread import mean_and_error, mean_of_runs

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.traces import Traces

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
class LeastConfidence:
    """Samples whose best guess is unsure are worth most to a model that has learned the rest.

    Args:
        runs: Training runs that are averaged.
        until: Share of the training run after which the probabilities are taken.
        deepcore_compat: Keep the surest first, as DeepCore's released code does when it does not balance classes.
    """

    runs: int = 1
    until: float = 0.2
    deepcore_compat: bool = False

    card: ClassVar[Card] = Card(
        key="least-confidence",
        title="What the most probable class of a young model leaves",
        paper="Lewis, Gale, A Sequential Algorithm for Training Text Classifiers, 1994, arXiv cmp-lg/9407020; "
        "Coleman et al., Selection via Proxy, 2020, arXiv 1906.11829",
        saves=("samples", "labels"),
    )

    def needs(self) -> tuple[Traces]:
        """Traces up to where the probabilities are taken."""
        from modicum.measurement.traces import Traces

        return (Traces(self.runs, self.until),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """One less the mean of the highest probability over runs, with its standard error."""
        labels = labels_of("train", data.train, classes=2)
        with ctx.ledger.clock("choose", self.card.key):
            tops, errors = mean_and_error(recorded("top", measured[0].top, data.train, epochs=False))
        order: Order = "easiest" if self.deepcore_compat else "hardest"
        return Scores(
            1 - tops, data.train.ids, self.card.key, "difficulty", "probability", labels.numpy(), order, errors
        )
