"""What scoring will take, told before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import modicum
from modicum.comparison.estimate import estimate_scoring
from modicum.context import Context
from modicum.dataset import Splits
from modicum.methods import Card, make
from modicum.scores import Scores
from modicum.training.recipe import Recipe


class Steps:
    """Counts steps; nothing else."""

    def __init__(self) -> None:
        self.done = 0

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.done = state["done"]


@dataclass(frozen=True)
class Slow:
    """Takes a hundredth of a second a step."""

    steps: int = 100
    card: ClassVar[Card] = Card("slow", "Sleeps", "nobody", ("samples",), growth=0.0)

    def needs(self) -> tuple[()]:
        return ()

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        import time

        state = Steps()
        for _ in ctx.loop("slow", self.steps, [state], anytime=True):
            time.sleep(0.01)
            state.done += 1
        return Scores(np.zeros(len(data.train)), data.train.ids, "slow", "value", "x", note=f"{state.done} steps")


def test_work_that_has_an_answer_at_any_time_is_timed_by_its_first_step() -> None:
    told = estimate_scoring(Slow(), modicum.load("iris"), Recipe(), Context())
    assert 0.9 < told.seconds < 3
    assert told.trainings == 0
    assert told.peak_bytes > 1e7


def test_trainings_are_counted() -> None:
    told = estimate_scoring(make("el2n(runs=3, until=1.0)"), modicum.load("iris"), Recipe(epochs=2), Context())
    assert told.trainings == 3
    assert told.seconds > 0


def test_a_deadline_ends_it_with_an_answer_and_the_same_call_goes_on(tmp_path: object) -> None:
    folder = f"{tmp_path}/run"
    first = modicum.score("iris", Slow(20), folder=folder, max_seconds=0.05, curves=None)
    assert int(first.note.split()[0]) < 20
    second = modicum.score("iris", Slow(20), folder=folder, curves=None)
    assert second.note == "20 steps"
    with pytest.raises(modicum.ModicumError, match="max_seconds=-1; expected seconds >= 0"):
        modicum.score("iris", Slow(20), max_seconds=-1)
