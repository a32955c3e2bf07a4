"""`modicum forecast`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from modicum.cli.common import Common, RecipeOptions, announce, cost, print_rows, recipe_of, stem, work_key

if TYPE_CHECKING:
    from modicum.comparison.estimate import Estimate

__all__ = ["Forecast"]


@dataclass(frozen=True)
class Forecast(Common):
    """Would pruning help, and which samples should stay? Answers from a few cheap trainings and the phase diagram.

    Args:
        what: What to forecast: prune.
        data: A built-in name, a file or a folder.
        keep: Shares to forecast: 30%, 0.3, 500 or 10/class; tenths from 10 to 90 % when left out.
        shares: Of the training samples that the pilot trains on, rising.
        runs: Repetitions of the pilot.
        steps: Scaled to the share as compare trains, or equal for all shares.
        floor: Let the curve level off at an error that no number of samples removes, as wrong labels cause.
        score: Valuation that would rank the samples; how early it is read says how good it is.
        angle: Between the scores' model and the truth in radians, where it is known better.
        trials: Score the samples and train on the hardest and the easiest, too; without, theory stands alone.
        folder: Of the run: tables and page.
        recipe: How models are trained; only what differs from what suits the data.
    """

    what: Positional[Literal["prune"]]
    data: Positional[str]
    keep: tuple[str, ...] = ()
    shares: tuple[float, ...] = (0.03, 0.06, 0.125, 0.25)
    runs: int = 3
    steps: Literal["scaled", "equal"] = "scaled"
    floor: bool = False
    score: str = "el2n"
    angle: float | None = None
    trials: bool = True
    folder: str | None = None
    recipe: RecipeOptions = field(default_factory=RecipeOptions)  # type: ignore[valid-type]

    def run(self) -> None:
        """Measure, forecast, write, print the table."""
        from modicum.context import home
        from modicum.store import Store
        from modicum.verbs import forecast

        recipe, ctx = recipe_of(self.recipe, self.data, self.loading), self.context()
        options = (self.keep, self.shares, self.runs, self.steps, self.floor, self.score, self.angle, self.trials)
        key = work_key(os.path.abspath(self.data), recipe, self.loading, self.seed, options)
        folder = Path(self.folder or home() / f"forecast-{stem(self.data)}-{key}")
        found = forecast(
            self.data,
            self.what,
            self.keep or None,
            shares=self.shares,
            runs=self.runs,
            steps=self.steps,
            floor=self.floor,
            score=self.score,
            angle=self.angle,
            trials=self.trials,
            recipe=recipe,
            ctx=ctx,
            folder=folder,
            announce=_told,
            **self.loading,
        )
        result = Store(folder).read_json("run.json")["result"]
        note = (
            f"{found.sentence}\nThe theory is of a linear model: try what it says with "
            f'`modicum select {self.data} --method "{self.score}" --rule auto --keep ...`, which trains models to check it.\n'
            f"{cost(ctx.ledger)}\nReport: {folder / 'report.html'}"
        )
        rows = result["rows"]
        shown = [{**row, **_in_percent(row)} for row in rows]
        columns = [
            "keep",
            "random",
            "hardest",
            "easiest",
            "best",
            "sure",
            *(["measured", "take"] if self.trials else []),
        ]
        note = (
            f"Measured: the pilot with random / hardest / easiest, at the share kept or at the nearest it tried.\n{note}"
            if self.trials
            else note
        )
        more = {**{k: v for k, v in result.items() if k != "rows"}, "report": str(folder / "report.html")}
        print_rows(rows if self.json else shown, self.json, columns, note, more)


def _in_percent(row: dict[str, Any]) -> dict[str, str]:
    told = {name: f"{100 * row[name]:.3g} %" for name in ("keep", "random", "hardest", "easiest", "sure")}
    if row["tried_at"] is None:
        return told
    measured = (f"{100 * row[f'tried_{rule}']:.3g}" for rule in ("random", "hardest", "easiest"))
    return {**told, "measured": f"{' / '.join(measured)} %", "take": row["choice"]}


def _told(estimate: Estimate) -> None:
    announce(estimate, "fewer --runs or smaller --shares take less")
