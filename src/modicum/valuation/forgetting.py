"""Forgetting events: how often a sample that was learned is lost again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from modicum.arrays import Array, back, to_numpy
from modicum.errors import DataError
from modicum.methods import Card
from modicum.reading import by_id, labels_of, recorded
from modicum.scores import Scores

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.traces import Traces

__all__ = ["Forgetting", "forgetting"]


def forgetting(correct: Array) -> Array:
    """How often each sample goes from right to wrong between one presentation and the next.

    `sum_t 1[a_t = 1, a_{t+1} = 0]`, and infinity for a sample that was never right: it is the hardest of all.

    Args:
        correct: (epochs, n) whether the prediction was right, each time the sample was presented in a minibatch.

    Returns:
        (n,) numbers of events, higher = harder. Many are equal: break ties at random, not by position.

    Raises:
        DataError: Another shape, empty, or something other than true and false (0 and 1).

    Example:
        >>> forgetting(np.array([[0, 1, 0], [1, 1, 0], [1, 1, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0]], bool)).tolist()
        [2.0, 0.0, inf]

    Reference:
        Toneva et al., An Empirical Study of Example Forgetting during Deep Neural Network Learning, 2019,
        arXiv 1812.05159.
    """
    plain = to_numpy("correct", correct)
    if plain.ndim != 2 or not plain.size:
        raise DataError(f"correct has shape {plain.shape}; expected (epochs, n), not empty")
    right = plain.astype(bool)
    if plain.dtype != bool and not np.array_equal(right, plain):
        at = np.argwhere(right != plain)[0].tolist()
        raise DataError(f"correct{at} is {plain[tuple(at)]}; expected true or false, or 0 or 1")
    events = (right[:-1] & ~right[1:]).sum(0, dtype=np.float64)
    events[~right.any(0)] = np.inf
    return back(events, correct)


@dataclass(frozen=True)
class Forgetting:
    """Samples that are learned once and never lost can go first.

    Args:
        runs: Training runs whose events are added up.
    """

    runs: int = 5

    card: ClassVar[Card] = Card(
        key="forgetting",
        title="How often a learned sample is forgotten",
        paper="Toneva et al., An Empirical Study of Example Forgetting during Deep Neural Network Learning, 2019, "
        "arXiv 1812.05159",
        saves=("samples",),
    )

    def needs(self) -> tuple[Traces]:
        """Traces of whole training runs."""
        from modicum.measurement.traces import Traces

        return (Traces(self.runs, 1.0),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Events summed over runs; infinite when some run never learned the sample; ties broken at random."""
        labels = labels_of("train", data.train, classes=2)
        order = by_id(data.train)
        with ctx.ledger.clock("choose", self.card.key):
            right = recorded("correct", measured[0].correct, data.train, epochs=True)
            values = np.sum([forgetting(run.numpy()) for run in right], axis=0)
            ties = np.empty(len(order))
            ties[order] = torch.randperm(len(order), generator=ctx.generator(self.card.key, "ties")).numpy()
        return Scores(
            values, data.train.ids, self.card.key, "difficulty", "forgetting events", labels.numpy(), ties=ties
        )
