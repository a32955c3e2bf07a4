"""The verbs, for data in any form: compare, score, select, distill, fit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modicum.comparison.compare import DEFAULT_METHODS, Estimate, describe, run, with_controls
from modicum.comparison.estimate import estimate_scoring
from modicum.comparison.frontier import Frontier
from modicum.comparison.prepare import prepare, score_with
from modicum.comparison.scoring import detection, keep_curves, true_labels
from modicum.context import Context, home
from modicum.data import corrupt_labels, load
from modicum.dataset import Dataset, Splits
from modicum.errors import ModicumError
from modicum.evidence import environment
from modicum.methods import Distiller, Selector, Valuation, as_methods, make, spec
from modicum.scores import Budget, Scores, as_budget
from modicum.spec import content_key
from modicum.store import Store
from modicum.training.fit import Fit, default_recipe
from modicum.training.fit import fit as train
from modicum.training.recipe import Recipe

__all__ = ["compare", "distill", "fit", "score", "select"]


def compare(
    data: Any,
    methods: Sequence[Any] = DEFAULT_METHODS,
    budgets: Sequence[Budget | float | int | str] = ("10%", "30%", "50%"),
    seeds: int = 5,
    recipe: Recipe | None = None,
    *,
    target: float | None = None,
    margin: float = 0.005,
    max_seconds: float | None = None,
    ctx: Context | None = None,
    folder: str | os.PathLike[str] | None = None,
    announce: Callable[[Estimate], None] = lambda estimate: None,
    **options: Any,
) -> Frontier:
    """Find out which way of spending less works on this data set, and what it saves once choosing is paid for.

    For each seed, method and budget: choose or make what to train on, train by the same recipe for the same number of
    steps, evaluate. The controls `full`, `random`, `stratified` and `short` take part whatever is asked for. Choices are
    made on the validation split and reported on the test split.

    Args:
        data: What `modicum.load` understands.
        methods: Keys, keys with options, or method objects; those that do not work on the data are left out.
        budgets: How much to keep, such as `10%`, 500 or `10/class`.
        seeds: Number of repetitions; fewer than two give no interval.
        recipe: How to train; one that suits the data when None.
        target: The score on the validation split to reach; the mean of the full runs less `margin` when None.
        margin: See `target`.
        max_seconds: Stop then, with the best answer so far; running again goes on.
        ctx: Device, cache, and whether to show progress. Its seed is the first of the seeds.
        folder: Of the run; made from the description of the work when None, so that running again continues.
        announce: Is told the estimate before the work starts.
        options: For `load`, such as `label` or `limit`.

    Returns:
        The frontier; its page is at `frontier.report`.

    Raises:
        ModicumError: The data or an argument cannot be used.

    Example:
        >>> import tempfile
        >>> short = Recipe(model="linear", epochs=2)
        >>> found = compare("iris", ["random"], ["50%"], seeds=2, recipe=short, folder=tempfile.mkdtemp())
        >>> sorted({point.method for point in found.points})
        ['full', 'random', 'short', 'stratified']
    """
    from modicum.report.write import write_report

    ctx = ctx or Context()
    splits = load(data, **options)
    recipe = recipe or default_recipe(splits.train)
    chosen, asked = with_controls(as_methods(methods), splits), [as_budget(b) for b in budgets]
    if folder is None:
        work = describe(splits, chosen, asked, seeds, recipe, ctx)
        named = isinstance(data, (str, os.PathLike))
        name = Path(os.path.normpath(data)).stem.replace(":", "-") if named else "data"
        folder = home() / f"compare-{name}-{content_key(work, length=8)}"
    store = Store(folder)
    settings = {"command": "compare", "data": str(data), "limit": None, "label": None, **options}
    with store.locked():
        here = ctx.with_(store=store, cache=ctx.cache or home() / "cache")
        frontier = run(
            splits,
            chosen,
            asked,
            seeds,
            recipe,
            here,
            target=target,
            margin=margin,
            max_seconds=max_seconds,
            settings=settings,
            announce=announce,
        )
        write_report(frontier, splits, store)
    return frontier


def score(
    data: Any,
    method: Any = "knn-shapley",
    recipe: Recipe | None = None,
    ctx: Context | None = None,
    *,
    max_seconds: float | None = None,
    folder: str | os.PathLike[str] | None = None,
    truth: str | None = None,
    corrupt: float | None = None,
    curves: str | None = "ridge",
    announce: Callable[[Estimate], None] | None = None,
    **options: Any,
) -> Scores:
    """One number for each training sample.

    Args:
        data: What `modicum.load` understands; the training split is scored, the validation split may be read. A data
            set without splits is split first.
        method: Key of a valuation method, with options or without, or a method object.
        recipe: Of the proxies that the method trains; one that suits the data when None.
        ctx: Device, seed, ledger, cache.
        max_seconds: Methods that get better the longer they run give their best answer then, with standard errors; the
            same call goes on from there where there is a folder.
        folder: Where tables, the page `report.html` and the state of unfinished work go; nothing is written when None.
        truth: Name of the column with the right labels, where they are known: the page says how many of the wrong ones
            were found.
        corrupt: Share of the training labels to replace by wrong ones first, for the same purpose.
        curves: Learner of the curves on the page, such as `ridge` or `network`; None leaves them out.
        announce: Is told the estimate before the work starts, unless `max_seconds` bounds it.
        options: For `load`, such as `label` or `limit`.

    Returns:
        Scores with their kind, unit, standard errors where there are any, and cost.

    Raises:
        ModicumError: The method gives no scores, or an argument cannot be used.

    Example:
        >>> scores = score("iris", "knn-shapley")
        >>> scores.kind, len(scores)
        ('value', 90)
    """
    chosen = make(method) if isinstance(method, str) else method
    if not isinstance(chosen, Valuation):
        raise ModicumError(f"method {chosen.card.key!r} gives no scores; use select or distill, or a valuation method")
    if truth is not None and corrupt is not None:
        raise ModicumError(f"truth={truth!r} and corrupt={corrupt} are both given; expected one of them")
    if max_seconds is not None and max_seconds < 0:
        raise ModicumError(f"max_seconds={max_seconds}; expected seconds >= 0")
    ctx = ctx or Context()
    splits, right = load(data, **options), None
    if corrupt is not None:
        right = splits.train.labels.numpy().copy()
        noisy, _ = corrupt_labels(splits.train, corrupt, seed=ctx.seed)
        splits = splits._replace(train=noisy)
    elif truth is not None:
        right = true_labels(data, splits.train, truth, options)
    recipe = recipe or default_recipe(splits.train)
    if max_seconds is not None:
        ctx = ctx.with_(deadline=time.monotonic() + max_seconds)
    elif announce is not None:
        announce(estimate_scoring(chosen, splits, recipe, ctx))
    if folder is None:
        return score_with(chosen, splits, recipe, ctx)
    from modicum.report.write_scores import write_scores

    store = Store(folder)
    settings = {
        **{"command": "score", "data": str(data), "label": None, "limit": None, **options},
        **{"method": spec(chosen), "recipe": asdict(recipe), "seed": ctx.seed, "environment": environment()},
        **{"truth": truth, "corrupt": corrupt, "curves": curves},
    }
    with store.locked():
        store.write_json("run.json", settings)
        scores = score_with(chosen, splits, recipe, ctx.with_(store=store))
        found = None if right is None else detection(scores, right != splits.train.labels.numpy())
        shown = None if curves is None else keep_curves(scores, splits, ctx, curves, recipe)
        write_scores(scores, splits, store, settings, shown, found, right)
    return scores


def select(
    data: Any,
    method: Any = "knn-shapley",
    keep: Budget | float | int | str | None = None,
    *,
    per_class: int | None = None,
    recipe: Recipe | None = None,
    ctx: Context | None = None,
    **options: Any,
) -> Dataset:
    """The training samples worth keeping.

    Args:
        data: What `modicum.load` understands; samples of the training split are chosen.
        method: Key of a valuation or selection method, with options or without, or a method object.
        keep: How much, as a fraction, a count, `30%` or a `Budget`.
        per_class: How many of each class, instead.
        recipe: Of the proxies that the method trains.
        ctx: Device, seed, ledger, cache.
        options: For `load`, such as `label` or `limit`.

    Returns:
        The kept samples, with the ids they came with.

    Raises:
        ModicumError: The method does not choose samples, or the budget does not fit.

    Example:
        >>> len(select("digits", "random", keep=0.1))
        108
    """
    chosen = make(method) if isinstance(method, str) else method
    if not isinstance(chosen, (Valuation, Selector)):
        raise ModicumError(f"method {chosen.card.key!r} does not choose samples; use a valuation or selection method")
    return _prepared(data, chosen, keep, per_class, recipe, ctx, options)


def distill(
    data: Any,
    method: Any = "dm",
    keep: Budget | float | int | str | None = None,
    *,
    per_class: int | None = None,
    recipe: Recipe | None = None,
    ctx: Context | None = None,
    **options: Any,
) -> Dataset:
    """A small synthetic training set; the arguments are those of `select`.

    Raises:
        ModicumError: The method does not make samples, or the budget does not fit.

    Example:
        >>> len(distill("digits", "dm(iterations=2)", per_class=1))
        10
    """
    chosen = make(method) if isinstance(method, str) else method
    if not isinstance(chosen, Distiller):
        raise ModicumError(f"method {chosen.card.key!r} does not make samples; use a distillation method such as 'dm'")
    return _prepared(data, chosen, keep, per_class, recipe, ctx, options)


def fit(data: Any, recipe: Recipe | None = None, ctx: Context | None = None, **hooks: Any) -> Fit:
    """Train a model: `modicum.training.fit` for data in any form.

    Args:
        data: A `Dataset`, all of which is trained on, or what `modicum.load` understands, whose training split is.
        recipe: How; one that suits the data when None.
        ctx: Device, seed, ledger and store.
        hooks: `sampler`, `objective`, `recorder` and the other arguments of `modicum.training.fit`.

    Returns:
        The model, its history and its ledger.

    Example:
        >>> fit("iris", Recipe(model="linear", epochs=5)).recipe.model
        'linear'
    """
    dataset = data if isinstance(data, Dataset) else load(data).train
    return train(dataset, recipe, ctx, **hooks)


def _prepared(
    data: Any,
    method: Any,
    keep: Budget | float | int | str | None,
    per_class: int | None,
    recipe: Recipe | None,
    ctx: Context | None,
    options: dict[str, Any],
) -> Dataset:
    budget = Budget(per_class=per_class) if keep is None else as_budget(keep)
    if keep is not None and per_class is not None:
        raise ModicumError(f"keep={keep!r} and per_class={per_class!r} are both given; expected one of them")
    splits: Splits = load(data, **options)
    return prepare(method, budget, splits, recipe or default_recipe(splits.train), ctx or Context()).dataset
