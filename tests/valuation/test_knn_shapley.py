import itertools
import math
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.errors import DataError
from modicum.valuation import knn_shapley
from modicum.valuation.knn_shapley import _shapley_from_ranked, _stable_order


def problem(n=8, m=3, d=4, classes=2, seed=0, dtype=np.float64):
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(n) % classes)
    wanted = draw.integers(0, classes, m)
    return draw.normal(size=(n, d)).astype(dtype), labels, draw.normal(size=(m, d)).astype(dtype), wanted


def brute_force(train, labels, valid, wanted, k):
    """Shapley values from their definition, over all 2^n subsets."""
    n = len(train)
    values = np.zeros(n)
    for query, y in zip(valid, wanted):
        order = np.argsort(((train - query) ** 2).sum(1), kind="stable")
        match = (labels[order] == y).astype(float)
        utility = {
            subset: sum(match[list(subset[:k])]) / k
            for size in range(n + 1)
            for subset in itertools.combinations(range(n), size)
        }
        for subset, before in utility.items():
            if len(subset) == n:
                continue
            weight = 1 / (n * math.comb(n - 1, len(subset)))
            for i in set(range(n)) - set(subset):
                values[order[i]] += weight * (utility[tuple(sorted((*subset, i)))] - before)
    return values / len(valid)


def loop(train, labels, valid, wanted, k):
    """The recursion point by point."""
    n = len(train)
    values = np.zeros(n)
    for query, y in zip(valid, wanted):
        order = np.argsort(((train - query) ** 2).sum(1), kind="stable")
        match = (labels[order] == y).astype(float)
        s = match[-1] / max(k, n)
        values[order[-1]] += s
        for i in range(n - 1, 0, -1):
            s += (match[i - 1] - match[i]) / max(k, i)
            values[order[i - 1]] += s
    return values / len(valid)


@pytest.mark.parametrize("k", [1, 3, 5, 8, 10])
def test_equals_all_subsets(k):
    case = problem()
    np.testing.assert_allclose(knn_shapley(*case, k=k), brute_force(*case, k), atol=1e-14)


def test_worked_example():
    values = knn_shapley(np.array([[1.0], [2.0], [3.0]]), np.array([1, 0, 1]), np.zeros((1, 1)), np.array([1]), k=1)
    np.testing.assert_allclose(values, [5 / 6, -1 / 6, 1 / 3], atol=1e-15)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 50), st.integers(0, 1000))
def test_equals_the_recursion_and_is_efficient(n, m, k, seed):
    train, labels, valid, wanted = problem(n, m, classes=min(3, n), seed=seed)
    wanted = labels[wanted % n]
    values = knn_shapley(train, labels, valid, wanted, k)
    np.testing.assert_allclose(values, loop(train, labels, valid, wanted, k), atol=1e-13)
    nearest = np.argsort(((valid[:, None] - train) ** 2).sum(2), axis=1, kind="stable")[:, :k]
    assert values.sum() == pytest.approx((labels[nearest] == wanted[:, None]).sum() / k / m, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_and_threads_agree_with_the_loop(dtype, monkeypatch):
    case = problem(700, 50, 16, 5, dtype=dtype)
    whole = knn_shapley(*case)
    np.testing.assert_allclose(whole, loop(*case, 5), atol=1e-8 if dtype == np.float32 else 1e-13)
    module = import_module("modicum.valuation.knn_shapley")
    monkeypatch.setattr(module, "CHUNK", 1)
    np.testing.assert_allclose(knn_shapley(*case), whole, atol=1e-8 if dtype == np.float32 else 1e-13)
    single = knn_shapley(*case)
    monkeypatch.setattr(module, "THREADS", 1)
    assert np.array_equal(knn_shapley(*case), single)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_points_tie_whatever_rounding_says(dtype, monkeypatch):
    draw = np.random.default_rng(1)
    train = np.tile(draw.normal(size=(37, 129)).astype(dtype) * 1000, (3, 1))  # odd sizes reach the edges of a product
    labels = np.tile(np.arange(37) % 2, 3)
    labels[37:] = 1 - labels[37:]
    valid, wanted = draw.normal(size=(20, 129)).astype(dtype) * 1000, np.arange(20) % 2
    values = knn_shapley(train, labels, valid, wanted)
    exact = loop(train.astype(np.float64), labels, valid.astype(np.float64), wanted, 5)
    np.testing.assert_allclose(values, exact, atol=1e-6)
    module = import_module("modicum.valuation.knn_shapley")
    monkeypatch.setattr(module, "_on_cpu", module._on_accelerator)  # the other route, here on the CPU too
    np.testing.assert_allclose(knn_shapley(train, labels, valid, wanted), exact, atol=1e-6)


def test_mirrored_integers_tie_by_position():
    train, labels = np.array([[2.0], [0.0], [5.0]], np.float32), np.array([0, 1, 1])
    values = knn_shapley(train, labels, np.array([[1.0]], np.float32), np.array([1]), k=1)
    np.testing.assert_allclose(values, brute_force(train, labels, np.array([[1.0]]), np.array([1]), 1), atol=1e-7)


def test_far_from_the_origin_keeps_its_order():
    train, labels, valid, wanted = problem(200, 20, 3, 4)
    shifted = knn_shapley((train + 1e4).astype(np.float32), labels, (valid + 1e4).astype(np.float32), wanted)
    single = [(a + 1e4).astype(np.float32).astype(np.float64) for a in (train, valid)]
    exact = loop(single[0], labels, single[1], wanted, 5)
    np.testing.assert_allclose(shifted, exact, atol=1e-7)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.integers(1, 4), st.integers(0, 10**6))
