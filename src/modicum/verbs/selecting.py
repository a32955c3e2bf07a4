"""The verb select."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from modicum.comparison.checking import Check, check_selection
from modicum.comparison.estimate import Estimate, estimate_selecting
from modicum.comparison.prepare import Plan, prepare
from modicum.context import Context
from modicum.data import load, save_rows
from modicum.dataset import Dataset, Splits
from modicum.errors import ModicumError
from modicum.evidence import environment
from modicum.ledger import Ledger
from modicum.methods import Selector, Valuation, make, spec, suited
from modicum.scores import Budget, Selection, budget_of
from modicum.selection.table import read_selection, selection_table
from modicum.spec import format_call
from modicum.store import Store
from modicum.training.fit import default_recipe
from modicum.training.recipe import Recipe

__all__ = ["RULES", "select", "with_rule"]

RULES = {
    "hardest": ("ranked", {"order": "hardest"}),
    "easiest": ("ranked", {"order": "easiest"}),
    "middle": ("ranked", {"order": "middle"}),
    "ccs": ("ccs", {}),
    "d2-pruning": ("d2-pruning", {}),
    "auto": ("auto", {}),
}
"""Which of the scored samples to keep: the method of each rule, and its options."""


def with_rule(method: Any, rule: str | None, class_balance: float | None = None) -> Any:
    """A selection method from a score and a rule.

    Args:
        method: Key of a valuation, or a selection method as it is.
        rule: One of `RULES`; None for the order that the score itself is for.
        class_balance: The floor of every class (see `Scores.kept`); None for that of the method.

    Raises:
        ModicumError: The rule is unknown, or the method has no room for it.

    Example:
        >>> spec(with_rule("el2n(runs=3)", "ccs"))
        "ccs(score='el2n(runs=3)')"
    """
    chosen = make(method) if isinstance(method, str) else method
    if not isinstance(chosen, (Valuation, Selector)):
        raise ModicumError(f"method {chosen.card.key!r} does not choose samples; use a valuation or selection method")
    if rule is None and class_balance is None:
        return chosen
    if rule is not None and rule not in RULES:
        raise ModicumError(f"rule={rule!r} is unknown; expected one of {', '.join(RULES)}")
    if isinstance(chosen, Valuation):
        key, options = RULES[rule] if rule else ("ranked", {})
        text = format_call(key, {"score": spec(chosen), **options})
        chosen = make(text)
    elif rule is not None:
        raise ModicumError(
            f"rule={rule!r} is for scores, but {chosen.card.key!r} chooses by itself; expected a valuation such as 'el2n'"
        )
    if class_balance is not None:
        if "class_balance" not in {f.name for f in fields(chosen)}:
            raise ModicumError(f"class_balance={class_balance} is given, but {chosen.card.key!r} has no such option")
        chosen = replace(chosen, class_balance=class_balance)
    return chosen


def select(
    data: Any,
    method: Any = "facility-location",
    keep: Budget | float | int | str | None = None,
    *,
    per_class: int | None = None,
    rule: str | None = None,
    class_balance: float | None = None,
    table: str | os.PathLike[str] | None = None,
    recipe: Recipe | None = None,
    ctx: Context | None = None,
    max_seconds: float | None = None,
    folder: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    dropped: str | os.PathLike[str] | None = None,
    models: int = 3,
    announce: Callable[[Estimate], None] | None = None,
    **options: Any,
) -> Dataset:
    """The training samples worth keeping.

    In a folder it is checked as well: models are trained on what is kept, on random subsets of the same size, and on all data
    for as many steps, and the answer says whether choosing was worth it.

    Args:
        data: What `modicum.load` understands; samples of the training split are chosen.
        method: Key of a valuation or selection method, with options or without, or a method object.
        keep: How much, as a fraction, a count, `30%` or a `Budget`.
        per_class: How many of each class, instead.
        rule: Which of the scored samples to keep: `hardest`, `easiest`, `middle`, `ccs`, `d2-pruning` or `auto`; what the
            score itself is for when None.
        class_balance: In [0, 1]: every class keeps at least this share of what it would get if all classes got as many.
        table: Table of an earlier selection, perhaps edited, to apply instead of a method.
        recipe: Of the proxies that the method trains, and of the check.
        ctx: Device, seed, ledger, cache.
        max_seconds: Methods that get better the longer they run give their best answer then, and no further model is trained
            for the check.
        folder: Where the table of all samples and the page `report.html` go; nothing is written there when None.
        out: Where the kept samples go (see `modicum.data.save_rows`); nowhere when None.
        dropped: Where the samples that are left out go, likewise.
        models: How many are trained on the selection and on each control; 0 leaves it unchecked. Only with a folder.
        announce: Is told the estimate before the work starts, unless `max_seconds` bounds it.
        options: For `load`, such as `label` or `limit`.

    Returns:
        The kept samples, with the ids they came with, and weights where the method has them.

    Raises:
        ModicumError: The method does not choose samples, an argument cannot be used, or the budget does not fit.

    Example:
        >>> len(select("digits", "random", keep=0.1))
        108
    """
    ctx, splits = ctx or Context(), load(data, **options)
    for name, value in (("models", models), ("max_seconds", max_seconds or 0)):
        if value < 0:
            raise ModicumError(f"{name}={value}; expected a number >= 0")
    if table is not None:
        if keep is not None or per_class is not None or rule is not None:
            raise ModicumError(f"table={str(table)!r} says which samples to keep; leave keep, per_class and rule out")
        chosen, budget = None, None
    else:
        chosen = suited(with_rule(method, rule, class_balance), splits.train)
        budget = budget_of(keep, per_class)
    files = {
        name: None if path is None else Path(path).absolute() for name, path in (("out", out), ("dropped", dropped))
    }
    before = Store(folder).read_json("run.json") if folder is not None and Store(folder).has("run.json") else {}
    for name, path in files.items():
        made_here = path is not None and before.get("command") == "select" and before.get(name) == str(path)
        if path is not None and path.is_dir() and any(path.iterdir()) and not made_here:
            raise ModicumError(f"{name}={str(path)!r} is not an empty folder; choose another one, or a file name")
    given, recipe = recipe, recipe or default_recipe(splits.train)
    if max_seconds is not None:
        ctx = ctx.with_(deadline=time.monotonic() + max_seconds)
    elif announce is not None:
        checked = models if folder is not None else 0
        announce(estimate_selecting(chosen, splits, budget, recipe, ctx, checked))
    if folder is None:
        plan = _chosen(chosen, table, budget, splits, recipe, ctx)
        _save(data, plan, splits.train, files, options)
        return plan.dataset
    store = Store(folder)
    with store.locked():
        plan = _chosen(chosen, table, budget, splits, recipe, ctx.with_(store=store))
        assert plan.selection is not None
        name = spec(chosen) if chosen is not None else "table"
        settings: dict[str, Any] = {
            **{"command": "select", "data": str(data), "label": None, "limit": None, **options},
            **{"method": name, "keep": budget.text if budget else None, "table": None if table is None else str(table)},
            **{"recipe": asdict(given) if given else {}, "seed": ctx.seed, "models": models},
            **{name: None if path is None else str(path) for name, path in files.items()},
            **{"environment": environment()},
        }
        store.write_table("samples.parquet", selection_table(plan.selection, splits.train))
        store.write_json("run.json", settings)
        _save(data, plan, splits.train, files, options)
        _written(plan, splits, recipe, ctx, store, settings)
    return plan.dataset


def _save(data: Any, plan: Plan, train: Dataset, files: dict[str, Path | None], options: dict[str, Any]) -> None:
    """The kept samples and those left out, in the form they came in."""
    assert plan.selection is not None
    columns = {name: options[name] for name in ("inputs", "label", "header") if name in options}
    for path in files.values():
        if path is not None and path.is_dir():  # empty, or made by this run before
            shutil.rmtree(path)
    if files["out"] is not None:
        save_rows(data, plan.dataset, files["out"], **columns)
    if files["dropped"] is not None:
        rest = np.setdiff1d(np.arange(len(train)), plan.selection.positions)
        if not len(rest):
            raise ModicumError(f"dropped={str(files['dropped'])!r} is asked for, but every sample is kept")
        save_rows(data, train[rest], files["dropped"], **columns)


def _chosen(chosen: Any, table: Any, budget: Budget | None, data: Splits, recipe: Recipe, ctx: Context) -> Plan:
    if chosen is None:
        selection: Selection = read_selection(table, data.train)
        return Plan(selection.taken_from(data.train), selection=selection)
    return prepare(chosen, budget, data, recipe, ctx)


def _written(
    plan: Plan,
    data: Splits,
    recipe: Recipe,
    ctx: Context,
    store: Store,
    settings: dict[str, Any],
) -> None:
    from modicum.report.write_selection import write_selection

    choosing = Ledger(list(ctx.ledger.charges))
    check: Check | None = None
    if settings["models"]:
        check = check_selection(plan, data, recipe, ctx, settings["models"], store)
    write_selection(plan, data, store, settings, choosing, check)
