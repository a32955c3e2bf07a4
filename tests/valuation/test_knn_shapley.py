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
from modicum.valuation.knn_shapley import _measure
from modicum.valuation.nearest import from_ranked, nearest


def made_up(n=8, m=3, d=4, classes=2, seed=0, dtype=np.float64):
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(n) % classes)
    wanted = draw.integers(0, classes, m)
    return draw.normal(size=(n, d)).astype(dtype), labels, draw.normal(size=(m, d)).astype(dtype), wanted


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


def test_worked_example():
    values = knn_shapley(np.array([[1.0], [2.0], [3.0]]), np.array([1, 0, 1]), np.zeros((1, 1)), np.array([1]), k=1)
    np.testing.assert_allclose(values, [5 / 6, -1 / 6, 1 / 3], atol=1e-15)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 50), st.integers(0, 1000))
def test_equals_the_recursion_and_is_efficient(n, m, k, seed):
    train, labels, valid, wanted = made_up(n, m, classes=min(3, n), seed=seed)
    wanted = labels[wanted % n]
    values = knn_shapley(train, labels, valid, wanted, k)
    np.testing.assert_allclose(values, loop(train, labels, valid, wanted, k), atol=1e-13)
    nearest = np.argsort(((valid[:, None] - train) ** 2).sum(2), axis=1, kind="stable")[:, :k]
    assert values.sum() == pytest.approx((labels[nearest] == wanted[:, None]).sum() / k / m, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_and_threads_agree_with_the_loop(dtype, monkeypatch):
    case = made_up(700, 50, 16, 5, dtype=dtype)
    whole = knn_shapley(*case)
    np.testing.assert_allclose(whole, loop(*case, 5), atol=1e-8 if dtype == np.float32 else 1e-13)
    module = import_module("modicum.valuation.nearest")
    monkeypatch.setattr(module, "CHUNK", 1)
    np.testing.assert_allclose(knn_shapley(*case), whole, atol=1e-8 if dtype == np.float32 else 1e-13)
    single = knn_shapley(*case)
    monkeypatch.setattr(module, "THREADS", 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
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
    module = import_module("modicum.valuation.nearest")
    monkeypatch.setattr(module, "_on_cpu", module._on_accelerator)  # the other route, here on the CPU too
    np.testing.assert_allclose(knn_shapley(train, labels, valid, wanted), exact, atol=1e-6)


def test_mirrored_integers_tie_by_position():
    train, labels = np.array([[2.0], [0.0], [5.0]], np.float32), np.array([0, 1, 1])
    values = knn_shapley(train, labels, np.array([[1.0]], np.float32), np.array([1]), k=1)
    np.testing.assert_allclose(values, loop(train, labels, np.array([[1.0]]), np.array([1]), 1), atol=1e-7)


def test_far_from_the_origin_keeps_its_order():
    train, labels, valid, wanted = made_up(200, 20, 3, 4)
    shifted = knn_shapley((train + 1e4).astype(np.float32), labels, (valid + 1e4).astype(np.float32), wanted)
    single = [(a + 1e4).astype(np.float32).astype(np.float64) for a in (train, valid)]
    exact = loop(single[0], labels, single[1], wanted, 5)
    np.testing.assert_allclose(shifted, exact, atol=1e-7)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.integers(1, 4), st.integers(0, 10**6), st.integers(1, 300))
def test_nearest_is_the_stable_argsort(n, levels, seed, keep):
    draw = np.random.default_rng(seed)
    distances = draw.integers(0, levels, (3, n)) * draw.choice([0.0, 1.0, 1 + 1e-15, 1 + 2e-15, 1e300, 1e-310], (3, n))
    expected = np.argsort(distances, axis=1, kind="stable")
    assert np.array_equal(nearest(distances, n), expected)
    assert np.array_equal(nearest(distances, keep), expected[:, :keep])
    assert np.array_equal(nearest(torch.from_numpy(distances), keep).numpy(), expected[:, :keep])


def test_kernel_takes_any_utility_per_point():
    utilities = np.random.default_rng(0).random((2, 7))
    n, k = 7, 3
    weights = 1 / np.maximum(np.arange(1, n + 1), k)
    for row, values in zip(utilities, from_ranked(utilities, weights)):
        expected = np.zeros(n)
        for size in range(n):
            weight = 1 / (n * math.comb(n - 1, size))
            for subset in itertools.combinations(range(n), size):
                for i in set(range(n)) - set(subset):
                    gain = sum(row[sorted((*subset, i))[:k]]) - sum(row[list(subset[:k])])
                    expected[i] += weight * gain / k
        np.testing.assert_allclose(values, expected, atol=1e-14)
    torch.testing.assert_close(
        from_ranked(torch.from_numpy(utilities), weights), torch.from_numpy(from_ranked(utilities, weights).copy())
    )


def utilities_of(labels, wanted, weight, train, valid):
    """(m, n) what each training point is worth to each validation point when it votes."""
    distances = ((valid[:, None] - train) ** 2).sum(2)
    worth = np.ones_like(distances) if weight is None else weight(torch.from_numpy(distances)).numpy()
    return (labels == wanted[:, None]) * worth


def far_counts_less(squared):
    return 1 / (1 + squared)


@pytest.mark.parametrize("weight", [None, far_counts_less])
@pytest.mark.parametrize("utility", ["hard", "soft"])
@pytest.mark.parametrize("k", [1, 3, 5, 8, 10])
def test_any_utility_equals_all_subsets(k, utility, weight, by_definition):
    train, labels, valid, wanted = made_up(m=5, classes=3)
    worth = utilities_of(labels, wanted, weight, train, valid)

    def total(j, order, ranks):
        if utility == "hard":
            return worth[j, order[ranks[:k]]].sum() / k
        return worth[j, order[ranks[:k]]].mean() if ranks else 1 / 3

    each = by_definition(train, valid, total)
    mean, error = _measure(train, labels, valid, wanted, k, utility, weight, errors=True)
    np.testing.assert_allclose(mean, each.mean(0), atol=1e-14)
    np.testing.assert_allclose(error, each.std(0, ddof=1) / np.sqrt(5), atol=1e-8)
    values = knn_shapley(train, labels, valid, wanted, k, utility, weight=weight)
    assert np.array_equal(values, mean)
    assert values.sum() == pytest.approx(each.sum(1).mean(), abs=1e-13)  # efficiency


def test_soft_equals_the_published_recursion():
    train, labels, valid, wanted = made_up(60, 1, classes=3)
    n, k, classes = 60, 7, 3
    order = np.argsort(((train - valid[0]) ** 2).sum(1), kind="stable")
    a = np.concatenate([[np.nan], labels[order] == wanted[0]])
    harmonic = sum(1 / j for j in range(1, k + 1))
    s = (a[n] - a[1:n].mean()) / n * (harmonic - 1) + (a[n] - 1 / classes) / n
    values = {n: s}
    for i in range(n - 1, 0, -1):
        s += (a[i] - a[i + 1]) / (n - 1) * (harmonic + (min(i, k) * (n - 1) / i - k) / k)
        values[i] = s
    expected = np.empty(n)
    expected[order] = [values[i] for i in range(1, n + 1)]
    np.testing.assert_allclose(knn_shapley(train, labels, valid, wanted, k, "soft"), expected, atol=1e-14)


def test_soft_of_a_single_point():
    one = (np.zeros((1, 2)), np.array([4]), np.ones((2, 2)), np.array([4, 4]))
    assert knn_shapley(*one, 5, "soft", classes=10).tolist() == [0.9]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 200),
    st.integers(1, 12),
    st.floats(0.01, 1.0),
    st.sampled_from(["hard", "soft"]),
    st.sampled_from([None, far_counts_less]),
    st.integers(0, 1000),
)
def test_truncation_keeps_its_bound(n, k, eps, utility, weight, seed):
    train, labels, valid, wanted = made_up(n, 4, classes=min(3, n), seed=seed)
    wanted = labels[wanted % n]
    train = np.round(train)  # many ties
    exact = knn_shapley(train, labels, valid, wanted, k, utility, weight=weight)
    near = knn_shapley(train, labels, valid, wanted, k, utility, weight=weight, truncate=eps)
    assert np.abs(near - exact).max() <= eps
    if n <= max(k, math.ceil(1 / eps)):
        assert np.array_equal(near, exact)


