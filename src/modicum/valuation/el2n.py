"""EL2N: the size of the error early in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from modicum.arrays import Array, back, probabilities_of, targets_for
from modicum.methods import Card
from modicum.reading import labels_of, recorded
from modicum.scores import Scores
from modicum.training.outputs import error_norm
from modicum.valuation.spread import mean_and_error

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.traces import Traces

__all__ = ["El2n", "el2n"]


def el2n(probabilities: Array, targets: Array) -> Array:
    """The expected norm of the error of each sample.

    `E_runs ||p(x_i) - e_{y_i}||_2`, in [0, sqrt(2)].

    Args:
        probabilities: (n, c), or (runs, n, c) of several models from different initial weights, taken early in training
            and in evaluation mode; rows sum to 1.
        targets: (n,) class indices.

    Returns:
        (n,) difficulties, higher = harder, in the unit of a probability distance.

    Raises:
        DataError: Shapes do not fit, rows do not sum to 1, or a label is out of range.

    Example:
        >>> import numpy as np
        >>> el2n(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 1])).round(4).tolist()
        [0.0, 0.7071]

    Reference:
        Paul, Ganguli, Dziugaite, Deep Learning on a Data Diet, 2021, arXiv 2107.07075.
    """
    checked = probabilities_of(probabilities, (2, 3), "(n, c) or (runs, n, c)")
    norms = error_norm(checked, targets_for(checked, "probabilities", targets))
    return back((norms.mean(0) if norms.ndim == 2 else norms).cpu().numpy(), probabilities)


@dataclass(frozen=True)
class El2n:
    """Hard samples are those that a young model gets most wrong.

    Args:
        runs: Training runs from different initial weights that are averaged.
        until: Share of the training run after which the error is taken.
    """

    runs: int = 10
    until: float = 0.1

    card: ClassVar[Card] = Card(
        key="el2n",
        title="Norm of the error early in training",
        paper="Paul, Ganguli, Dziugaite, Deep Learning on a Data Diet, 2021, arXiv 2107.07075",
        saves=("samples", "compute"),
    )

    def needs(self) -> tuple[Traces]:
        """Traces up to where the error is taken."""
        from modicum.measurement.traces import Traces

        return (Traces(self.runs, self.until),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """The mean over runs, with its standard error."""
        labels = labels_of("train", data.train, classes=2)
        with ctx.ledger.clock("choose", self.card.key):
            values, errors = mean_and_error(recorded("error", measured[0].error, data.train, epochs=False))
        return Scores(
            values, data.train.ids, self.card.key, "difficulty", "probability distance", labels.numpy(), errors=errors
        )
