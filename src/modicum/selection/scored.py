"""Scores of a valuation as something that a selection can ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from modicum.errors import DataError, ModicumError
from modicum.ledger import Ledger
from modicum.methods import Valuation, make
from modicum.scores import Scores

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Dataset, Splits
    from modicum.training.recipe import Recipe

__all__ = ["Scored", "scores_for"]


@dataclass(frozen=True)
class Scored:
    """The scores that a valuation gives the training samples.

    Args:
        method: Key of a valuation, with options or without.

    Raises:
        ModicumError: The method is unknown, or gives no scores.

    Example:
        >>> Scored("el2n(runs=3)").trainings()
        0.30000000000000004
    """

    method: str = "el2n"

    def __post_init__(self) -> None:
        self._made()

    def _made(self) -> Valuation:
        made = make(self.method)
        if not isinstance(made, Valuation):
            raise ModicumError(
                f"score={self.method!r} gives no scores; expected a method of `modicum methods valuation`, such as 'el2n'"
            )
        return made

    def measure(self, data: Splits, recipe: Recipe, ctx: Context) -> Scores:
        """Score, charged to `ctx.ledger` as choosing."""
        method, inner = self._made(), ctx.with_(ledger=Ledger())
        scores = method.score(data, inner, *(need.measure(data, recipe, inner) for need in method.needs()))
        ctx.ledger.charges.extend(inner.ledger.charges)
        return replace(scores, ledger=inner.ledger)

    def trainings(self) -> float:
        """How many trainings of the recipe on the full data this is."""
        return float(sum(need.trainings() for need in self._made().needs()))  # type: ignore[attr-defined]


def scores_for(scores: Scores, train: Dataset) -> Scores:
    """The scores themselves, if they are those of these samples.

    Raises:
        DataError: They are of other samples.
    """
    if not isinstance(scores, Scores) or not np.array_equal(scores.ids, train.ids):
        got = f"{len(scores)} samples" if isinstance(scores, Scores) else type(scores).__name__
        raise DataError(f"scores are of {got} with other ids than the {len(train)} of train; score these samples")
    return scores