def test_truncated_recursion_starts_at_zero():
    train, labels = np.arange(1.0, 9)[:, None], np.array([0, 1, 1, 0, 1, 1, 0, 0])
    values = knn_shapley(train, labels, np.zeros((1, 1)), np.array([1]), k=2, truncate=0.25)
    expected = [1 / 3 + (0 - 1) / 2, 1 / 3, 1 / 3, 0, 0, 0, 0, 0]  # s_4 = 0, s_3 = (1 - 0) / 3
    np.testing.assert_allclose(values, expected, atol=1e-15)


@pytest.mark.parametrize("utility", ["hard", "soft"])
@pytest.mark.parametrize("weight", [None, far_counts_less])
@pytest.mark.parametrize("truncate", [None, 0.05])
def test_both_routes_agree(utility, weight, truncate, monkeypatch):
    case = made_up(700, 50, 16, 5)

    def both():
        return _measure(*case, 5, utility, weight, truncate, errors=True)

    whole = both()
    module = import_module("modicum.valuation.nearest")
    monkeypatch.setattr(module, "_on_cpu", module._on_accelerator)
    np.testing.assert_allclose(both(), whole, atol=1e-12)


def test_duplicates_are_equal_when_all_vote_for_the_same():
    train, labels = np.repeat(np.random.default_rng(0).normal(size=(5, 3)), 3, axis=0), np.repeat(np.arange(5) % 2, 3)
    values = knn_shapley(train, labels, train[::3] + 0.01, labels[::3], k=3, utility="soft")
    np.testing.assert_allclose(values.reshape(5, 3), values.reshape(5, 3)[:, :1].repeat(3, 1), atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_in_tensors_out(dtype):
    case = [torch.from_numpy(a) for a in made_up(30)]
    case[0], case[2] = case[0].to(dtype), case[2].to(dtype)
    before = [a.clone() for a in case]
    values = knn_shapley(*case)
    assert values.dtype == dtype
    assert values.shape == (30,)
    assert all(torch.equal(a, b) for a, b in zip(case, before))
    assert np.array_equal(knn_shapley(*[a.numpy() for a in case]), values.numpy())


def test_read_only_arrays_are_fine():
    case = made_up(30)
    for array in case:
        array.flags.writeable = False
    assert knn_shapley(*case).shape == (30,)


def test_unseen_class_warns_and_is_worth_nothing():
    train, labels, valid, _ = made_up()
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
        knn_shapley(**{**dict(zip(names, made_up())), **change})


def test_options_name_what_is_wrong():
    case = made_up(classes=3)
    for options, text in (
        ({"utility": "weighted"}, r"utility='weighted'; expected one of \('hard', 'soft'\)"),
        ({"truncate": 0}, r"truncate=0; expected the greatest error of a value, in \(0, 1\]"),
        ({"truncate": 1.5}, "truncate=1.5; expected"),
        ({"utility": "soft", "classes": 2}, "classes=2; expected an integer >= 3"),
        ({"weight": lambda squared: squared.sum()}, r"weight gave shape \(\) for squared distances of shape \(3, 8\)"),
        ({"weight": lambda squared: 1 / (squared - squared)}, "weight gave entries that are not finite"),
    ):
        with pytest.raises(DataError, match=text):
            knn_shapley(*case, **options)


def test_one_validation_point_gives_no_standard_error():
    assert _measure(*made_up(m=1), 5, "hard", errors=True)[1] is None


PEAK = """
import resource, sys, warnings
from modicum.ledger import peak_bytes
import numpy as np, torch
from modicum import valuation
warnings.simplefilter("ignore")
name, n, m, d, threads = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
draw = np.random.default_rng(0)
options = {"radius": 1.0} if name.startswith("threshold") else {"k": 5}
def case(n, m):
    a, b = draw.integers(0, 9, n), draw.integers(0, 9, m)
    if name.endswith("regression"):
        a, b = a.astype(float), b.astype(float)
    return draw.random((n, d), dtype="f4"), a, draw.random((m, d), dtype="f4"), b
getattr(valuation, name)(*case(3000, 30), **options)
given = case(n, m)
before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
getattr(valuation, name)(*given, **options)
print(peak_bytes() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory of a process is read from /proc")
@pytest.mark.parametrize("n, m, threads", [(200_000, 200, 1), (200_000, 200, 2), (20_000, 3000, 2)])
@pytest.mark.parametrize(
    "name", ["knn_shapley", "knn_banzhaf", "knn_loo", "knn_shapley_regression", "threshold_knn_shapley"]
)
def test_memory_is_what_the_formula_says(name, n, m, threads):
    d = 64
    out = subprocess.check_output([sys.executable, "-c", PEAK, name, str(n), str(m), str(d), str(threads)])
    formula = 8 * d * (n + m) + 8 * n * min(m, max(1, 2**23 // n)) + 80 * threads * max(n, min(m * n, 2**17))
    assert int(out) == pytest.approx(formula, rel=0.25)


@pytest.mark.slow
def test_memory_does_not_grow_with_validation_points():
    code = """
import resource, sys, numpy as np
from modicum.ledger import peak_bytes
from modicum.valuation import knn_shapley
draw = np.random.default_rng(0)
n, m = 20_000, int(sys.argv[1])
knn_shapley(draw.normal(size=(n, 32)).astype("f4"), draw.integers(0, 9, n), draw.normal(size=(m, 32)).astype("f4"), draw.integers(0, 9, m))
print(peak_bytes() // 1024)
"""
    peaks = [int(subprocess.check_output([sys.executable, "-c", code, m])) for m in ("300", "3000")]
    assert peaks[1] < 1.25 * peaks[0]
