"""What the methods that ask for the worth of sets share: the training samples as players, in the order of their ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from modicum.arrays import NumPy
from modicum.errors import DataError
from modicum.reading import by_id, labels_of
from modicum.scores import Scores
from modicum.spec import content_key
from modicum.valuation.game import Estimate, tolerance_of
from modicum.valuation.permutations import PermutationRun, carry_out

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.utilities import Utility
    from modicum.store import Stateful
    from modicum.valuation.semivalues import Kind

__all__ = ["as_scores", "checked", "estimate_by_permutations", "steps_of"]


def checked(data: Splits, utility: Utility | None = None) -> tuple[NumPy | None, NumPy]:
    """(n,) labels of the training samples, None for regression, and (n,) their positions in the order of the ids.

    Raises:
        DataError: No samples, no labels, one class only, ids that repeat, or a utility of other samples.
    """
    regression = data.train.info.task == "regression" and len(data.train) > 0
    labels = None if regression else labels_of("train", data.train, classes=2).numpy()
    order = by_id(data.train).numpy()
    if utility is not None and (utility.groups is not None or utility.players != len(order)):
        raise DataError(f"utilities have {utility.players} players; expected the {len(order)} training samples")
    return labels, order


def steps_of(
    method: Any, data: Splits, ctx: Context, utility: Utility | None = None
) -> Callable[[int, list[Stateful]], Iterator[int]]:
    """The resumable loop of a method that has an answer at any time; its name and its description say all it depends on."""
    asked = (repr(utility.learner), utility.metric, repr(utility.problem.recipe)) if utility else ()
    work = (repr(method), asked, data.train.fingerprint, data.valid.fingerprint, ctx.seed)
    name = f"{method.card.key}-{content_key(work)}"
    return lambda steps, state: ctx.loop(name, steps, state, work, anytime=True)


def estimate_by_permutations(
    method: Any, kind: Kind, data: Splits, ctx: Context, utility: Utility, groups: NumPy | None = None, least: int = 100
) -> Estimate:
    """A semivalue as a method's fields say (see `DataShapley`), booked.

    Args:
        method: The method.
        kind: Of semivalue.
        data: Whose training samples are the players.
        ctx: Its loop, ledger and seed.
        utility: Measured.
        groups: (n,) player of each sample in the order of the ids; every sample is one when None.
        least: Permutations before the stopping rule is looked at.
    """
    game = utility if groups is None else utility.grouped(torch.from_numpy(groups))
    with game.charged(ctx, method.card.key):
        near = tolerance_of(game, method.truncation, method.tolerance, ctx.generator("bootstrap"))
        run = PermutationRun(
            game,
            [kind],
            # the same name for all methods: those with the same seed draw the same permutations, so that what a costly
            # learner was asked by one of them is known to the others
            ctx.generator("permutations"),
            method.permutations,
            tolerance=near,
            patience=method.patience,
            antithetic=bool(method.antithetic),
            rule=method.stop,
            threshold=method.threshold,
            least=least,
        )
        return carry_out(run, steps_of(method, data, ctx, utility))[0]


def as_scores(
    method: Any, data: Splits, labels: NumPy | None, order: NumPy, found: Estimate, utility: Utility | None = None
) -> Scores:
    """An estimate in the order of the ids as scores in the order of the data."""
    values, errors = np.empty(len(order)), np.empty(len(order))
    values[order], errors[order] = found.values, found.errors
    metric = utility.metric if utility else "accuracy"
    unit = f"validation {metric.replace('-', ' ')}"
    note = "; ".join(filter(None, (found.note, utility.note if utility else "")))
    return Scores(values, data.train.ids, method.card.key, "value", unit, labels, errors=errors, note=note)
