"""The main verb: compare."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from modicum.comparison.compare import DEFAULT_METHODS, Estimate, describe, run, with_controls
from modicum.comparison.frontier import Frontier
from modicum.context import Context, home
from modicum.data import load
from modicum.errors import ModicumError
from modicum.methods import Pretraining, as_methods, suited
from modicum.scores import Budget, as_budget
from modicum.spec import content_key
from modicum.store import Store
from modicum.training.fit import default_recipe
from modicum.training.recipe import Recipe

__all__ = ["compare"]


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
    given = as_methods(methods)
    if learners := [method.card.key for method in given if isinstance(method, Pretraining)]:
        raise ModicumError(
            f"method {learners[0]!r} learns without labels and says nothing about what to train on; use "
            f"`modicum pretrain DATA --method {learners[0]}`"
        )
    if tuple(methods) != DEFAULT_METHODS:  # of those, some are for other kinds of data
        given = [suited(method, splits.train) for method in given]
    chosen, asked = with_controls(given, splits), [as_budget(b) for b in budgets]
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
