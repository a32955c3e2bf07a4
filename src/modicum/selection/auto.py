"""Auto: keep the hardest, the easiest or random samples, as a pilot measures them and theory predicts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from modicum.errors import DataError
from modicum.measurement.learning_curve import LearningCurve
from modicum.methods import Card, make
from modicum.options import check_options
from modicum.reading import by_id, labels_of
from modicum.scores import Budget, Selection
from modicum.selection.pruning_forecast import WORDS, KeepForecast, forecast_pruning, probe_of
from modicum.selection.pruning_pilot import PruningPilot, by_difficulty
from modicum.selection.random import random_subset
from modicum.selection.stratified import stratified

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits

__all__ = ["Auto"]


@dataclass(frozen=True)
class Auto:
    """The hardest where samples are plentiful, the easiest where they are scarce, random ones where neither is better.

    A pilot trains on random, on the hardest and on the easiest samples, at a few small shares of the data. A rule that errs
    less than random there by two standard errors is kept. Else the theory of pruning says, from the learning curve of the
    random samples (`forecast_pruning`), which rule is best; it is kept if nine of ten draws of the pilot's noise agree, and
    if it erred no more than random in the pilot. Else the subset is random, with the class proportions of the data.

    Args:
        score: Key of a valuation, with options or without; its difficulties rank the samples.
        runs: Of the pilot; with one, its spread is unknown, and theory has to say first.
        shares: Of the samples that the pilot trains on, rising; what it measures at the nearest of them counts for shares
            beyond.
        steps: Of the pilot: `scaled` or `equal` (see `modicum.measurement.LearningCurve`).
        floor: Whether the pilot may level off at an error that no number of samples removes, as wrong labels cause.
        class_balance: Every class keeps at least this share of its even part of the budget.

    Reference:
        Sorscher, Geirhos, Shekhar, Ganguli, Morcos, Beyond neural scaling laws: beating power law scaling via data
        pruning, 2022, arXiv 2206.14486.
    """

    score: str = "el2n"
    runs: int = 3
    shares: tuple[float, ...] = (0.03, 0.06, 0.125, 0.25)
    steps: str = "scaled"
    floor: bool = False
    class_balance: float = 0.5

    card: ClassVar[Card] = Card(
        key="auto",
        title="Hardest, easiest or random samples, as a pilot and the theory of pruning say",
        paper="Sorscher et al., Beyond neural scaling laws: beating power law scaling via data pruning, 2022, "
        "arXiv 2206.14486",
        saves=("samples", "compute"),
    )

    def __post_init__(self) -> None:
        check_options(self, positive=("runs",), shares=("class_balance",), choices={"steps": ("scaled", "equal")})
        object.__setattr__(self, "shares", self._pilot().curve.shares)

    def _pilot(self) -> PruningPilot:
        return PruningPilot(self.score, LearningCurve(self.shares, self.runs, self.steps), self.class_balance)

    def needs(self) -> tuple[PruningPilot]:
        """The scores, and trainings on random, the hardest and the easiest samples."""
        return (self._pilot(),)

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection:
        """Forecast and choose; the note says what was chosen and why."""
        order = by_id(data.train)
        labels = labels_of("train", data.train)
        pilot = measured[0]
        if pilot.random.of != len(data.train):
            raise DataError(f"learning curve is of {pilot.random.of} samples, but train has {len(order)}")
        scores = by_difficulty(pilot.scores, data.train)
        with ctx.ledger.clock("choose", self.card.key, labels=len(order)):
            keep = budget.fraction(len(order), len(np.unique(labels.numpy())))
            row = None
            if keep < 1:
                probe = probe_of(make(self.score))
                found = forecast_pruning(pilot.random, (keep,), None, self.floor, ctx.seed, False, probe, pilot)
                row = found.rows[0]
            rule, note = ("random", "everything is kept") if row is None else (row.choice, _note(row))
            if rule == "random":
                chosen = self._random(labels[order].numpy(), budget, ctx.generator(self.card.key))
                values = scores.values[order.numpy()]
                return Selection.made(order, chosen, values=values, unit=scores.unit, note=note)
            kept = scores.kept(budget, "hardest" if rule == "hardest" else "easiest", self.class_balance)
            return Selection(kept, values=scores.values, unit=scores.unit, note=note)

    @staticmethod
    def _random(labels: Any, budget: Budget, draw: torch.Generator) -> Any:
        present = len(np.unique(labels))
        if budget.count(len(labels), present) < present:
            return random_subset(len(labels), budget, draw).numpy()
        return stratified(labels, budget, draw)


def _note(row: KeepForecast) -> str:
    rules = ("random", "hardest", "easiest")
    tried = ", ".join(f"{rule} {100 * getattr(row, f'tried_{rule}'):.3g} %" for rule in rules)
    predicted = ", ".join(f"{rule} {100 * getattr(row, rule):.3g} %" for rule in rules)
    return (
        f"kept {WORDS[row.choice]}: {row.why} (errors of the pilot at {100 * row.tried_at:.3g} % kept: {tried}; predicted "
        f"at {100 * row.keep:.3g} %: {predicted})"
    )
