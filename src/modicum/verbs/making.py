"""The verbs that make a data set or a model: select, distill, fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modicum.comparison.prepare import measure, prepare
from modicum.context import Context
from modicum.data import load
from modicum.dataset import Dataset, Splits
from modicum.distillation.distilled import Distilled
from modicum.errors import ModicumError
from modicum.methods import Distiller, Selector, Valuation, make
from modicum.scores import Budget, as_budget
from modicum.training.fit import Fit, default_recipe
from modicum.training.fit import fit as train
from modicum.training.recipe import Recipe

__all__ = ["distill", "fit", "select"]


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
    zca: float = 0.0,
    recipe: Recipe | None = None,
    ctx: Context | None = None,
    **options: Any,
) -> Distilled:
    """A small synthetic training set that says how it wants to be trained on.

    Args:
        data: What `modicum.load` understands; the training split is distilled.
        method: Key of a distillation method, with options or without, or a method object.
        keep: How much, as a fraction, a count, `1%` or a `Budget`.
        per_class: How many of each class, instead.
        zca: Whiten the images first, with so much added to the variances (0.1 is published); 0 is off.
        recipe: Gives the network.
        ctx: Device, seed, ledger, cache.
        options: For `load`, such as `label` or `limit`.

    Returns:
        The set and its recipe; `fit` takes it as it is.

    Raises:
        ModicumError: The method does not make samples, or the budget does not fit.

    Example:
        >>> len(distill("digits", "dm(iterations=2)", per_class=1))
        10
    """
    from modicum.distillation.whitening import whitened

    chosen, ctx = make(method) if isinstance(method, str) else method, ctx or Context()
    if not isinstance(chosen, Distiller):
        raise ModicumError(f"method {chosen.card.key!r} does not make samples; use a distillation method such as 'dm'")
    splits, whitening = load(data, **options), None
    if zca:
        splits, whitening = whitened(splits, zca)
    recipe = recipe or default_recipe(splits.train)
    made = chosen.distill(splits, _budget(keep, per_class), recipe, ctx, *measure(chosen, splits, recipe, ctx))
    return replace(made, whitening=whitening)


def fit(data: Any, recipe: Recipe | None = None, ctx: Context | None = None, **hooks: Any) -> Fit:
    """Train a model: `modicum.training.fit` for data in any form.

    Args:
        data: A `Dataset`, all of which is trained on, a `Distilled` set, or what `modicum.load` understands, whose training
            split is.
        recipe: How; one that suits the data when None, its own for a distilled set.
        ctx: Device, seed, ledger and store.
        hooks: `sampler`, `objective`, `recorder` and the other arguments of `modicum.training.fit`.

    Returns:
        The model, its history and its ledger.

    Example:
        >>> fit("iris", Recipe(model="linear", epochs=5)).recipe.model
        'linear'
    """
    if isinstance(data, Distilled):
        ctx = ctx or Context()
        ctx = ctx if data.seed is None else ctx.with_(seed=data.seed)
        if data.teacher is not None:
            hooks = {"objective": data.teacher.objective(), **hooks}
        return train(data.dataset, recipe or data.recipe, ctx, **hooks)
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
    splits: Splits = load(data, **options)
    recipe = recipe or default_recipe(splits.train)
    return prepare(method, _budget(keep, per_class), splits, recipe, ctx or Context()).dataset


def _budget(keep: Budget | float | int | str | None, per_class: int | None) -> Budget:
    if keep is not None and per_class is not None:
        raise ModicumError(f"keep={keep!r} and per_class={per_class!r} are both given; expected one of them")
    return Budget(per_class=per_class) if keep is None else as_budget(keep)