def test_stable_order_is_the_stable_argsort(n, levels, seed):
    draw = np.random.default_rng(seed)
    distances = draw.integers(0, levels, (3, n)) * draw.choice([0.0, 1.0, 1 + 1e-15, 1 + 2e-15, 1e300, 1e-310], (3, n))
    assert np.array_equal(_stable_order(distances), np.argsort(distances, axis=1, kind="stable"))


def test_kernel_takes_any_utility_per_point():
    utilities = np.random.default_rng(0).random((2, 7))
    n, k = 7, 3
    for row, values in zip(utilities, _shapley_from_ranked(utilities, k)):
        expected = np.zeros(n)
        for size in range(n):
            weight = 1 / (n * math.comb(n - 1, size))
            for subset in itertools.combinations(range(n), size):
                for i in set(range(n)) - set(subset):
                    gain = sum(row[sorted((*subset, i))[:k]]) - sum(row[list(subset[:k])])
                    expected[i] += weight * gain / k
        np.testing.assert_allclose(values, expected, atol=1e-14)
    torch.testing.assert_close(
        _shapley_from_ranked(torch.from_numpy(utilities), k),
        torch.from_numpy(_shapley_from_ranked(utilities, k).copy()),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_in_tensors_out(dtype):
    case = [torch.from_numpy(a) for a in problem(30)]
    case[0], case[2] = case[0].to(dtype), case[2].to(dtype)
    before = [a.clone() for a in case]
    values = knn_shapley(*case)
    assert values.dtype == dtype
    assert values.shape == (30,)
    assert all(torch.equal(a, b) for a, b in zip(case, before))
    assert np.array_equal(knn_shapley(*[a.numpy() for a in case]), values.numpy())


def test_read_only_arrays_are_fine():
    case = problem(30)
    for array in case:
        array.flags.writeable = False
    assert knn_shapley(*case).shape == (30,)


def test_unseen_class_warns_and_is_worth_nothing():
    train, labels, valid, _ = problem()
    with pytest.warns(UserWarning, match="valid_targets has class 7"):
        values = knn_shapley(train, labels, valid, np.full(3, 7))
    assert (values == 0).all()


@pytest.mark.parametrize(
    "change, text",
    [
        ({"k": 0}, "k=0; expected an integer >= 1"),
        ({"k": 2.5}, "k=2.5; expected an integer"),
        ({"train_features": np.empty((0, 4))}, r"train_features has shape \(0, 4\)"),
        ({"train_features": np.full((8, 4), np.nan)}, r"train_features\[0, 0\] is nan"),
        ({"train_features": np.zeros((8, 2, 2))}, r"train_features has shape \(8, 2, 2\); expected \(n, d\)"),
        ({"train_features": [[1.0]]}, "train_features is a list"),
        ({"train_targets": np.zeros(5, int)}, r"train_targets has shape \(5,\); expected \(8,\)"),
        ({"train_targets": np.zeros(8)}, "train_targets has dtype float64"),
        ({"train_targets": np.full(8, -1)}, r"train_targets\[0\] is -1"),
        ({"valid_features": np.zeros((3, 5))}, "valid_features have 5 columns but train_features have 4"),
        ({"valid_features": np.full((3, 4), np.inf)}, r"valid_features\[0, 0\] is inf"),
        ({"valid_targets": np.zeros(0, int)}, "valid_targets has shape"),
    ],
)
def test_errors_name_the_argument(change, text):
    names = ("train_features", "train_targets", "valid_features", "valid_targets")
    with pytest.raises(DataError, match=text):
        knn_shapley(**{**dict(zip(names, problem())), **change})


@pytest.mark.slow
def test_memory_does_not_grow_with_validation_points():
    code = """
import resource, sys, numpy as np
from modicum.valuation import knn_shapley
draw = np.random.default_rng(0)
n, m = 20_000, int(sys.argv[1])
knn_shapley(draw.normal(size=(n, 32)).astype("f4"), draw.integers(0, 9, n), draw.normal(size=(m, 32)).astype("f4"), draw.integers(0, 9, m))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = [int(subprocess.check_output([sys.executable, "-c", code, m])) for m in ("300", "3000")]
    assert peaks[1] < 1.25 * peaks[0]
