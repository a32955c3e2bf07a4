"""The main job: which way of spending less works on this data set, and what does it save once choosing is paid for?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modicum.comparison.controls import Short
from modicum.comparison.estimate import Estimate, seconds_of_training, time_reading
from modicum.comparison.frontier import Frontier, Point, pack_bits, summarize
from modicum.comparison.keep import keep_for_report
from modicum.comparison.prepare import Plan, measure, prepare
from modicum.comparison.recommend import recommend
from modicum.context import Context
from modicum.data import overlap
from modicum.dataset import Splits
from modicum.errors import BudgetError, ModicumError
from modicum.evidence import environment
from modicum.ledger import Ledger, peak_bytes
from modicum.measurement.features import Features
from modicum.measurement.utilities import Utilities
from modicum.methods import Distiller, Training, Valuation, as_methods, spec, suits
from modicum.scores import Budget, as_budget
from modicum.spec import content_key
from modicum.store import Store
from modicum.training.evaluate import evaluate
from modicum.training.fit import Fit, fit
from modicum.training.recipe import Recipe

__all__ = ["DEFAULT_METHODS", "Estimate", "describe", "run", "trained_point", "with_controls"]

DEFAULT_METHODS = (
    *("full", "random", "stratified", "short"),
    *("el2n(runs=3)", "forgetting(runs=1)", "aum", "margin", "dyn-unc"),
    *("herding", "k-center-greedy", "facility-location"),
    *("infobatch", "hard-samples", "dm(iterations=100)"),
)
"""What is compared unless told otherwise. Where the paper averages more runs or iterates longer than a comparison can pay
for, fewer and shorter; the table says so."""


@dataclass(frozen=True)
class Cell:
    """One point to be made: a method, a budget (None: the method has none) and a seed."""

    method: Any
    budget: Budget | None
    seed: int

    @property
    def name(self) -> str:
        """Of the point, in files."""
        return content_key(spec(self.method), str(self.budget), self.seed)

    @property
    def title(self) -> str:
        """For people, and for the checkpoint of its training."""
        budget = f" {self.budget}" if self.budget else ""
        return f"{spec(self.method)}{budget} seed {self.seed}".replace("/", " per ")


def run(
    data: Splits,
    methods: Sequence[Any],
    budgets: Sequence[Budget | float | int | str],
    seeds: int,
    recipe: Recipe,
    ctx: Context,
    *,
    target: float | None = None,
    margin: float = 0.005,
    max_seconds: float | None = None,
    settings: Mapping[str, Any] | None = None,
    announce: Callable[[Estimate], None] = lambda estimate: None,
) -> Frontier:
    """Make every point that the run folder does not hold yet, and say what they mean.

    For each seed, method and budget: choose or make what to train on, train by the same recipe for the same number of
    steps, evaluate. The controls take part whatever is asked for. Choices are made on the validation split and reported
    on the test split, which no method sees.

    Args:
        data: Training, validation and test split.
        methods: Keys, keys with options, or method objects.
        budgets: How much to keep.
        seeds: Number of repetitions; the first is `ctx.seed`.
        recipe: How to train.
        ctx: Its store is the run folder, held by this process.
        target: The score on the validation split to reach; the mean of the full runs less `margin` when None.
        margin: See `target`.
        max_seconds: Stop then, with the best answer so far.
        settings: Remembered in `run.json`, so that the run can be resumed.
        announce: Is told the estimate before the work starts.

    Returns:
        The frontier so far.

    Raises:
        ModicumError: An argument cannot be used, or the folder holds another comparison.
    """
    asked = [as_budget(b) for b in budgets]
    if seeds < 1 or not asked:
        raise ModicumError(f"seeds={seeds}, budgets={list(budgets)}; expected at least one of each")
    for budget in asked:
        _fraction(budget, data)
    chosen = with_controls(as_methods(methods), data)
    cells = list(_cells(chosen, asked, [ctx.seed + s for s in range(seeds)], data))
    store = ctx.store
    assert store is not None
    work = describe(data, chosen, asked, seeds, recipe, ctx)
    plain = {"methods": work["methods"], "budgets": work["budgets"], "seeds": seeds, "seed": ctx.seed}
    _remember(store, work, {**(settings or {}), **plain, "target": [target, margin], "recipe": vars(recipe)})
    points = _points(store)
    todo = [cell for cell in cells if cell.name not in points]
    if todo and max_seconds != 0:
        started = time.monotonic()
        announce(_estimate(todo, data, recipe, seconds_of_training(data, recipe, ctx), ctx))
        _make_points(todo, points, data, recipe, ctx, max_seconds, started)
    done = tuple(points[cell.name] for cell in cells if cell.name in points)
    metric = "R²" if data.train.info.task == "regression" else "accuracy"
    advice = recommend(summarize(done), metric, margin, target)
    return Frontier(done, metric, advice, store.folder, len(done) == len(cells), len(cells), _notes(data, store))


def describe(
    data: Splits, methods: Sequence[Any], budgets: Sequence[Budget], seeds: int, recipe: Recipe, ctx: Context
) -> dict[str, Any]:
    """All that the numbers of a comparison depend on."""
    return {
        "data": [d.fingerprint for d in data],
        "methods": [spec(m) for m in methods],
        "budgets": [str(b) for b in budgets],
        "seeds": [ctx.seed, seeds],
        "recipe": recipe,
    }


def with_controls(methods: list[Any], data: Splits) -> list[Any]:
    """The methods that work on these data, the controls first."""
    names = {m.card.key for m in methods}
    missing = [key for key in ("full", "random", "stratified", "short") if key not in names]
    everything = as_methods(missing) + methods
    order = ("full", "random", "stratified", "short")
    everything.sort(key=lambda m: order.index(m.card.key) if m.card.key in order else len(order))
    return [method for method in everything if suits(method, data.train)]


def _cells(methods: Sequence[Any], budgets: Sequence[Budget], seeds: Sequence[int], data: Splits) -> Iterator[Cell]:
    smallest = min(budgets, key=lambda budget: _fraction(budget, data))
    for seed in seeds:
        for method in methods:
            own: Sequence[Budget | None] = budgets
            if isinstance(method, Training) and not isinstance(method, Short):
                own = [None]
            elif isinstance(method, Distiller):
                own = [smallest]  # synthetic sets are for the smallest budgets; larger ones cost more than they save
            yield from (Cell(method, budget, seed) for budget in own)


def _fraction(budget: Budget | None, data: Splits) -> float:
    if budget is None:
        return 1.0
    train = data.train
    try:
        return budget.fraction(len(train), max(1, train.classes))
    except BudgetError as error:
        raise BudgetError(f"{error} (training split of {train.info.source})") from error


def _make_points(
    todo: Sequence[Cell],
    points: dict[str, Point],
    data: Splits,
    recipe: Recipe,
    ctx: Context,
    max_seconds: float | None,
    started: float,
) -> None:
    plans: dict[tuple[str, int], Plan] = {}
    store = ctx.store
    assert store is not None
    with ctx.progress("compare", len(todo)) as done:
        for number, cell in enumerate(todo):
            if max_seconds is not None and time.monotonic() - started > max_seconds:
                return
            points[cell.name] = _point(cell, data, recipe, ctx, plans)
            store.write_json("points.json", {name: point.to_json() for name, point in points.items()})
            for left in [file for file in store.names() if file.endswith(".state")]:
                store.remove(left)
            done(number + 1)


def _point(cell: Cell, data: Splits, recipe: Recipe, ctx: Context, plans: dict[tuple[str, int], Plan]) -> Point:
    fraction = _fraction(cell.budget, data)
    steps = max(1, round(fraction * recipe.steps_for(len(data.train))))
    here = ctx.with_(seed=cell.seed, ledger=Ledger())
    plan = prepare(cell.method, cell.budget, data, recipe, here, plans)
    if cell.seed == ctx.seed:
        keep_for_report(plan, spec(cell.method), cell.budget, here)
    budget = str(cell.budget) if cell.budget else "100%"
    return trained_point(plan, steps, data, recipe, here, spec(cell.method), budget, cell.title)


def trained_point(
    plan: Plan, steps: int, data: Splits, recipe: Recipe, ctx: Context, method: str, budget: str, title: str
) -> Point:
    """Train by a plan and evaluate.

    Args:
        plan: What to train on.
        steps: Of the optimizer.
        data: The splits.
        recipe: Of the training, with the steps of the full schedule.
        ctx: Its seed is that of the point, its ledger holds what choosing has cost.
        method: Of the point.
        budget: Of the point.
        title: Of the checkpoint of the training.
    """
    done = _fit(plan, replace(recipe, steps=steps), ctx, title)
    valid, test = (evaluate(done.model, d, ctx, what=what) for d, what in ((data.valid, "valid"), (data.test, "test")))
    counts = plan.dataset.class_counts().tolist() if data.train.info.task == "classification" else []
    return Point(
        method=method,
        budget=budget,
        seed=ctx.seed,
        keep=done.ledger.total().samples / recipe.visits_for(len(data.train)),
        samples=len(plan.dataset),
        valid=valid.score,
        test=test.score,
        ledger=ctx.ledger,
        class_counts=tuple(counts),
        valid_right="" if valid.correct is None else pack_bits(valid.correct),
        test_right="" if test.correct is None else pack_bits(test.correct),
    )


def _fit(plan: Plan, recipe: Recipe, ctx: Context, name: str) -> Fit:
    """The same recipe for all, but for synthetic sets that nothing but their own will do for."""
    made = plan.made
    if made is None or not made.particular:
        return fit(plan.dataset, recipe, ctx, sampler=plan.sampler, name=name)
    objective = None if made.teacher is None else made.teacher.objective()
    own = ctx if made.seed is None else ctx.with_(seed=made.seed)
    return fit(plan.dataset, made.recipe, own, objective=objective, name=name)


# -- before the work ---------------------------------------------------------------------------------------------------


def _estimate(todo: Sequence[Cell], data: Splits, recipe: Recipe, full_seconds: float, ctx: Context) -> Estimate:
    seconds, trainings, seen = 0.0, 0.0, set()
    per_iteration: dict[str, float] = {}
    readings: dict[str, float] = {}
    for cell in todo:
        seconds += _fraction(cell.budget, data) * full_seconds
        trainings += 1
        if isinstance(cell.method, Distiller) and cell.budget is not None:
            key = f"{spec(cell.method)} {cell.budget}"
            if key not in per_iteration:
                per_iteration[key] = _time_iteration(cell, data, recipe, ctx)
            seconds += per_iteration[key] * cell.method.iterations  # type: ignore[attr-defined]
        key = spec(cell.method) if isinstance(cell.method, Valuation) else f"{spec(cell.method)} {cell.budget}"
        again = isinstance(cell.method, Valuation) and (cell.method, cell.seed) in seen  # scores are read once a seed
        reads = [isinstance(need, (Features, Utilities)) for need in cell.method.needs()]
        if not again and ((reads and all(reads)) or (not reads and isinstance(cell.method, Valuation))):
            seen.add((cell.method, cell.seed))
            if key not in readings:
                readings[key] = time_reading(cell.method, data, ctx, _fraction(cell.budget, data)).seconds
            seconds += readings[key]
        for need in cell.method.needs():
            if (need, cell.seed) not in seen:
                seen.add((need, cell.seed))
                seconds += need.trainings() * full_seconds
                trainings += need.trainings()
    inputs = sum(d.inputs.numel() * 4 for d in data)  # once more, as features
    return Estimate(seconds, peak_bytes() + inputs, round(trainings))


def _time_iteration(cell: Cell, data: Splits, recipe: Recipe, ctx: Context, iterations: int = 3) -> float:
    alone = ctx.with_(ledger=Ledger(), store=None, show=False)
    few = {"experts": 1} if hasattr(cell.method, "experts") else {}  # their trainings are estimated as such
    seconds = []
    for count in (1, iterations):
        method = replace(cell.method, iterations=count, **few)
        measured = measure(method, data, recipe, alone)
        started = time.perf_counter()
        method.distill(data, cell.budget, recipe, alone, *measured)
        seconds.append(time.perf_counter() - started)
    return seconds[1] / iterations


def _remember(store: Store, work: dict[str, Any], command: dict[str, Any]) -> None:
    key = content_key(work)
    if store.has("run.json"):
        if store.read_json("run.json")["key"] != key:
            raise ModicumError(f"{store.folder} holds another comparison; choose another folder or remove it")
        return
    store.write_json("run.json", {"key": key, **command, "environment": environment()})


def _points(store: Store) -> dict[str, Point]:
    if not store.has("points.json"):
        return {}
    return {name: Point.from_json(row) for name, row in store.read_json("points.json").items()}


def _notes(data: Splits, store: Store) -> tuple[str, ...]:
    """What a reader must know about the data; looked for once a run."""
    if not store.has("notes.json"):
        found = overlap(data)
        shared = [*found.valid.exact, *found.test.exact, *found.valid.near, *found.test.near]
        store.write_json("notes.json", [str(found)] if shared else [])
    return tuple(store.read_json("notes.json"))
