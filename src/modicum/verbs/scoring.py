"""The verb score."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from modicum.comparison.compare import Estimate
from modicum.comparison.estimate import estimate_scoring
from modicum.comparison.prepare import score_with
from modicum.comparison.scoring import detection, keep_curves, true_labels
from modicum.context import Context
from modicum.data import corrupt_labels, load
from modicum.errors import ModicumError
from modicum.evidence import environment
from modicum.methods import Valuation, make, spec, suited
from modicum.scores import Scores
from modicum.store import Store
from modicum.training.fit import default_recipe
from modicum.training.recipe import Recipe

__all__ = ["score"]


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
    suited(chosen, splits.train)
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
