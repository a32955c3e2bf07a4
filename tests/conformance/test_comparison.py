"""What every control that is a way of training promises: it leaves the data and their order alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from modicum.comparison.prepare import prepare
from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.ledger import Ledger
from modicum.methods import Training, family_of, make, spec, table
from modicum.scores import Budget
from modicum.training.recipe import Recipe

LINES = {"full": "full", "short": "short"}

METHODS = {key: kind for key, kind in table().items() if family_of(kind) == "comparison"}


def splits() -> Splits:
    targets = torch.arange(30) % 3
    inputs = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    data = Dataset(inputs, targets, info=Info(classes=tuple("abc")))
    return Splits(data, data[:9], data[:9])


def test_every_control_has_a_line() -> None:
    assert set(LINES) == set(METHODS), "add one line to LINES for each control"


@pytest.mark.parametrize("key", LINES)
@pytest.mark.parametrize("budget", [None, Budget(keep=0.3)], ids=str)
def test_it_trains_on_all_data_in_the_plain_order_and_choosing_is_free(key: str, budget: Budget | None) -> None:
    data, ctx, method = splits(), Context(ledger=Ledger()), make(LINES[key])
    plan = prepare(method, budget, data, Recipe(epochs=2), ctx)
    assert plan.dataset is data.train
    assert plan.sampler is None
    assert plan.made is None
    assert ctx.ledger.charges == []
    assert data.train.fingerprint == splits().train.fingerprint


@pytest.mark.parametrize("key", LINES)
def test_it_is_a_way_of_training_that_needs_nothing(key: str) -> None:
    method = make(LINES[key])
    assert isinstance(method, Training)
    assert method.needs() == ()
    assert dataclasses.fields(method) == ()
    assert spec(method) == key
