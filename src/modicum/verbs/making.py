"""The verbs that make a synthetic data set or a model: distill, fit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from modicum.comparison.distilling import estimate_distilling, judge
from modicum.comparison.estimate import Estimate
from modicum.comparison.prepare import measure
from modicum.context import Context
from modicum.data import load
from modicum.dataset import Dataset, Splits
from modicum.distillation.artefact import Source, is_artefact, load_distilled, save_distilled
from modicum.distillation.distilled import Distilled
from modicum.distillation.whitening import whitened
from modicum.errors import ModicumError
from modicum.evidence import environment
from modicum.ledger import Ledger
from modicum.methods import Distiller, Training, make, spec, suited
from modicum.scores import Budget, budget_of
from modicum.spec import content_key
from modicum.store import Store
from modicum.training.fit import Fit, default_recipe
from modicum.training.fit import fit as train
from modicum.training.order import Mixture
from modicum.training.recipe import Recipe
from modicum.verbs.mixing import Mixed

__all__ = ["distill", "fit"]


def distill(
    data: Any,
    method: Any = "dm",
    keep: Budget | float | int | str | None = None,
    *,
    per_class: int | None = None,
    zca: float = 0.0,
    recipe: Recipe | None = None,
    ctx: Context | None = None,
    max_seconds: float | None = None,
    folder: str | os.PathLike[str] | None = None,
    networks: int = 3,
    controls: bool = True,
    architectures: tuple[str, ...] | None = None,
    announce: Callable[[Estimate], None] | None = None,
    **options: Any,
) -> Distilled:
    """A small synthetic training set that says how it wants to be trained on.

    In a folder it is judged as well: its best moment is chosen on the validation split, and new networks are trained on
    it, beside what it has to beat, and tested on the test split.

    Args:
        data: What `modicum.load` understands; the training split is distilled.
        method: Key of a distillation method, with options or without, or a method object.
        keep: How much, as a fraction, a count, `1%` or a `Budget`.
        per_class: How many of each class, instead.
        zca: Whiten the images first, with so much added to the variances (0.1 is published); 0 is off.
        recipe: Gives the network, and how one is trained on all data.
        ctx: Device, seed, ledger, cache.
        max_seconds: Stop then, with the set as it is; the same call goes on from there where there is a folder.
        folder: Where the set, the page `report.html` and the state of unfinished work go; nothing is written when None.
        networks: How many are trained for each accuracy; 0 leaves the set unjudged. Only with a folder.
        controls: Whether random and k-center real samples, soft labels alone, all data, other architectures and robust
            scores are measured beside it.
        architectures: Of the table of other architectures; what suits the data when None.
        announce: Is told the estimate before the work starts, unless `max_seconds` bounds it.
        options: For `load`, such as `label` or `limit`.

    Returns:
        The set and its recipe; `fit` takes it as it is.

    Raises:
        ModicumError: The method does not make samples, the budget does not fit, or an argument cannot be used.

    Example:
        >>> len(distill("digits", "dm(iterations=2)", per_class=1))
        10
    """
    chosen, ctx = make(method) if isinstance(method, str) else method, ctx or Context()
    if not isinstance(chosen, Distiller):
        raise ModicumError(f"method {chosen.card.key!r} does not make samples; use a distillation method such as 'dm'")
    if max_seconds is not None and max_seconds < 0:
        raise ModicumError(f"max_seconds={max_seconds}; expected seconds >= 0")
    if networks < 0:
        raise ModicumError(f"networks={networks}; expected an integer >= 0")
    budget, splits = budget_of(keep, per_class), load(data, **options)
    suited(chosen, splits.train)
    given, recipe = recipe, recipe or default_recipe(splits.train)
    if max_seconds is not None:
        ctx = ctx.with_(deadline=time.monotonic() + max_seconds)
    elif announce is not None:
        judges = networks if folder is not None else 0
        announce(estimate_distilling(chosen, splits, budget, recipe, ctx, judges, controls, architectures))
    if folder is None:
        return _made(chosen, splits, budget, recipe, ctx, zca)
    from modicum.report.write_distillation import write_distillation

    store, source = Store(folder), Source.of(data, splits.train, options.get("label"), options.get("limit"))
    settings: dict[str, Any] = {
        **{"command": "distill", "data": str(data), "label": None, "limit": None, **options},
        **{"method": spec(chosen), "keep": budget.text, "zca": zca, "recipe": asdict(given) if given else {}},
        **{"seed": ctx.seed, "networks": networks, "controls": controls, "architectures": architectures},
    }
    work = content_key(spec(chosen), budget.text, zca, recipe, ctx.seed, splits.train.fingerprint)
    with store.locked():
        before = store.read_json("run.json") if store.has("run.json") else {}
        done: dict[str, Any] = before.get("making", {}) if before.get("work") == work else {}
        settings |= {"work": work, "making": done, "environment": environment()}
        store.write_json("run.json", settings)
        if done.get("finished") and is_artefact(store.folder):
            made, spent = load_distilled(store.folder), Ledger.from_json(done["ledger"])
        else:
            inner = ctx.with_(store=store, ledger=Ledger())
            made, spent = _made(chosen, splits, budget, recipe, inner, zca), inner.ledger
            save_distilled(made, store.folder, source)
            settings["making"] = {"finished": _finished(chosen, made, ctx), "ledger": spent.to_json()}
            store.write_json("run.json", settings)
        finished = settings["making"]["finished"]
        ctx.ledger.charges.extend(spent.charges)
        found: dict[str, Any] = {"ledger": [], "finished": finished}
        if networks and finished:
            best, found = judge(made, splits, budget, recipe, ctx, store, work, networks, controls, architectures)
            if best is not made:
                made = best
                save_distilled(made, store.folder, source)
        for name in store.names() if finished else ():
            if name.endswith(".state"):
                store.remove(name)
        write_distillation(made, splits, store, settings, spent, found)
    return made


def _made(chosen: Distiller, data: Splits, budget: Budget, recipe: Recipe, ctx: Context, zca: float) -> Distilled:
    whitening = None
    if zca:
        with ctx.ledger.clock("choose", "zca", samples=len(data.train)) as counts:
            data, whitening = whitened(data, zca)
            # the covariance and the whitening of each split are products of (n, d) with (d, d); the rest is cubic
            d = len(whitening.mean)
            counts["extra_flops"] = 2 * d * d * (len(data.train) + sum(map(len, data))) + 9 * d**3
    made = chosen.distill(data, budget, recipe, ctx, *measure(chosen, data, recipe, ctx))
    return replace(made, whitening=whitening)


def _finished(chosen: Any, made: Distilled, ctx: Context) -> bool:
    """Whether the making came to its end before the deadline."""
    total = getattr(chosen, "iterations", None)
    return not ctx.late() or (total is not None and made.history.get("iteration", [0])[-1] >= total)


def fit(
    data: Any,
    recipe: Recipe | None = None,
    ctx: Context | None = None,
    *,
    method: Any = None,
    mixture: Mapping[str, float] | None = None,
    **hooks: Any,
) -> Fit:
    """Train a model: `modicum.training.fit` for data in any form.

    Args:
        data: A `Dataset`, all of which is trained on, a `Distilled` set or the folder of one, a mixture made by
            `modicum.mix`, which brings its own weights, or what `modicum.load` understands, whose training split is.
        recipe: How; one that suits the data when None, its own for a distilled set.
        ctx: Device, seed, ledger and store.
        method: Which samples are visited when: a method that selects while training, such as `infobatch`, or its key. One
            that looks at a validation split looks at the samples themselves where `data` has none.
        mixture: Share of the visits of each source of a mixture, by name; `ledger.epochs()` of the fit has the epochs
            elapsed of each.
        hooks: `sampler`, `objective`, `recorder` and the other arguments of `modicum.training.fit`.

    Returns:
        The model, its history and its ledger.

    Raises:
        ModicumError: The data or an argument cannot be used, or two of them do not go together.

    Example:
        >>> short = Recipe(model="linear", epochs=5, batch_size=10)
        >>> fit("iris", short).ledger.total().samples
        450
        >>> fit("iris", short, method="hard-samples").ledger.total().samples < 450
        True
    """
    if is_artefact(data):
        data = load_distilled(data)
    if isinstance(data, Distilled):
        if mixture is not None or method is not None:
            name, given = ("mixture", dict(mixture)) if mixture is not None else ("method", method)
            raise ModicumError(f"{name}={given!r} is given, but a distilled set is trained on in its own way")
        ctx = ctx or Context()
        ctx = ctx if data.seed is None else ctx.with_(seed=data.seed)
        if data.teacher is not None:
            hooks = {"objective": data.teacher.objective(), **hooks}
        return train(data.dataset, recipe or data.recipe, ctx, **hooks)
    if isinstance(data, Mixed):
        mixture, data = mixture or data.weights, data.splits.train
    splits = Splits(data, data, data) if isinstance(data, Dataset) else load(data)
    dataset, ctx = splits.train, ctx or Context()
    if mixture is not None and method is not None:
        raise ModicumError(
            f"mixture={dict(mixture)} and method={method!r} both say what is visited; expected one of them"
        )
    if mixture is not None:
        hooks = {"sampler": Mixture(dataset, mixture, ctx.seed), **hooks}
    if method is not None:
        chosen = make(method) if isinstance(method, str) else method
        recipe = recipe or default_recipe(dataset)
        sampler = suited(chosen, dataset).sampler(splits, recipe, ctx) if isinstance(chosen, Training) else None
        if sampler is None:
            raise ModicumError(
                f"method {chosen.card.key!r} does not select while training; expected one that does, such as 'infobatch'"
            )
        hooks = {"sampler": sampler, **hooks}
    return train(dataset, recipe, ctx, **hooks)
