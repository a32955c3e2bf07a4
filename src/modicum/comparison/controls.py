"""What a user would do instead: train on everything, or train on everything for a shorter time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from modicum.context import Context
from modicum.dataset import Splits
from modicum.methods import Card, Measurement
from modicum.training.order import Sampler
from modicum.training.recipe import Recipe

__all__ = ["Full", "Short"]

EVERY_TASK = ("classification", "regression")


@dataclass(frozen=True)
class Full:
    """All data for the whole schedule: what there is to save from."""

    card: ClassVar[Card] = Card("full", "all data, the whole schedule", "control", (), EVERY_TASK)

    def needs(self) -> tuple[Measurement, ...]:
        """Nothing."""
        return ()

    def sampler(self, data: Splits, recipe: Recipe, ctx: Context) -> Sampler | None:
        """The plain order."""
        return None


@dataclass(frozen=True)
class Short:
    """All data, the schedule shortened to the steps that training on the budget would take."""

    card: ClassVar[Card] = Card("short", "all data, a shorter schedule", "control", ("compute",), EVERY_TASK)

    def needs(self) -> tuple[Measurement, ...]:
        """Nothing."""
        return ()

    def sampler(self, data: Splits, recipe: Recipe, ctx: Context) -> Sampler | None:
        """The plain order."""
        return None
