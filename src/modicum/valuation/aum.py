"""AUM: the area under the margin, which is low where the label is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from modicum.arrays import Array, back, targets_for, tensor
from modicum.methods import Card
from modicum.reading import labels_of, recorded
from modicum.scores import Scores
from modicum.training.outputs import margin_of
from modicum.valuation.spread import mean_and_error

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.traces import Traces

__all__ = ["Aum", "aum"]


def aum(logits: Array, targets: Array) -> Array:
    """The mean margin of each sample while training.

    `(1/T) sum_t (z_y - max_{c != y} z_c)` on logits, never on probabilities. Low and negative where the given label
    disagrees with what the model learns from the other samples.

    Args:
        logits: (epochs, n, c), each taken when the sample was presented, up to the first drop of the learning rate.
        targets: (n,) class indices.

    Returns:
        (n,) values in units of logits, higher = more worth keeping.

    Raises:
        DataError: Shapes do not fit, entries are not finite, fewer than two classes, or a label out of range.

    Example:
        >>> import numpy as np
        >>> aum(np.array([[[2.0, 0.0, 1.0]], [[4.0, 1.0, 0.0]]]), np.array([0])).tolist()
        [2.0]

    Reference:
        Pleiss et al., Identifying Mislabeled Data using the Area Under the Margin Ranking, 2020, arXiv 2001.10528.
    """
    checked = tensor("logits", logits, (3,), "(epochs, n, c)")
    at = targets_for(checked, "logits", targets)
    total = torch.zeros(len(at), dtype=checked.dtype, device=checked.device)
    for epoch in checked:  # one epoch at a time, so that no second copy of all logits is made
        total += margin_of(epoch, at)
    return back((total / len(checked)).cpu().numpy(), logits)


@dataclass(frozen=True)
class Aum:
    """The mean margin while training: mislabeled samples have the lowest.

    Args:
        runs: Training runs that are averaged.
        until: Share of the training run that is looked at; the learning rate should still be high there.
    """

    runs: int = 1
    until: float = 0.5

    card: ClassVar[Card] = Card(
        key="aum",
        title="Area under the margin while training",
        paper="Pleiss et al., Identifying Mislabeled Data using the Area Under the Margin Ranking, 2020, "
        "arXiv 2001.10528",
        saves=("samples",),
    )

    def needs(self) -> tuple[Traces]:
        """Traces of the first part of the training runs."""
        from modicum.measurement.traces import Traces

        return (Traces(self.runs, self.until),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """The mean over epochs and runs: a value, as its low end is where labels are wrong."""
        labels = labels_of("train", data.train, classes=2)
        with ctx.ledger.clock("choose", self.card.key):
            margins = recorded("margin", measured[0].margin, data.train, epochs=True)
            values, errors = mean_and_error(margins.double().mean(1))
        return Scores(values, data.train.ids, self.card.key, "value", "logit margin", labels.numpy(), errors=errors)
