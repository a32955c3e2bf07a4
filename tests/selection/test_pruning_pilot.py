"""The pilot of pruning: what it trains on, what it charges, and that it is made once."""

import dataclasses

import numpy as np
import pytest
import torch

import modicum
from modicum.comparison.prepare import score_with
from modicum.context import Context
from modicum.errors import DataError, ModicumError
from modicum.measurement import LearningCurve
from modicum.methods import make
from modicum.selection.pruning_pilot import PruningPilot, by_difficulty
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="mlp(hidden=16, layers=1)", epochs=6, batch_size=16, lr=0.05)
CURVE = LearningCurve((0.05, 0.25), runs=2)
PILOT = PruningPilot("el2n(runs=2, until=0.5)", CURVE)


@pytest.fixture(scope="module")
def digits():
    splits = modicum.load("digits")
    return splits._replace(train=splits.train[:400], valid=splits.valid[:200])


@pytest.fixture(scope="module")
def table(digits):
    return PILOT.measure(digits, RECIPE, Context())


def test_random_samples_are_those_of_the_learning_curve(digits, table):
    alone = CURVE.measure(digits, RECIPE, Context())
    assert torch.equal(table.random.errors, alone.errors)
    assert torch.equal(table.hardest.sizes, alone.sizes)
    assert table.hardest.errors.shape == table.easiest.errors.shape == (2, 2)
    assert not torch.equal(table.hardest.errors, table.easiest.errors)


def test_the_others_are_trained_on_the_ends_of_the_ranking(digits, table):
    ranked = by_difficulty(table.scores, digits.train)
    for rule, curve in (("hardest", table.hardest), ("easiest", table.easiest)):
        kept = ranked.kept(100, rule, 0.5)
        kept = kept[np.argsort(digits.train.ids[kept])]  # in the order of the ids, as batches are drawn from that
        steps = round(RECIPE.steps_for(400) / 4)
        model = fit(digits.train[kept], dataclasses.replace(RECIPE, steps=steps), Context(seed=0)).model
        with torch.no_grad():
            answers = model(digits.valid.prepare(digits.valid.inputs, torch.device("cpu"))).argmax(1)
        assert curve.errors[0, 1] == pytest.approx(float((answers != digits.valid.labels).double().mean()), abs=0.011)


def test_it_charges_scores_and_trainings(digits):
    ctx = Context()
    PILOT.measure(digits, RECIPE, ctx)
    assert PILOT.trainings() == pytest.approx(2 * 0.5 + 3 * 2 * 0.3)
    assert {charge.phase for charge in ctx.ledger.charges} == {"choose"}
    alone = Context()
    CURVE.measure(digits, RECIPE, alone)
    scoring = Context()
    score_with(make(PILOT.score), digits, RECIPE, scoring)
    assert ctx.ledger.total().flops == pytest.approx(
        3 * alone.ledger.total().flops + scoring.ledger.total().flops, rel=0.02
    )


def test_it_is_read_from_the_cache_at_full_price(digits, table, tmp_path):
    first, again = Context(cache=tmp_path), Context(cache=tmp_path)
    a, b = PILOT.measure(digits, RECIPE, first), PILOT.measure(digits, RECIPE, again)
    assert torch.equal(a.hardest.errors, b.hardest.errors)
    assert torch.equal(a.hardest.errors, table.hardest.errors)
    assert first.ledger.total().flops == again.ledger.total().flops > 0


def test_the_order_of_the_samples_does_not_matter(digits):
    order = np.random.default_rng(0).permutation(400)
    pilot = PruningPilot("knn-shapley(encoder='inputs')", CURVE)  # of a model that is trained, the order matters
    straight, permuted = (
        pilot.measure(digits._replace(train=digits.train[at]), RECIPE, Context()) for at in (np.arange(400), order)
    )
    assert torch.equal(straight.hardest.errors, permuted.hardest.errors)
    assert torch.equal(straight.easiest.errors, permuted.easiest.errors)


def test_what_cannot_be_tried(digits):
    with pytest.raises(ModicumError, match="score='random' gives no scores"):
        PruningPilot("random")
    with pytest.raises(DataError, match="valid has 0 samples"):
        PILOT.measure(digits._replace(valid=digits.train[[]]), RECIPE, Context())
    with pytest.raises(DataError, match="train is for regression"):
        PILOT.measure(modicum.load("diabetes"), RECIPE, Context())
