import numpy as np
import pytest
import torch

from modicum.errors import BudgetError, DataError
from modicum.selection import herding


def rows(n=60, d=5, seed=0, unit=False):
    x = np.random.default_rng(seed).normal(size=(n, d)) + 0.5
    return x / np.linalg.norm(x, axis=1, keepdims=True) if unit else x


def by_definition(x, k):
    """iCaRL's argmin, computed as it is written."""
    mu, total, picked = x.mean(0), np.zeros(x.shape[1]), []
    for t in range(1, k + 1):
        cost = np.linalg.norm(mu - (x + total) / t, axis=1)
        cost[picked] = np.inf
        picked.append(int(cost.argmin()))
        total += x[picked[-1]]
    return picked


def welling(x, k):
    """w <- w + mu - h, picking the largest <w, h> among those left."""
    mu, picked = x.mean(0), []
    w = mu.copy()
    for _ in range(k):
        gain = x @ w
        gain[picked] = -np.inf
        picked.append(int(gain.argmax()))
        w += mu - x[picked[-1]]
    return picked


def test_equals_the_definition():
    for seed in range(5):
        assert herding(rows(seed=seed), 25).tolist() == by_definition(rows(seed=seed), 25)


def test_equals_welling_for_rows_of_one_length():
    for seed in range(5):
        x = rows(seed=seed, unit=True)
        assert herding(x, 25).tolist() == welling(x, 25)


def test_first_is_nearest_the_mean_and_smaller_is_a_prefix():
    x = rows()
    assert herding(x, 1)[0] == np.linalg.norm(x - x.mean(0), axis=1).argmin()
    assert herding(x, 20)[:10].tolist() == herding(x, 10).tolist()


def test_all_are_picked_once():
    assert sorted(herding(rows(), 1.0).tolist()) == list(range(60))
    assert sorted(herding(np.ones((5, 2)), 5).tolist()) == list(range(5))


def test_float32_agrees_with_float64():
    x = rows(500, 16).astype(np.float32)
    assert herding(x, 50).tolist() == herding(x.astype(np.float64), 50).tolist()


def test_same_kind_and_no_writes():
    x = torch.from_numpy(rows())
    before = x.clone()
    assert isinstance(herding(x, 5), torch.Tensor)
    assert torch.equal(x, before)
    frozen = rows()
    frozen.flags.writeable = False
    assert herding(frozen, 5).tolist() == herding(x, 5).tolist()


@pytest.mark.parametrize(
    "x, budget, error, text",
    [
        (np.zeros((3, 2)), 4, BudgetError, "asks for 4 samples, but there are 3"),
        (np.zeros((3, 2)), 0, BudgetError, "keep=0 keeps nothing"),
        (np.full((3, 2), np.nan), 1, DataError, r"features\[0, 0\] is nan"),
        (np.empty((0, 2)), 1, DataError, "features has shape"),
        (np.zeros(3), 1, DataError, r"features has shape \(3,\)"),
        (np.full((3, 2), 1e25, np.float32), 2, DataError, r"features reaches 1e\+25, whose squares overflow"),
        (np.eye(3), "1/class", BudgetError, "budget=1/class is per class, but no classes are given here"),
    ],
)
def test_errors_name_the_argument(x, budget, error, text):
    with pytest.raises(error, match=text):
        herding(x, budget)
