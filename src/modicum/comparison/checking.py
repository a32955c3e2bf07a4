"""Is a selection worth it? Models trained on it, beside what a user would do without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from modicum.comparison.compare import trained_point
from modicum.comparison.controls import Short
from modicum.comparison.frontier import Point, Row, summarize
from modicum.comparison.prepare import Plan, prepare
from modicum.comparison.recommend import Gap, gap
from modicum.context import Context
from modicum.dataset import Splits
from modicum.ledger import Ledger
from modicum.methods import make
from modicum.scores import Budget
from modicum.spec import content_key
from modicum.store import Store
from modicum.training.recipe import Recipe

__all__ = ["Check", "check_selection"]

FILE, OURS = "check.json", "selection"
Verdict: TypeAlias = Literal["better", "same", "worse", "unknown"]


@dataclass(frozen=True)
class Check:
    """What a selection is worth.

    Args:
        verdict: `better` when it is surely better than random subsets of its size, `worse` when they are surely better,
            `same` when neither, `unknown` when fewer than two models were trained.
        sentence: The answer.
        detail: The numbers behind it.
        rows: The selection, then its controls: scores of models trained on them for as many steps.
        gaps: How much better the selection is than each control on the validation split, in the order of the rows.
        metric: `accuracy` or `R²`.
        ledger: What the check cost.
    """

    verdict: Verdict
    sentence: str
    detail: str
    rows: Sequence[Row]
    gaps: Sequence[Gap]
    metric: str
    ledger: Ledger


def check_selection(
    plan: Plan, data: Splits, recipe: Recipe, ctx: Context, models: int = 3, store: Store | None = None
) -> Check | None:
    """Train models on a selection and on its controls, all for the same number of steps, and say what surely differs.

    The controls are `random` and, for classes, `stratified` subsets of the same size, another for every model, and `short`:
    all data for as many steps. Differences are judged on the validation split (see `modicum.comparison.recommend.gap`):
    models and validation samples both make them uncertain. That the choice itself would come out otherwise with other seeds
    is not seen here; `modicum.compare` sees it.

    Args:
        plan: The selection.
        data: The splits.
        recipe: How models are trained; a share of the data gets that share of the steps.
        ctx: Its seed is the first of the models'; after its deadline no further model is begun.
        models: How many are trained on each.
        store: Where points that are done are kept.

    Returns:
        The answer so far; None when no model was trained.
    """
    n, size = len(data.train), len(plan.dataset)
    steps = max(1, round(size / n * recipe.steps_for(n)))
    classified = data.train.info.task == "classification"
    controls = ["random", *(["stratified"] if classified else [])]
    budget, shown = Budget(keep=size), str(Budget(keep=size / n))
    key = content_key(plan.dataset.fingerprint, [d.fingerprint for d in data], recipe, ctx.seed)
    saved = store.read_json(FILE) if store and store.has(FILE) else {}
    known: dict[str, dict[str, object]] = saved["points"] if saved.get("key") == key else {}
    points = []
    with ctx.progress("check", models * (len(controls) + 2)) as done:
        for number, (seed, other) in enumerate(
            (s, o) for s in range(models) for o in (OURS, *controls, Short.card.key)
        ):
            title = f"{other} {seed}"
            if title not in known:
                if ctx.late():
                    continue
                here = ctx.with_(seed=ctx.seed + seed, ledger=Ledger(), store=None)
                used = plan if other == OURS else _control(other, budget, data, recipe, here)
                known[title] = trained_point(used, steps, data, recipe, here, other, shown, title).to_json()
                if store:
                    store.write_json(FILE, {"key": key, "points": known})
            points.append(Point.from_json(known[title]))
            done(number + 1)
    if not points:
        return None
    ledger = Ledger([replace(p.ledger.total(), phase="evaluate", what=f"check: {p.method}") for p in points])
    ctx.ledger.charges.extend(ledger.charges)
    rows = summarize(points)
    ordered = tuple(row for wanted in (OURS, *controls, Short.card.key) for row in rows if row.method == wanted)
    metric = "accuracy" if classified else "R²"
    return _judged(ordered, metric, ledger)


def _control(key: str, budget: Budget, data: Splits, recipe: Recipe, ctx: Context) -> Plan:
    return Plan(data.train) if key == Short.card.key else prepare(make(key), budget, data, recipe, ctx)


def _judged(rows: Sequence[Row], metric: str, ledger: Ledger) -> Check:
    ours, controls = rows[0], rows[1:]
    gaps = tuple(gap(ours, row) for row in controls)
    if len(ours.seeds) < 2 or not controls:
        sentence = "One model cannot show whether this is better than a random subset: train at least two."
        return Check("unknown", sentence, f"Its test {metric} is {_score(ours, metric)}.", rows, gaps, metric, ledger)
    pairs = list(zip(controls, gaps))
    verdict, sentence = _against_subsets([(row, found) for row, found in pairs if row.method != Short.card.key])
    sentence += "".join(_against_short(found) for row, found in pairs if row.method == Short.card.key)
    told = ", ".join(f"{_words(row)} {_score(row, metric)}" for row in controls)
    differences = "; ".join(_difference(row, found, metric) for row, found in pairs)
    detail = (
        f"Test {metric} of {len(ours.seeds)} models each, trained for as many steps: the selection {_score(ours, metric)}, {told}. "
        f"On the validation split the selection is {differences}."
    )
    return Check(verdict, sentence, detail, rows, gaps, metric, ledger)


def _against_subsets(pairs: Sequence[tuple[Row, Gap]]) -> tuple[Verdict, str]:
    if all(found.interval[0] > 0 for _, found in pairs):
        return "better", "They train better models than a random subset of as many"
    best, found = max(pairs, key=lambda pair: float(np.mean(pair[0].valid)))
    if found.interval[1] < 0:
        return "worse", f"Do not use them: {_words(best)} surely trains better models"
    if found.mean > found.error:
        return (
            "same",
            f"They may train better models than {_words(best)}, but {len(best.seeds)} models cannot make sure of it",
        )
    return "same", f"{_upper(_words(best))} would do as well: nothing makes sure that these are better"


def _against_short(found: Gap) -> str:
    if found.interval[0] > 0:
        return ", and better ones than all data for as many steps."
    if found.interval[1] < 0:
        return "; all data for as many steps train better ones still, at the same cost of training."
    return "; all data for as many steps would do as well, where only the cost of training counts."


def _difference(row: Row, found: Gap, metric: str) -> str:
    low, high = found.interval
    return f"{_signed(found.mean, metric)} from {_words(row)} (95 % interval {_signed(low, metric)} to {_signed(high, metric)})"


def _words(row: Row) -> str:
    return {
        "random": "a random subset",
        "stratified": "a stratified random subset",
        "short": "all data for as many steps",
    }[row.method]


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _score(row: Row, metric: str) -> str:
    mean = float(np.mean(row.test))
    return f"{100 * mean:.1f} %" if metric == "accuracy" else f"{mean:.3f}"


def _signed(value: float, metric: str) -> str:
    text = f"{100 * value:+.1f} points" if metric == "accuracy" else f"{value:+.3f}"
    return text.replace("-", "\N{MINUS SIGN}")
