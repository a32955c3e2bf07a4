"""The learning curve: what it trains, what it charges, and that nothing else changes it."""

import numpy as np
import pytest
import torch

import modicum
from modicum.context import Context
from modicum.errors import DataError, ModicumError
from modicum.measurement import CurveTable, LearningCurve
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="mlp(hidden=16, layers=1)", epochs=6, batch_size=16, lr=0.05)
CURVE = LearningCurve((0.05, 0.2, 0.5), runs=2)


@pytest.fixture(scope="module")
def digits():
    splits = modicum.load("digits")
    return splits._replace(train=splits.train[:400], valid=splits.valid[:200])


def test_more_samples_fewer_errors(digits):
    ctx = Context()
    table = CURVE.measure(digits, RECIPE, ctx)
    assert table.sizes.tolist() == [20, 80, 200]
    assert table.errors.shape == (2, 3)
    assert table.means[0] > table.means[2] + 0.1
    assert np.allclose(table.shares, [0.05, 0.2, 0.5])
    assert (table.of, table.valid, table.classes) == (400, 200, 10)


def test_the_cost_is_that_of_the_shares(digits):
    for steps, cost in (("scaled", 2 * 0.75), ("equal", 2 * 3)):
        ctx, curve = Context(), LearningCurve(CURVE.shares, 2, steps)
        curve.measure(digits, RECIPE, ctx)
        assert curve.trainings() == pytest.approx(cost)
        assert {charge.phase for charge in ctx.ledger.charges} == {"choose"}
        seen = sum(charge.samples for charge in ctx.ledger.charges if charge.what != "learning curve")
        # equal steps on 20 samples have smaller batches
        assert seen == pytest.approx(cost * 6 * 400, rel=0.08 if steps == "scaled" else 0.2)


def test_models_that_do_not_stack_are_trained_one_by_one(digits):
    batched = modicum.Recipe(model=lambda: torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Linear(16, 10)
    ), epochs=4, batch_size=16)  # fmt: skip
    table = LearningCurve((0.2, 0.5), runs=1).measure(digits, batched, Context())
    assert table.errors.shape == (1, 2)
    assert table.means[1] < 0.6


def test_the_order_of_the_samples_does_not_matter(digits):
    order = np.random.default_rng(0).permutation(400)
    straight = CURVE.measure(digits, RECIPE, Context())
    permuted = CURVE.measure(digits._replace(train=digits.train[order]), RECIPE, Context())
    assert torch.equal(straight.errors, permuted.errors)


def test_it_is_read_from_the_cache_at_full_price(digits, tmp_path):
    first, again = Context(cache=tmp_path), Context(cache=tmp_path)
    a, b = CURVE.measure(digits, RECIPE, first), CURVE.measure(digits, RECIPE, again)
    assert torch.equal(a.errors, b.errors)
    assert first.ledger.total().flops == again.ledger.total().flops > 0


def test_standard_errors_hold_the_runs_and_the_validation_split():
    table = CurveTable(torch.tensor([1, 2]), 2, torch.tensor([[0.2, 0.1], [0.4, 0.1]], dtype=torch.float64), 100, 2)
    p = (0.3 * 100 + 0.5) / 101
    assert table.deviations[0].item() == pytest.approx(((0.02 / 2) + p * (1 - p) / 100) ** 0.5)
    assert (table.deviations > 0).all()
    one = CurveTable(torch.tensor([1]), 1, torch.zeros(1, 1, dtype=torch.float64), 50, 2)
    assert 0 < one.deviations.item() < 0.1


def test_errors_on_one_validation_split_go_together():
    table = CurveTable(torch.tensor([1, 4]), 8, torch.tensor([[0.4, 0.1]] * 2, dtype=torch.float64), 10**6, 2)
    # models whose wrong answers contain those of the better ones: the cosine of the two indicators
    expected = (0.1 * 0.6 / (0.4 * 0.9)) ** 0.5
    assert np.allclose(table.correlation, [[1, expected], [expected, 1]], atol=1e-4)
    noisy = CurveTable(table.sizes, 8, torch.tensor([[0.3, 0.2], [0.5, 0.0]], dtype=torch.float64), 10**6, 2)
    assert noisy.correlation[0, 1] < 0.01


def test_guessing_is_the_most_frequent_class(digits):
    assert CURVE.measure(digits, RECIPE, Context()).chance == 1 - digits.train.labels.bincount().max() / 400
    assert CurveTable(torch.tensor([1, 2]), 2, torch.zeros(1, 2), 9, 4).chance == 0.75


@pytest.mark.parametrize(
    "options, message",
    [
        ({"shares": (0.5,)}, r"shares=\(0.5,\); expected at least two rising shares in \(0, 1\]"),
        ({"shares": (0.5, 0.2)}, r"shares=\(0.5, 0.2\); expected"),
        ({"shares": (0.5, 1.2)}, r"shares=\(0.5, 1.2\); expected"),
        ({"shares": (0.5, float("nan"))}, r"shares=\(0.5, nan\); expected"),
        ({"shares": 0.5}, r"shares=0.5; expected"),
        ({"runs": 0}, "runs=0; expected an integer >= 1"),
        ({"steps": "few"}, "steps='few'; expected 'scaled' or 'equal'"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ModicumError, match=message):
        LearningCurve(**options)


def test_data_that_have_no_curve(digits):
    train = digits.train
    with pytest.raises(DataError, match="valid has 0 samples; a learning curve is measured on the validation split"):
        CURVE.measure(digits._replace(valid=train[[]]), RECIPE, Context())
    with pytest.raises(DataError, match=r"of 2 samples are one subset of 1; give larger shares"):
        LearningCurve((0.1, 0.2)).measure(digits._replace(train=train[[0, 1]]), RECIPE, Context())
    with pytest.raises(DataError, match="all 2 samples are of class"):
        CURVE.measure(digits._replace(train=train[[0, 0]]), RECIPE, Context())
    with pytest.raises(DataError, match="train is for regression; a learning curve of errors needs class labels"):
        CURVE.measure(modicum.load("diabetes"), RECIPE, Context())
