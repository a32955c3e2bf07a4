"""A synthetic set judged: its best moment, its accuracy, what it has to beat, other networks; and what that will take."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from modicum.comparison.estimate import Estimate, seconds_of_training
from modicum.dataset import Splits
from modicum.distillation.distilled import Distilled, evaluation_recipe
from modicum.distillation.evaluate import (
    ARCHITECTURES,
    best_snapshot,
    controls,
    cross_architecture,
    random_real,
    robust_scores,
    train_and_test,
)
from modicum.distillation.evaluate import Trials as Accuracies
from modicum.errors import ModicumError
from modicum.ledger import Ledger, peak_bytes

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.ledger import Phase
    from modicum.scores import Budget
    from modicum.store import Store
    from modicum.training.recipe import Recipe

__all__ = ["TABULAR", "estimate_distilling", "judge", "networks_beside"]

TABULAR = ("linear", "mlp", "mlp(hidden=512)")
FILE = "evaluation.json"
FEW = 3  # networks of each architecture and of each accuracy in a robust score, at most
SNAPSHOTS = 9
WORDS = {
    "curve": "choosing the best moment",
    "set": "testing the set",
    "controls": "controls",
    "architectures": "other architectures",
    "robust": "robust scores",
}


def networks_beside(data: Splits, given: Sequence[str] | None) -> tuple[str, ...]:
    """The architectures of the table: those that are asked for, or what suits the data."""
    if given is not None:
        return tuple(given)
    return ARCHITECTURES if data.train.info.modality == "image" else TABULAR


def judge(
    made: Distilled,
    data: Splits,
    budget: Budget,
    recipe: Recipe,
    ctx: Context,
    store: Store,
    key: str,
    networks: int = 3,
    beside: bool = True,
    architectures: Sequence[str] | None = None,
) -> tuple[Distilled, dict[str, Any]]:
    """Judge a set; what is done is written down, so that the same call goes on from there.

    Args:
        made: The set with its snapshots.
        data: Real data as they were before any whitening.
        budget: How many samples were asked for.
        recipe: Of training on all data.
        ctx: Device, seed, ledger; after its deadline nothing new is begun.
        store: Where `evaluation.json` goes.
        key: Of the work; what another work has left is not used.
        networks: How many are trained for each accuracy.
        beside: Whether controls, other architectures and robust scores are measured too.
        architectures: Of the table; what suits the data when None.

    Returns:
        The set at its best moment, and the findings as plain values: `curve` (rows of iteration and accuracy), `set`,
        `controls` and `architectures` (pairs of a name and accuracies in percent), `robust`, `costs` (FLOPs and seconds of one training on
        all data and on the set), `ledger`, and `finished`.
    """
    saved = store.read_json(FILE) if store.has(FILE) else {}
    found: dict[str, Any] = saved if saved.get("key") == key else {"key": key, "asked": {}, "charges": {}, "costs": {}}

    def stage(name: str, phase: Phase, asked: list[Any], work: Callable[[Context], Any]) -> Any:
        if (name not in found or found["asked"].get(name) != asked) and not ctx.late():
            inner = ctx.with_(ledger=Ledger(), store=None)
            value = work(inner)
            found["costs"].update(_costs(name, inner.ledger))
            total = replace(inner.ledger.total(), phase=phase, what=WORDS[name])
            found["charges"][name] = Ledger([total]).to_json()[0]
            found[name], found["asked"][name] = value, asked
            store.write_json(FILE, found)
        return found.get(name)

    curve = stage("curve", "choose", [], lambda inner: _curve(made, data, inner))
    if curve:
        at = max(range(len(curve)), key=lambda i: (curve[i]["accuracy"], i))
        moments = {snapshot.iteration: snapshot for snapshot in made.snapshots}
        if at < len(curve) - 1:
            made = made.at(moments[int(curve[at]["iteration"])])
    few, models, wanted = min(FEW, networks), networks_beside(data, architectures), ["curve", "set"]
    stage(
        "set", "evaluate", [networks], lambda inner: list(train_and_test(made, data.test, inner, networks).accuracies)
    )
    if beside:
        wanted += ["controls", "architectures", "robust"]
        rows = stage(
            "controls",
            "evaluate",
            [networks],
            lambda inner: _plain(controls(made, data, budget, recipe, inner, networks)),
        )
        stage(
            "architectures",
            "evaluate",
            [few, *models],
            lambda inner: _plain(cross_architecture(made, data, models, inner, few)),
        )
        if rows:
            full = Accuracies(tuple(dict(rows)["full"]))
            stage("robust", "evaluate", [few], lambda inner: robust_scores(made, data, budget, full, inner, few))
    shown = {name: found[name] for name in wanted if name in found}
    ledger = Ledger.from_json([found["charges"][name] for name in shown])
    ctx.ledger.charges.extend(ledger.charges)
    done = len(shown) == len(wanted)
    return made, {**shown, "costs": found["costs"], "ledger": ledger.to_json(), "finished": done}


def _curve(made: Distilled, data: Splits, ctx: Context) -> list[dict[str, float]]:
    if not len(data.valid) or len(made.snapshots) < 2:
        return []
    return best_snapshot(made, data.valid, ctx)[1]


def _plain(trials: dict[str, Accuracies]) -> list[list[Any]]:
    return [[name, list(found.accuracies)] for name, found in trials.items()]  # a list keeps its order in a file


def _costs(name: str, ledger: Ledger) -> dict[str, dict[str, float]]:
    """FLOPs and seconds of training once, on the set or on all data."""
    key, start = {"set": ("set", "trial"), "controls": ("full", "control-full")}.get(name, ("", ""))
    charges = [charge for charge in ledger.charges if charge.what.startswith(start)] if key else []
    if not charges:
        return {}
    total = Ledger(charges).total()
    return {key: {"flops": total.flops / len(charges), "seconds": total.seconds / len(charges)}}


def estimate_distilling(
    method: Any,
    data: Splits,
    budget: Budget,
    recipe: Recipe,
    ctx: Context,
    networks: int = 3,
    beside: bool = True,
    architectures: Sequence[str] | None = None,
) -> Estimate:
    """What making a set and judging it will take, from a few iterations and a few steps of training, thrown away.

    The iterations of a method that reads measurements are not timed, as those would have to be made first.

    Args:
        method: A distiller.
        data: The splits.
        budget: How many samples.
        recipe: Of training on all data.
        ctx: Device and seed; nothing is charged.
        networks: See `judge`; 0 for no judging.
        beside: See `judge`.
        architectures: See `judge`.
    """
    alone = ctx.with_(ledger=Ledger(), store=None, show=False, deadline=None)
    wanted = sum(need.trainings() for need in method.needs())
    training = seconds_of_training(data, recipe, ctx) if wanted or (networks and beside) else 0.0
    seconds, trainings = wanted * training, wanted
    own = evaluation_recipe(
        str(recipe.model), len(data.train), augment="crop" if len(data.train.inputs.shape) > 2 else ""
    )
    few = data.train[random_real(data.train, budget, 0)]
    if not method.needs() and hasattr(method, "iterations"):
        taken = []
        with suppress(ModicumError):  # what is wrong is said by the work itself
            for count in (1, 1, 3):  # the first warms up
                started = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    made = replace(method, iterations=count).distill(data, budget, recipe, alone)
                taken.append(time.perf_counter() - started)
            seconds += taken[1] + max(0.0, taken[2] - taken[1]) / 2 * (method.iterations - 1)
            own, few = made.recipe, made.dataset
    if networks:
        part = Splits(few, few[:0], few[:0])
        moments = SNAPSHOTS if hasattr(method, "iterations") and len(data.valid) else 0
        more, others = (3 * networks + 6 * min(FEW, networks), min(FEW, networks)) if beside else (0, 0)
        seconds += (moments + networks + more) * seconds_of_training(part, own, alone) + beside * training
        trainings += moments + networks + more + beside
        for model in networks_beside(data, architectures) if beside else ():
            with suppress(ModicumError):
                seconds += others * seconds_of_training(part, replace(own, model=model), alone, steps=2)
                trainings += others
    inputs = sum(d.inputs.numel() * 4 for d in data)
    return Estimate(seconds, peak_bytes() + inputs, round(trainings))
