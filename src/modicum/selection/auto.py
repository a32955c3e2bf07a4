"""Auto: keep the hardest, the easiest or random samples, whichever theory predicts best at this learning curve."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from modicum.errors import DataError
from modicum.methods import Card, make
from modicum.options import check_options
from modicum.reading import by_id, labels_of
from modicum.scores import Budget, Selection
from modicum.selection.pruning_forecast import KeepForecast, forecast_pruning, probe_of
from modicum.selection.random import random_subset
from modicum.selection.scored import Scored, scores_for
from modicum.selection.stratified import stratified

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.learning_curve import LearningCurve

__all__ = ["Auto"]

WORDS = {"hardest": "the hardest", "easiest": "the easiest", "random": "random samples"}


@dataclass(frozen=True)
class Auto:
    """The rule of the phase diagram: the hardest where samples are plentiful, the easiest where they are scarce.

    A pilot learning curve says how many samples per effective dimension there are (`forecast_pruning`); the rule that is
    predicted best at the share asked for chooses by the score. Where fewer than nine of ten draws of the pilot agree, or
    nothing is dropped, the subset is random, with the class proportions of the data.

    Args:
        score: Key of a valuation, with options or without; its difficulties rank the samples.
        runs: Of the pilot.
        least: Smallest share of the samples that the pilot trains on, in (0, 1).
        most: Largest share, above `least`; the two between are spaced evenly in their logarithms.
        steps: Of the pilot: `scaled` or `equal` (see `modicum.measurement.LearningCurve`).
        floor: Whether the pilot may level off at an error that no number of samples removes, as wrong labels cause.
        class_balance: Every class keeps at least this share of its even part of the budget.

    Reference:
        Sorscher, Geirhos, Shekhar, Ganguli, Morcos, Beyond neural scaling laws: beating power law scaling via data
        pruning, 2022, arXiv 2206.14486.
    """

    score: str = "el2n"
    runs: int = 3
    least: float = 0.03
    most: float = 0.25
    steps: str = "scaled"
    floor: bool = False
    class_balance: float = 0.5

    card: ClassVar[Card] = Card(
        key="auto",
        title="Hardest, easiest or random samples, as the theory of pruning says of a pilot learning curve",
        paper="Sorscher et al., Beyond neural scaling laws: beating power law scaling via data pruning, 2022, "
        "arXiv 2206.14486",
        saves=("samples", "compute"),
    )

    def __post_init__(self) -> None:
        check_options(self, positive=("runs", "least", "most"), shares=("least", "most", "class_balance"))
        check_options(self, choices={"steps": ("scaled", "equal")})
        self._curve()  # says what is wrong with the shares
        Scored(self.score)

    def _curve(self) -> LearningCurve:
        from modicum.measurement.learning_curve import LearningCurve

        shares = np.geomspace(self.least, self.most, 4)
        return LearningCurve(tuple(round(float(share), 6) for share in shares), self.runs, self.steps)

    def needs(self) -> tuple[LearningCurve, Scored]:
        """A pilot learning curve, and the scores."""
        return self._curve(), Scored(self.score)

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection:
        """Forecast and choose; the note says what was chosen and how sure that is."""
        order = by_id(data.train)
        labels = labels_of("train", data.train)
        curve = measured[0]
        if getattr(curve, "of", None) != len(data.train):
            raise DataError(
                f"learning curve is of {getattr(curve, 'of', type(curve).__name__)} samples, but train has {len(order)}"
            )
        scores = scores_for(measured[1], data.train)
        with ctx.ledger.clock("choose", self.card.key, labels=len(order)):
            keep = budget.fraction(len(order), len(np.unique(labels.numpy())))
            row = None if keep == 1 else self._forecast(curve, keep, ctx.seed)
            rule = row.best if row is not None and row.clear else "random"
            values, unit = scores.difficulties, scores.unit if scores.kind == "difficulty" else f"-{scores.unit}"
            if rule == "random":
                chosen = self._random(labels[order].numpy(), budget, ctx.generator(self.card.key))
                return Selection.made(order, chosen, values=values[order.numpy()], unit=unit, note=_note(row, rule))
            ranked = replace(scores, values=values, kind="difficulty", labels=labels.numpy())
            kept = ranked.kept(budget, "hardest" if rule == "hardest" else "easiest", self.class_balance)
            return Selection(kept, values=values, unit=unit, note=_note(row, rule))

    def _forecast(self, curve: Any, keep: float, seed: int) -> KeepForecast:
        probe = probe_of(make(self.score))
        return forecast_pruning(curve, (keep,), None, self.floor, seed, False, probe).rows[0]

    @staticmethod
    def _random(labels: Any, budget: Budget, draw: torch.Generator) -> Any:
        present = len(np.unique(labels))
        if budget.count(len(labels), present) < present:
            return random_subset(len(labels), budget, draw).numpy()
        return stratified(labels, budget, draw)


def _note(row: KeepForecast | None, rule: str) -> str:
    if row is None:
        return "everything is kept"
    predicted = ", ".join(f"{name} {100 * getattr(row, name):.3g} %" for name in ("random", "hardest", "easiest"))
    part = f"{100 * row.sure:.0f} % of the pilot's draws"
    why = f"best in {part}" if row.clear else f"{row.best} would be best in only {part}"
    return f"kept {WORDS[rule]} ({why}; predicted errors: {predicted})"
