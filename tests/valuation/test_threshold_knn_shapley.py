from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.context import Context
from modicum.errors import DataError
from modicum.valuation import ThresholdKnnShapley, threshold_knn_shapley
from modicum.valuation.threshold_knn_shapley import _measure, neighbor_radius


@pytest.mark.parametrize("radius", [0.5, 2.0, 2.6, 3.2, 50.0])
@pytest.mark.parametrize("classes", [None, 7])
def test_equals_all_subsets(radius, classes, problem, by_definition):
    train, labels, valid, wanted = problem(m=5)

    def utility(j, order, ranks):
        at = order[ranks]
        inside = at[((train[at] - valid[j]) ** 2).sum(1) <= radius**2]
        return (labels[inside] == wanted[j]).mean() if len(inside) else 1 / (classes or 3)

    each = by_definition(train, valid, utility)
    values = threshold_knn_shapley(train, labels, valid, wanted, radius, classes)
    np.testing.assert_allclose(values, each.mean(0), atol=1e-14)
    error = _measure(train, labels, valid, wanted, radius, classes, errors=True)[1]
    np.testing.assert_allclose(error, each.std(0, ddof=1) / np.sqrt(5), atol=1e-8)


def test_balls_of_none_and_of_one():
    values = threshold_knn_shapley(np.array([[1.0], [9.0]]), np.array([1, 0]), np.zeros((1, 1)), np.array([1]), 2)
    assert values.tolist() == [0.5, 0]
    values = threshold_knn_shapley(np.array([[1.0], [9.0]]), np.array([1, 0]), np.zeros((1, 1)), np.array([1]), 0.5)
    assert values.tolist() == [0, 0]


def test_a_point_at_the_radius_is_inside_and_duplicates_are_equal():
    train, labels = np.array([[3.0], [3.0], [4.0]]), np.array([1, 1, 0])
    values = threshold_knn_shapley(train, labels, np.zeros((1, 1)), np.array([1]), 3.0)
    assert values[0] == values[1] > 0 == values[2]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(1, 6), st.floats(0.1, 5), st.integers(0, 1000))
def test_sums_to_the_gain_over_guessing(n, m, radius, seed):
    draw = np.random.default_rng(seed)
    train, valid, labels = draw.normal(size=(n, 3)), draw.normal(size=(m, 3)), np.arange(n) % 2
    wanted = draw.integers(0, 2, m)
    inside = ((valid[:, None] - train) ** 2).sum(2) <= radius**2
    right = (inside & (labels == wanted[:, None])).sum(1) / np.maximum(inside.sum(1), 1)
    expected = np.where(inside.any(1), right, 0.5).mean() - 0.5
    assert threshold_knn_shapley(train, labels, valid, wanted, radius).sum() == pytest.approx(expected, abs=1e-12)


def test_both_routes_agree(problem, monkeypatch):
    case = problem(700, 50, 16, 5)
    whole = threshold_knn_shapley(*case, 5.0)
    engine = import_module("modicum.valuation.nearest")
    monkeypatch.setattr(engine, "_on_cpu", engine._on_accelerator)
    np.testing.assert_allclose(threshold_knn_shapley(*case, 5.0), whole, atol=1e-13)


@pytest.mark.parametrize("accelerator", [False, True])
def test_half_of_the_balls_hold_the_neighbors_asked_for(accelerator, problem, monkeypatch):
    train, _, valid, _ = problem(300, 101)
    if accelerator:
        engine = import_module("modicum.valuation.nearest")
        monkeypatch.setattr(
            engine,
            "_distances",
            lambda at: ((b, lambda rows, d=d: d.numpy()[rows]) for b, d in engine._distances_there(at)),
        )
    radius = neighbor_radius(train, valid, 5)
    inside = (((valid[:, None] - train) ** 2).sum(2) <= radius**2 * (1 + 1e-12)).sum(1)
    assert (inside >= 5).sum() == 51
    assert neighbor_radius(train[:3], valid, 5) == neighbor_radius(train[:3], valid, 3)


def test_the_method_takes_its_radius_from_the_data(problem):
    from types import SimpleNamespace

    from modicum.dataset import Dataset, Info, Splits

    case = [torch.from_numpy(a) for a in problem(40, 9)]
    info = Info(classes=("a", "b", "c"))
    train, valid = Dataset(case[0], case[1], info=info), Dataset(case[2], case[3], info=info)
    given = SimpleNamespace(train=case[0], valid=case[2])
    scores = ThresholdKnnShapley().score(Splits(train, valid, valid), Context(), given)
    radius = neighbor_radius(case[0], case[2])
    assert np.array_equal(scores.values, threshold_knn_shapley(*case, radius).numpy())
    assert (scores.errors >= 0).all()
    other = ThresholdKnnShapley(radius=1.5).score(Splits(train, valid, valid), Context(), given)
    assert np.array_equal(other.values, threshold_knn_shapley(*case, 1.5).numpy())


@pytest.mark.parametrize(
    "change, text",
    [
        ({"radius": 0}, "radius=0; expected a positive finite distance"),
        ({"radius": -1.0}, "radius=-1.0; expected a positive"),
        ({"radius": np.nan}, "radius=nan; expected a positive"),
        ({"radius": "1"}, "radius='1'; expected a positive"),
        ({"classes": 1}, "classes=1; expected an integer >= 3"),
        ({"train_features": np.full((8, 4), np.nan)}, r"train_features\[0, 0\] is nan"),
        ({"valid_targets": np.zeros(0, int)}, "valid_targets has shape"),
    ],
)
def test_errors_name_the_argument(change, text, problem):
    names = ("train_features", "train_targets", "valid_features", "valid_targets")
    with pytest.raises(DataError, match=text):
        threshold_knn_shapley(**{**dict(zip(names, problem())), "radius": 1.0, **change})


def test_no_radius_where_all_points_are_the_same():
    with pytest.raises(DataError, match="no radius can be taken"):
        neighbor_radius(np.zeros((9, 2)), np.zeros((3, 2)), 5)
