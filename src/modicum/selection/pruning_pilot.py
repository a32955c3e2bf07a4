"""The pilot of pruning: learning curves of random samples, of the hardest and of the easiest, measured once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from modicum.measurement.cache import cached
from modicum.measurement.learning_curve import CurveTable, LearningCurve, errors_of_subsets
from modicum.methods import make, spec
from modicum.reading import by_id
from modicum.scores import Scores
from modicum.selection.scored import Scored, scores_for

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Dataset, Splits
    from modicum.training.recipe import Recipe

__all__ = ["PilotTable", "PruningPilot", "by_difficulty"]


@dataclass(frozen=True, eq=False)
class PilotTable:
    """What `PruningPilot` measured.

    Args:
        scores: Of the training samples.
        random: The learning curve.
        hardest: The same after training on the hardest instead of random samples.
        easiest: On the easiest.
    """

    scores: Scores
    random: CurveTable
    hardest: CurveTable
    easiest: CurveTable


@dataclass(frozen=True)
class PruningPilot:
    """Trainings of the recipe on random, on the hardest and on the easiest samples, at the shares of a learning curve.

    Args:
        score: Key of a valuation, with options or without; its difficulties rank the samples.
        curve: Shares, runs and steps; a run has the same initial weights whatever it trains on.
        class_balance: Every class keeps at least this share of its even part among the hardest and the easiest.

    Raises:
        ModicumError: The score is unknown, or gives no scores.

    Example:
        >>> round(PruningPilot("el2n(runs=3)", LearningCurve((0.1, 0.2), runs=2)).trainings(), 3)
        2.1
    """

    score: str = "el2n"
    curve: LearningCurve = field(default_factory=LearningCurve)
    class_balance: float = 0.5

    def __post_init__(self) -> None:
        Scored(self.score)

    def measure(self, data: Splits, recipe: Recipe, ctx: Context) -> PilotTable:
        """Score, train and evaluate, or read from the cache; charged to `ctx.ledger` as choosing.

        Raises:
            DataError: There are no class labels, or no validation samples.
        """
        random = self.curve.measure(data, recipe, ctx)
        scores = Scored(self.score).measure(data, recipe, ctx)
        sizes = random.sizes.tolist()
        description = {
            **{"train": data.train.fingerprint, "valid": data.valid.fingerprint, "recipe": recipe, "seed": ctx.seed},
            **{"score": spec(make(self.score)), "class_balance": self.class_balance},
            **{"sizes": sizes, "runs": self.curve.runs, "steps": self.curve.steps},
        }
        made, ledger = cached(
            "pruning-pilot", description, ctx, lambda inner: self._made(data, scores, sizes, recipe, inner)
        )
        ctx.ledger.charges.extend(ledger.charges)
        return PilotTable(
            scores, random, replace(random, errors=made["hardest"]), replace(random, errors=made["easiest"])
        )

    def trainings(self) -> float:
        """How many trainings of the recipe on the full data this is."""
        return Scored(self.score).trainings() + 3 * self.curve.trainings()

    def _made(self, data: Splits, scores: Scores, sizes: list[int], recipe: Recipe, ctx: Context) -> dict[str, Tensor]:
        ranked, order = by_difficulty(scores, data.train), by_id(data.train)
        errors = {}
        for rule in ("hardest", "easiest"):
            subsets = []
            for size in sizes:
                kept = np.isin(order.numpy(), ranked.kept(size, rule, self.class_balance))
                subsets.append([order[torch.from_numpy(kept)]] * self.curve.runs)
            scaled = self.curve.steps == "scaled"
            errors[rule] = errors_of_subsets(data, subsets, recipe, ctx, scaled=scaled, name=f"pilot-{rule}")
        return errors


def by_difficulty(scores: Scores, train: Dataset) -> Scores:
    """The scores as difficulties, with the labels of the samples.

    Raises:
        DataError: They are of other samples.
    """
    scores = scores_for(scores, train)
    unit = scores.unit if scores.kind == "difficulty" else f"-{scores.unit}"
    return replace(scores, values=scores.difficulties, kind="difficulty", unit=unit, labels=train.labels.numpy())
