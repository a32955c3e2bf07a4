"""Whether a selection was worth it."""

import numpy as np
import pytest
import torch

import modicum
from modicum.comparison.checking import check_selection
from modicum.comparison.prepare import Plan
from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.ledger import Ledger
from modicum.scores import Selection
from modicum.store import Store
from modicum.training.recipe import Recipe

RECIPE = Recipe("linear", epochs=12, batch_size=16, lr=0.1)


def noisy(n=600, wrong=0.5):
    """Two classes that a line parts, half of the training labels wrong in the second half of the data."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(n + 600, 5)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    given = y.copy()
    given[n // 3 : n] = 1 - y[n // 3 : n]
    info = Info(classes=("a", "b"))
    parts = [
        Dataset(torch.from_numpy(x[s]), torch.from_numpy(given[s]), info=info)
        for s in (slice(0, n), slice(n, n + 300), slice(n + 300, n + 600))
    ]
    return Splits(*parts)


def plan_of(data, positions):
    chosen = Selection(np.asarray(positions))
    return Plan(chosen.taken_from(data.train), selection=chosen)


def test_a_selection_that_is_surely_better_or_worse():
    data = noisy()
    good = check_selection(plan_of(data, range(150)), data, RECIPE, Context(), 3)
    assert good.verdict == "better"
    assert (
        good.sentence
        == "They train better models than a random subset of as many, and better ones than all data for as many steps."
    )
    bad = check_selection(plan_of(data, range(300, 450)), data, RECIPE, Context(), 3)
    assert bad.verdict == "worse"
    assert bad.sentence.startswith("Do not use them: ")
    assert [row.method for row in good.rows] == ["selection", "random", "stratified", "short"]
    assert good.gaps[0].lower > 0 > min(found.interval[1] for found in bad.gaps)
    assert "the selection 9" in good.detail


def test_a_random_selection_is_as_good_as_another():
    data = modicum.load("digits")
    check = check_selection(plan_of(data, range(0, len(data.train), 2)), data, Recipe("linear", epochs=4), Context(), 3)
    assert check.verdict == "same"
    assert "would do as well: nothing makes sure that these are better; all data for as many steps" in check.sentence


def test_all_train_for_as_many_steps_and_the_ledger_has_it():
    data, ctx = noisy(), Context(ledger=Ledger())
    check = check_selection(plan_of(data, range(60)), data, RECIPE, ctx, 2)
    visits = [row.train["samples"] for row in check.rows]
    assert max(visits) <= 1.1 * min(visits)  # as many steps; the last batch of an epoch may be short
    assert len(ctx.ledger.charges) == 8
    assert {charge.phase for charge in ctx.ledger.charges} == {"evaluate"}
    assert check.ledger.total().flops == ctx.ledger.total().flops > 0


def test_one_model_says_nothing_and_no_time_no_check():
    data = noisy()
    check = check_selection(plan_of(data, range(60)), data, RECIPE, Context(), 1)
    assert check.verdict == "unknown"
    assert check.sentence == "One model cannot show whether this is better than a random subset: train at least two."
    assert check_selection(plan_of(data, range(60)), data, RECIPE, Context(deadline=0.0), 3) is None


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch):
    data, store = noisy(), Store(tmp_path)
    with store.locked():
        first = check_selection(plan_of(data, range(60)), data, RECIPE, Context(), 2, store)
        monkeypatch.setattr("modicum.comparison.checking.trained_point", None)
        second = check_selection(plan_of(data, range(60)), data, RECIPE, Context(), 2, store)
        assert [row.test for row in first.rows] == [row.test for row in second.rows]
        with pytest.raises(TypeError):
            check_selection(plan_of(data, range(61)), data, RECIPE, Context(), 2, store)


def test_regression_has_no_classes_to_stratify():
    data = modicum.load("diabetes")
    check = check_selection(plan_of(data, range(100)), data, Recipe("linear", epochs=5, lr=0.01), Context(), 2)
    assert check.metric == "R²"
    assert [row.method for row in check.rows] == ["selection", "random", "short"]
