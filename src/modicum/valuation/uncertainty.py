"""What the three uncertainties of a young model have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from modicum.methods import Card
from modicum.reading import labels_of, recorded
from modicum.scores import Order, Scores
from modicum.valuation.spread import mean_and_error

if TYPE_CHECKING:
    from modicum.arrays import NumPy
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.traces import Traces

__all__ = ["Uncertainty"]


@dataclass(frozen=True)
class Uncertainty:
    """A number of the probabilities that a young model gives each sample; no label is needed.

    Args:
        runs: Training runs that are averaged.
        until: Share of the training run after which the probabilities are taken.
        deepcore_compat: Keep the surest first, as DeepCore's released code does when it does not balance classes.
    """

    runs: int = 1
    until: float = 0.2
    deepcore_compat: bool = False

    card: ClassVar[Card]
    column: ClassVar[str]
    unit: ClassVar[str] = "probability"

    def needs(self) -> tuple[Traces]:
        """Traces up to where the probabilities are taken."""
        from modicum.measurement.traces import Traces

        return (Traces(self.runs, self.until),)

    @staticmethod
    def difficulty(column: NumPy) -> NumPy:
        """What is recorded, as a number that is higher for a harder sample."""
        return column

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """The mean over runs, with its standard error."""
        labels = labels_of("train", data.train, classes=2)
        with ctx.ledger.clock("choose", self.card.key):
            rows = recorded(self.column, getattr(measured[0], self.column), data.train, epochs=False)
            values, errors = mean_and_error(rows)
        order: Order = "easiest" if self.deepcore_compat else "hardest"
        found = self.difficulty(values)
        return Scores(found, data.train.ids, self.card.key, "difficulty", self.unit, labels.numpy(), order, errors)
