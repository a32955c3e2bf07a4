"""From a method and a budget to what is trained on, with the whole cost of choosing on the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modicum.context import Context
from modicum.dataset import Dataset, Splits
from modicum.distillation.distilled import Distilled
from modicum.errors import ModicumError
from modicum.ledger import Ledger
from modicum.methods import Distiller, Selector, Training, Valuation, spec
from modicum.scores import Budget, Scores, Selection
from modicum.training.order import Sampler
from modicum.training.recipe import Recipe

__all__ = ["Plan", "measure", "prepare", "score_with"]


@dataclass(frozen=True)
class Plan:
    """What to train on.

    Args:
        dataset: The samples.
        sampler: Gives their order; the plain one when None.
        scores: Where the samples were chosen by scores.
        selection: Where samples were chosen.
        made: Where the samples were made; how they are trained on when nothing but their own recipe will do.
    """

    dataset: Dataset
    sampler: Sampler | None = None
    scores: Scores | None = None
    selection: Selection | None = None
    made: Distilled | None = None


def measure(method: Any, data: Splits, recipe: Recipe, ctx: Context) -> list[Any]:
    """What the method needs, measured now or read from the cache, and charged in full."""
    return [need.measure(data, recipe, ctx) for need in method.needs()]


def score_with(method: Valuation, data: Splits, recipe: Recipe, ctx: Context) -> Scores:
    """Scores of the training samples, with their cost; the cost is entered in `ctx.ledger` too."""
    from dataclasses import replace

    inner = ctx.with_(ledger=Ledger())
    scores = method.score(data, inner, *measure(method, data, recipe, inner))
    ctx.ledger.charges.extend(inner.ledger.charges)
    return replace(scores, ledger=inner.ledger)


def prepare(
    method: Any,
    budget: Budget | None,
    data: Splits,
    recipe: Recipe,
    ctx: Context,
    known: dict[tuple[str, int], Plan] | None = None,
) -> Plan:
    """Choose, make or order what to train on.

    Args:
        method: Of any family.
        budget: How much; None for methods without one.
        data: Choices are made on `train` and `valid` only.
        recipe: Of the training that follows; proxies use it too.
        ctx: Seed, ledger, store and cache.
        known: Scores that were read before, by method and seed; their cost is charged again in full.

    Raises:
        ModicumError: The method has no verb that prepares training.
    """
    known = {} if known is None else known
    train, key = data.train, (spec(method), ctx.seed)
    if isinstance(method, Training):
        return Plan(train, method.sampler(data, recipe, ctx))
    assert budget is not None
    if isinstance(method, Valuation):
        if key not in known:
            known[key] = Plan(train, scores=score_with(method, data, recipe, ctx.with_(ledger=Ledger())))
        scores = known[key].scores
        assert scores is not None
        assert scores.ledger is not None
        ctx.ledger.charges.extend(scores.ledger.charges)
        chosen = Selection(scores.kept(budget), values=scores.values, unit=scores.unit, note=scores.note)
        return Plan(chosen.taken_from(train), scores=scores, selection=chosen)
    if isinstance(method, Selector):
        measured = measure(method, data, recipe, ctx)
        chosen = method.select(data, budget, ctx, *measured)
        return Plan(chosen.taken_from(train), selection=chosen)
    if isinstance(method, Distiller):
        made = method.distill(data, budget, recipe, ctx, *measure(method, data, recipe, ctx))
        return Plan(made.dataset, made=made)
    raise ModicumError(
        f"{type(method).__name__} has none of score, select, distill, sampler; a method needs one of them"
    )
