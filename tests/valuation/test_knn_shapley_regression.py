from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.errors import DataError
from modicum.valuation import knn_shapley_regression
from modicum.valuation.knn_shapley_regression import _measure


def numbers(n=8, m=3, d=4, seed=0, dtype=np.float64):
    draw = np.random.default_rng(seed)
    shapes = ((n, d), (n,), (m, d), (m,))
    return tuple(draw.normal(size=shape).astype(dtype) for shape in shapes)


def utility_of(own, wanted, k):
    return lambda j, order, ranks: -((own[order[ranks[:k]]].sum() / k - wanted[j]) ** 2)


@pytest.mark.parametrize("k", [1, 3, 5, 8])
def test_equals_all_subsets(k, by_definition):
    train, own, valid, wanted = numbers()
    each = by_definition(train, valid, utility_of(own, wanted, k))
    mean, error = _measure(train, own, valid, wanted, k, errors=True)
    np.testing.assert_allclose(mean, each.mean(0), atol=1e-13)
    np.testing.assert_allclose(error, each.std(0, ddof=1) / np.sqrt(3), atol=1e-8)


@pytest.mark.parametrize("n, k", [(1, 1), (2, 1), (2, 2), (3, 2), (3, 3)])
def test_the_fewest_points(n, k, by_definition):
    train, own, valid, wanted = numbers(n)
    expected = by_definition(train, valid, utility_of(own, wanted, k)).mean(0)
    np.testing.assert_allclose(knn_shapley_regression(train, own, valid, wanted, k), expected, atol=1e-14)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 80), st.integers(1, 6), st.integers(1, 80), st.integers(0, 1000))
def test_sums_to_the_gain_over_predicting_zero(n, m, k, seed):
    train, own, valid, wanted = numbers(n, m, seed=seed)
    k = min(k, n)
    nearest = np.argsort(((valid[:, None] - train) ** 2).sum(2), axis=1, kind="stable")[:, :k]
    expected = (wanted**2 - (own[nearest].sum(1) / k - wanted) ** 2).mean()
    assert knn_shapley_regression(train, own, valid, wanted, k).sum() == pytest.approx(expected, abs=1e-11)


def test_equals_the_published_recursion_with_its_base_corrected():
    train, own, valid, wanted = numbers(50, 4)
    n, k = 50, 7
    values = np.zeros(n)
    for query, t in zip(valid, wanted):
        order = np.argsort(((train - query) ** 2).sum(1), kind="stable")
        y = np.concatenate([[np.nan], own[order]])  # y[1] is that of the nearest
        s = -(k - 1) / (n * k) * y[n] * (y[n] / k - 2 * t + y[1:n].sum() / (n - 1)) - (y[n] / k - t) ** 2 / n
        found = {n: s}
        for i in range(n - 1, 0, -1):
            total = y[i] + y[i + 1]
            total += (min(k, i) - 1) / (i - 1) * y[1:i].sum() if i > 1 else 0
            for far in range(i + 2, n + 1):
                total += min(k, far - 1) * min(k - 1, far - 2) * i / ((far - 1) * (far - 2) * min(k, i)) * y[far]
            s += (y[i + 1] - y[i]) / k * min(k, i) / i * (total / k - 2 * t)
            found[i] = s
        values[order] += [found[i] + t**2 / n for i in range(1, n + 1)]
    np.testing.assert_allclose(knn_shapley_regression(train, own, valid, wanted, k), values / 4, atol=1e-13)


def test_duplicates_are_equal():
    train, own = np.zeros((4, 2)), np.array([1.0, 1.0, 1.0, 1.0])
    values = knn_shapley_regression(train, own, np.ones((1, 2)), np.array([1.0]), 2)
    np.testing.assert_allclose(values, 0.25)


def test_both_routes_agree(monkeypatch):
    case = numbers(700, 50, 16)
    whole = knn_shapley_regression(*case, 5)
    engine = import_module("modicum.valuation.nearest")
    monkeypatch.setattr(engine, "_on_cpu", engine._on_accelerator)
    np.testing.assert_allclose(knn_shapley_regression(*case, 5), whole, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_in_tensors_out(dtype):
    case = [torch.from_numpy(a).to(dtype) for a in numbers(30)]
    before = [a.clone() for a in case]
    assert knn_shapley_regression(*case).dtype == dtype
    assert all(torch.equal(a, b) for a, b in zip(case, before))


@pytest.mark.parametrize(
    "change, text",
    [
        ({"k": 0}, "k=0; expected an integer >= 1"),
        ({"k": 9}, "k=9 is more than the 8 training samples; expected an integer from 1 to 8"),
        ({"train_features": np.full((8, 4), np.nan)}, r"train_features\[0, 0\] is nan"),
        ({"train_targets": np.full(8, np.nan)}, r"train_targets\[0\] is nan"),
        ({"train_targets": np.zeros((8, 1))}, r"train_targets has shape \(8, 1\); expected \(n,\)"),
        ({"valid_targets": np.zeros(4)}, r"valid_targets has shape \(4,\); expected \(3,\)"),
        ({"valid_features": np.zeros((3, 5))}, "valid_features have 5 columns but train_features have 4"),
    ],
)
def test_errors_name_the_argument(change, text):
    names = ("train_features", "train_targets", "valid_features", "valid_targets")
    with pytest.raises(DataError, match=text):
        knn_shapley_regression(**{**dict(zip(names, numbers())), **change})
