import math
from dataclasses import replace

import pytest
import torch

import modicum
from modicum.context import Context
from modicum.distillation import (
    Distilled,
    Snapshot,
    Trials,
    augmentation_robust_score,
    best_snapshot,
    controls,
    cross_architecture,
    evaluation_recipe,
    label_robust_score,
    random_real,
    robust_scores,
    train_and_test,
    whitened,
)
from modicum.errors import ModicumError
from modicum.ledger import Ledger
from modicum.scores import Budget
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

BUDGET = Budget(per_class=2)
QUICK = evaluation_recipe("mlp(hidden=16, layers=1)", 20, epochs=60)


@pytest.fixture(scope="module")
def data():
    return modicum.load("digits")


@pytest.fixture(scope="module")
def made(data):
    return Distilled(data.train[random_real(data.train, BUDGET, 0)], QUICK, "random")


def test_trials_are_those_of_networks_trained_one_by_one(data, made):
    ctx = Context(seed=3)
    trials = train_and_test(made, data.test, ctx, networks=2)
    alone = [fit(made.dataset, QUICK, Context(seed=seed)).evaluate(data.test).score for seed in (4000, 4001)]
    assert trials.accuracies == pytest.approx([100 * a for a in alone], abs=0.3)
    assert trials.mean == pytest.approx(sum(trials.accuracies) / 2)
    assert ctx.ledger.total("evaluate").flops == ctx.ledger.total().flops > 0


def test_a_set_for_one_initialization_is_tested_on_it_alone(data, made):
    fixed = replace(made, seed=7)
    trials = train_and_test(fixed, data.test, Context(), networks=5)
    assert len(trials.accuracies) == 1
    assert trials.std == 0
    assert trials == train_and_test(fixed, data.test, Context(seed=9), networks=2)


def test_random_real_samples_are_balanced_and_differ_by_seed(data):
    first, second = (random_real(data.train, BUDGET, seed) for seed in (0, 1))
    assert data.train[first].class_counts().tolist() == [2] * 10
    assert len(set(first.tolist())) == 20
    assert first.tolist() != second.tolist()


def test_controls(data, made):
    ctx = Context()
    found = controls(made, data, BUDGET, Recipe(epochs=3), ctx, networks=2)
    assert list(found) == ["random", "k-center", "soft labels", "random, common protocol", "full"]
    assert found["full"].mean > found["random"].mean
    assert len(found["full"].accuracies) == 1
    assert [len(found[name].accuracies) for name in ("random", "k-center", "soft labels")] == [2, 2, 2]
    assert ctx.ledger.total("evaluate").flops == ctx.ledger.total().flops


def test_the_common_protocol_needs_no_second_row(data, made):
    common = replace(made, recipe=evaluation_recipe("mlp(hidden=16, layers=1)", 20))
    found = controls(common, data, BUDGET, Recipe(epochs=1), Context(), networks=1)
    assert "random, common protocol" not in found


def test_networks_that_do_not_take_the_data_are_left_out(made):
    iris = modicum.load("iris")
    flowers = Distilled(iris.train[:30], evaluation_recipe("mlp", 30, epochs=30), "some")
    assert list(cross_architecture(flowers, iris, ("mlp", "lenet", "linear"), Context(), 1)) == ["mlp", "linear"]


def test_real_data_go_through_the_whitening_of_the_set(data):
    white, whitening = whitened(data, 0.1)
    subset = white.train[random_real(white.train, BUDGET, 0)]
    made = Distilled(subset, QUICK, "random", whitening=whitening)
    with_it = train_and_test(made, data.test, Context(), networks=1)
    assert with_it == train_and_test(replace(made, whitening=None), white.test, Context(), networks=1)


def test_the_best_moment_is_chosen_on_the_validation_split(data, made):
    noise = made.dataset.replace(inputs=torch.rand_like(made.dataset.inputs.float()))
    course = (Snapshot(0, noise, QUICK), Snapshot(4, made.dataset, QUICK), Snapshot(8, noise, QUICK))
    best, rows = best_snapshot(replace(made, dataset=noise, snapshots=course), data.valid, Context())
    assert best.dataset is made.dataset
    assert [row["iteration"] for row in rows] == [0, 4, 8]
    assert rows[1]["accuracy"] > rows[0]["accuracy"]
    assert best_snapshot(made, data.valid, Context()) == (made, [])


def test_robust_scores(data, made):
    ledger = Ledger()
    quick = replace(made, recipe=replace(QUICK, epochs=5))
    found = robust_scores(quick, data, BUDGET, Trials((95.0,)), Context(ledger=ledger), networks=1)
    assert set(found) == {"label-robust", "augmentation-robust", "improvement over random", "hard label gap"}
    assert 0 <= found["label-robust"] <= 1
    expected = label_robust_score(found["improvement over random"] / 100, found["hard label gap"] / 100)
    assert found["label-robust"] == pytest.approx(expected)


@pytest.mark.parametrize("a, score", [(0.0, 0.2689), (1.0, 1.0), (-1.0, 0.0)])
def test_the_scale_of_robust_scores(a, score):
    assert label_robust_score(a, -a) == pytest.approx(score, abs=5e-5)
    assert augmentation_robust_score(a, a) == pytest.approx(score, abs=5e-5)
    assert math.isclose(label_robust_score(0.3, 0.9, weight=1.0), augmentation_robust_score(0.3, 0.9, weight=1.0))


def test_no_networks(data, made):
    with pytest.raises(ModicumError, match="networks=0; expected an integer >= 1"):
        train_and_test(made, data.test, Context(), networks=0)
