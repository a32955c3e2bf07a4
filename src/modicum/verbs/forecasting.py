"""The verb forecast: what theory predicts for a data set from a pilot, before anything expensive is done."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from modicum.comparison.estimate import Estimate, seconds_of_training
from modicum.context import Context
from modicum.data import load
from modicum.errors import ModicumError
from modicum.evidence import environment
from modicum.ledger import Ledger, peak_bytes
from modicum.measurement.learning_curve import LearningCurve
from modicum.methods import make
from modicum.scores import Budget, as_budget
from modicum.selection.pruning_forecast import KEEPS, PruningForecast, forecast_pruning, probe_of
from modicum.selection.pruning_pilot import PruningPilot
from modicum.store import Store
from modicum.training.fit import default_recipe
from modicum.training.recipe import Recipe

__all__ = ["forecast"]


def forecast(
    data: Any,
    what: str = "prune",
    keep: Budget | float | int | str | Sequence[float | int | str] | None = None,
    *,
    shares: Sequence[float] = (0.03, 0.06, 0.125, 0.25),
    runs: int = 3,
    steps: str = "scaled",
    floor: bool = False,
    score: str = "el2n",
    angle: float | None = None,
    trials: bool = True,
    recipe: Recipe | None = None,
    ctx: Context | None = None,
    folder: str | os.PathLike[str] | None = None,
    announce: Callable[[Estimate], None] | None = None,
    **options: Any,
) -> PruningForecast:
    """Which samples to keep: the hardest, the easiest, or random ones.

    A learning curve is measured on small random subsets; it says how many samples per effective dimension the data set
    has, and so where it lies in the phase diagram of the teacher-student perceptron. Models are trained on as many of the
    hardest and of the easiest, too; where they and the theory differ, they count. The selection method `auto` reads the
    same measurement, by its own options.

    Args:
        data: What `modicum.load` understands, with class labels; subsets of the training split are trained on, and the
            errors are those on the validation split.
        what: `prune`.
        keep: The shares to forecast, such as 0.3, `30%` or several; tenths from 10 to 90 % when None.
        shares: Of the training samples that the pilot trains on, rising; the last says how far the curve is followed.
        runs: Repetitions of the pilot.
        steps: `scaled` to the share, as `modicum compare` trains, or `equal` for all shares.
        floor: Whether the curve may level off at an error that no number of samples removes, as wrong labels cause.
        score: Key of the valuation that would rank the samples. A score that is read after a share of the schedule is taken
            to come from a model as good as one trained on that share of the samples.
        angle: Between the scores' model and the truth in radians, where it is known better.
        trials: Whether to score the samples and to train on the hardest and the easiest; without, theory stands alone.
        recipe: Of the trainings; one that suits the data when None.
        ctx: Device, seed, ledger, cache.
        folder: Where the tables and the page `report.html` go; nothing is written when None.
        announce: Is told the estimate before the work starts.
        options: For `load`, such as `label` or `limit`.

    Returns:
        The forecast; its `sentence` is the answer.

    Raises:
        ModicumError: An argument cannot be used, or the data have no class labels.

    Example:
        >>> found = forecast("iris", keep=0.5, shares=(0.1, 0.2, 0.4))
        >>> found.rows[0].best in ("hardest", "easiest", "random")
        True
    """
    if what != "prune":
        raise ModicumError(f"what={what!r}; expected 'prune'")
    ctx, splits = ctx or Context(), load(data, **options)
    curve = LearningCurve(tuple(shares), runs, steps)
    keeps = _shares(keep, splits.train)
    recipe = recipe or default_recipe(splits.train)
    pilot = PruningPilot(score, curve)
    if announce is not None:
        models, wanted = runs * len(curve.shares), pilot.trainings() if trials else curve.trainings()
        scoring = math.ceil(wanted - 3 * curve.trainings()) if trials else 0
        seconds = wanted * seconds_of_training(splits, recipe, ctx)
        announce(Estimate(seconds, peak_bytes(), 3 * models + scoring if trials else models))
    ledger = Ledger()
    inner = ctx.with_(ledger=ledger)
    tried = pilot.measure(splits, recipe, inner) if trials else None
    random = tried.random if tried else curve.measure(splits, recipe, inner)
    ctx.ledger.charges.extend(ledger.charges)
    found = forecast_pruning(random, keeps, angle, floor, ctx.seed, probe=probe_of(make(score)), pilot=tried)
    if folder is not None:
        from modicum.report.write_forecast import write_forecast

        settings = {
            **{"command": "forecast", "what": what, "data": str(data), "label": None, "limit": None, **options},
            **{"keep": list(keeps), "shares": list(curve.shares), "runs": runs, "steps": steps, "floor": floor},
            **{
                "score": score,
                "angle": angle,
                "trials": trials,
                "recipe": asdict(recipe),
                "seed": ctx.seed,
                "environment": environment(),
            },
        }
        store = Store(folder)
        with store.locked():
            write_forecast(found, splits, store, settings, ledger)
    return found


def _shares(keep: Any, train: Any) -> tuple[float, ...]:
    if keep is None:
        return KEEPS
    several = [keep] if isinstance(keep, (Budget, float, int, str)) else list(keep)
    classes = train.classes if train.info.task == "classification" else 1
    found = sorted({as_budget(one).fraction(len(train), classes) for one in several})
    if not found or found[-1] >= 1:
        raise ModicumError(f"keep={keep!r}; expected shares below 100 %")
    return tuple(found)
