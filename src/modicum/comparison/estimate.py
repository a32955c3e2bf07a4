"""Before the work: what it will take, from a short pilot that is thrown away."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from modicum.context import Context
from modicum.dataset import Splits
from modicum.ledger import Ledger, peak_bytes
from modicum.measurement.features import Features
from modicum.measurement.utilities import Utilities
from modicum.methods import Valuation
from modicum.pretraining import pretrain
from modicum.scores import Budget
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

__all__ = [
    "Estimate",
    "Reading",
    "estimate_pretraining",
    "estimate_scoring",
    "estimate_selecting",
    "seconds_of_training",
    "time_reading",
]

PILOTS = (500, 2000)  # samples of the two pilots that show how the time grows
ASKING = (100, 400)  # of methods that train models for their answers


@dataclass(frozen=True)
class Estimate:
    """What the work will take, from a short pilot.

    Args:
        seconds: Wall-clock, on this machine.
        peak_bytes: Resident memory.
        trainings: Number of models to train, measurements included.
    """

    seconds: float
    peak_bytes: int
    trainings: int


def seconds_of_training(data: Splits, recipe: Recipe, ctx: Context, steps: int = 10) -> float:
    """Seconds of one full training, from a few steps of one; they are thrown away.

    The first run only warms up; of the others, the least seconds are taken, which disturbances change least.
    """
    alone = ctx.with_(ledger=Ledger(), store=None, show=False)
    seconds = []
    for count in (1, 1, 1, 1 + steps, 1 + steps):
        started = time.perf_counter()
        fit(data.train, replace(recipe, steps=count, rates=()), alone)
        seconds.append(time.perf_counter() - started)
    start = min(seconds[1:3])
    return start + max(0.0, min(seconds[3:]) - start) / steps * (recipe.steps_for(len(data.train)) - 1)


class Reading(NamedTuple):
    """What reading measurements takes: seconds, and trainings on subsets where there are any."""

    seconds: float
    trainings: int = 0


def estimate_scoring(method: Valuation, data: Splits, recipe: Recipe, ctx: Context) -> Estimate:
    """What scoring the training samples will take.

    Trainings of the recipe are timed by a few of their steps. Methods that ask an oracle are timed by their first step on all
    data, others by the whole of their reading on two small parts of the data; the rest is arithmetic.

    Args:
        method: A valuation.
        data: The splits.
        recipe: Of the proxies.
        ctx: Device and seed; nothing is charged.
    """
    needs = [need for need in method.needs() if not isinstance(need, (Features, Utilities))]
    wanted = sum(need.trainings() for need in method.needs())  # type: ignore[attr-defined]
    seconds = wanted * seconds_of_training(data, recipe, ctx) if wanted else 0.0
    reading = Reading(0.0)
    if any(isinstance(need, Utilities) for need in method.needs()):
        reading = _time_first_step(method, data, recipe, ctx)
    elif not needs:
        reading = time_reading(method, data, ctx)
    inputs = sum(d.inputs.numel() * 4 for d in data)  # once more, as features
    return Estimate(seconds + reading.seconds, peak_bytes() + inputs, math.ceil(wanted) + reading.trainings)


def estimate_selecting(
    method: Any, data: Splits, budget: Budget | None, recipe: Recipe, ctx: Context, models: int = 0
) -> Estimate:
    """What choosing samples will take, and checking the choice.

    Args:
        method: A valuation or a selection; None for a choice that is made already.
        data: The splits.
        budget: How much is kept; None for an unknown share, counted as all.
        recipe: Of the proxies and of the check.
        ctx: Device and seed; nothing is charged.
        models: How many are trained on the selection and on each of its controls.
    """
    classes = max(1, data.train.classes)
    share = budget.fraction(len(data.train), classes) if budget else 1.0
    checks = models * (4 if data.train.info.task == "classification" else 3)
    once = seconds_of_training(data, recipe, ctx) if checks else 0.0
    if isinstance(method, Valuation):
        choosing = estimate_scoring(method, data, recipe, ctx)
    else:
        needs = [] if method is None else method.needs()
        wanted = float(sum(need.trainings() for need in needs))
        seconds = wanted * (once or seconds_of_training(data, recipe, ctx)) if wanted else 0.0
        if needs and all(isinstance(need, Features) for need in needs):
            seconds += time_reading(method, data, ctx, share).seconds
        inputs = sum(d.inputs.numel() * 4 for d in data)
        choosing = Estimate(seconds, peak_bytes() + inputs, math.ceil(wanted))
    return Estimate(choosing.seconds + checks * share * once, choosing.peak_bytes, choosing.trainings + checks)


def estimate_pretraining(method: Any, data: Splits, recipe: Recipe, ctx: Context, share: float = 1.0) -> Estimate:
    """What learning without labels will take, from two short runs on a few batches; probes come on top.

    Args:
        method: A pretraining method.
        data: The splits.
        recipe: How it will be trained.
        ctx: Device and seed; nothing is charged.
        share: Of the samples that an epoch visits.
    """
    size = min(recipe.batch_size, len(data.train))
    few = data.train[: min(len(data.train), 4 * size)]
    part = Splits(few, data.valid[:size], data.test[:size])
    seconds = []
    for steps in (1, 2, 6):  # the first warms up
        started = time.perf_counter()
        pretrain(part, method, replace(recipe, steps=steps, batch_size=size), _alone(ctx))
        seconds.append(time.perf_counter() - started)
    steps = recipe.steps or round(recipe.epochs * max(1, int(share * len(data.train)) // size))
    inputs = data.train.inputs.numel() * 4  # standardized
    whole = seconds[1] + (steps - 2) * max(0.0, seconds[2] - seconds[1]) / 4
    return Estimate(max(0.0, whole), peak_bytes() + inputs, 1)


def time_reading(method: Any, data: Splits, ctx: Context, share: float = 1.0) -> Reading:
    """Reading features, from two small parts of the data; a constant, and what grows as the card says.

    Args:
        method: A valuation, or a selector.
        data: The splits.
        ctx: Device and seed.
        share: How much a selector keeps.
    """
    n, growth = len(data.train), float(method.card.growth)
    sizes, seconds = [], []
    for few in ASKING if any(isinstance(need, Utilities) for need in method.needs()) else PILOTS:
        part = Splits(*(split[:: max(1, n // few)] for split in data))
        needs = [replace(need, encoder="inputs") for need in method.needs()]  # whose training is counted elsewhere
        tables = [need.measure(part, Recipe(), _alone(ctx)) for need in needs]
        if isinstance(method, Valuation):
            seconds.append(_seconds_of_steps(method, part, tables, ctx))
        else:
            started = time.perf_counter()
            with warnings.catch_warnings():  # what it says of a small part is of no use
                warnings.simplefilter("ignore")
                method.select(part, Budget(keep=share), _alone(ctx), *tables)
            seconds.append(time.perf_counter() - started)
        sizes.append(len(part.train) ** growth)
    if sizes[0] == sizes[1]:
        return Reading(min(seconds))
    slope = max(0.0, seconds[1] - seconds[0]) / (sizes[1] - sizes[0])
    return Reading(float(seconds[1] + slope * (n**growth - sizes[1])))


def _time_first_step(method: Valuation, data: Splits, recipe: Recipe, ctx: Context) -> Reading:
    tables = [need.measure(data, recipe, _alone(ctx)) for need in method.needs()]
    utility = next(table for need, table in zip(method.needs(), tables) if isinstance(need, Utilities))
    steps: list[int] = []
    seconds = _seconds_of_steps(method, data, tables, ctx, steps)
    return Reading(seconds, round(utility.trainings * (steps[-1] if steps else 1)) if utility.memory is not None else 0)


def _seconds_of_steps(
    method: Valuation, data: Splits, tables: Sequence[Any], ctx: Context, steps: list[int] | None = None
) -> float:
    """Of the whole reading; where it has an answer at any time, from its first step."""
    seen: dict[str, tuple[int, float]] = {}

    def watch(name: str, done: int, total: int, seconds: float) -> None:
        seen.setdefault(name, (total, seconds))

    started = time.perf_counter()
    method.score(data, replace(_alone(ctx), deadline=time.monotonic(), watch=watch), *tables)
    whole = time.perf_counter() - started
    if steps is not None:
        steps.extend(total for total, _ in seen.values())
    return whole + sum((total - 1) * seconds for total, seconds in seen.values())


def _alone(ctx: Context) -> Context:
    """The same device and seed, and nothing that would be seen afterwards."""
    return ctx.with_(ledger=Ledger(), store=None, cache=None, show=False)
