import itertools

import numpy as np
import pytest
import torch

from modicum.errors import BudgetError, DataError
from modicum.selection import k_center_greedy


def radius(x, centers):
    return np.sqrt(((x[:, None] - x[list(centers)]) ** 2).sum(2)).min(1).max()


def naive(x, k, start):
    """All distances, k x n, as it is written."""
    picked, nearest = [start], np.linalg.norm(x - x[start], axis=1)
    while len(picked) < k:
        picked.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(x - x[picked[-1]], axis=1))
    return picked


def test_line():
    picked = k_center_greedy(np.arange(11)[:, None], 4, start=0).tolist()
    assert picked[:3] == [0, 10, 5]
    assert picked[3] == 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_naive_algorithm(dtype):
    x = np.random.default_rng(0).normal(size=(400, 8)).astype(dtype)
    assert k_center_greedy(x, 60, start=7).tolist() == naive(x, 60, 7)


def test_at_most_twice_the_best_radius():
    for seed in range(5):
        x = np.random.default_rng(seed).normal(size=(12, 2))
        best = min(radius(x, centers) for centers in itertools.combinations(range(12), 3))
        for start in (None, *range(12)):
            assert radius(x, k_center_greedy(x, 3, start)) <= 2 * best + 1e-12


def test_starts_nearest_the_mean_and_smaller_is_a_prefix():
    x = np.random.default_rng(0).normal(size=(50, 3))
    picked = k_center_greedy(x, 20)
    assert picked[0] == np.linalg.norm(x - x.mean(0), axis=1).argmin()
    assert k_center_greedy(x, 5).tolist() == picked[:5].tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_never_picks_a_sample_or_its_twin_again(dtype):
    draw = np.random.default_rng(0)
    some = (draw.normal(size=(41, 131)) * 1e-3 + 1000).astype(dtype)
    x = np.concatenate([some, some, some])
    picked = k_center_greedy(x, 41)
    assert len({i % 41 for i in picked.tolist()}) == 41


def test_fewer_distinct_rows_than_picks_warns_and_fills():
    x = np.repeat(np.eye(3), 4, axis=0)
    with pytest.warns(UserWarning, match="only 3 rows that differ by more than rounding; the other 2 picks repeat"):
        picked = k_center_greedy(x, 5)
    assert len(set(picked.tolist())) == 5
    assert len({i // 4 for i in picked[:3].tolist()}) == 3


def test_same_kind_and_no_writes():
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    picked = k_center_greedy(x, 0.5)
    assert isinstance(picked, torch.Tensor)
    assert torch.equal(x, before)
    array = x.numpy().copy()
    array.flags.writeable = False
    assert k_center_greedy(array, 0.5).tolist() == picked.tolist()


def test_far_from_the_origin_keeps_its_order():
    x = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    x = np.round(x * 64) / 64  # adding 1000 to these is exact
    assert k_center_greedy(x + np.float32(1000), 30, start=0).tolist() == k_center_greedy(x, 30, start=0).tolist()


@pytest.mark.parametrize(
    "x, budget, start, error, text",
    [
        (np.zeros((3, 2)), 4, None, BudgetError, "asks for 4 samples, but there are 3"),
        (np.zeros((3, 2)), 1, 3, DataError, "start=3; expected a position from 0 to 2"),
        (np.full((3, 2), np.nan), 1, None, DataError, r"features\[0, 0\] is nan"),
        (np.empty((0, 2)), 1, None, DataError, "features has shape"),
        (np.eye(3) * 1e200, 2, None, DataError, r"features reaches 1e\+200, whose squares overflow"),
        (np.eye(3), "1/class", None, BudgetError, "budget=1/class is per class, but no classes are given here"),
    ],
)
def test_errors_name_the_argument(x, budget, start, error, text):
    with pytest.raises(error, match=text):
        k_center_greedy(x, budget, start)
