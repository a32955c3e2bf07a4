import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from modicum.errors import DataError
from modicum.measurement.learners import Knn, Problem
from modicum.measurement.utilities import Utility
from modicum.valuation import knn_shapley

DRAW = np.random.default_rng(0)
X, Y, Q, W = DRAW.normal(size=(40, 3)), DRAW.integers(0, 3, 40), DRAW.normal(size=(25, 3)), DRAW.integers(0, 3, 25)


def problem(x=X, y=Y, classes=3):
    return Problem(*(torch.from_numpy(a) for a in (x, y, Q, W if classes else W.astype(float))), classes)


def votes(at, k, x=X):
    """(m, c) by a loop."""
    made = np.zeros((len(Q), 3))
    for row, query in zip(made, Q):
        for i in np.flatnonzero(at)[np.argsort(np.linalg.norm(x[at] - query, axis=1), kind="stable")][:k]:
            row[Y[i]] += 1 / k
    return made


@pytest.mark.parametrize("k", [1, 3, 30])
def test_votes_equal_a_loop_and_scikit_learn(k):
    masks = torch.rand(12, 40, generator=torch.Generator().manual_seed(0)) < torch.linspace(0.05, 1, 12)[:, None]
    masks[0] = False
    masks[0, 7] = True
    found = Knn(k=k).outputs(problem(), masks).numpy()
    for row, mask in zip(found, masks.numpy()):
        np.testing.assert_allclose(row, votes(mask, k), atol=1e-12)
        if mask.sum() >= k:
            peer = KNeighborsClassifier(k).fit(X[mask], Y[mask])
            np.testing.assert_allclose(row[:, peer.classes_], peer.predict_proba(Q), atol=1e-12)
            assert np.array_equal(row.argmax(1), peer.predict(Q))


def test_equal_distances_go_by_the_order_of_the_samples():
    x = np.repeat(X[:10], 4, axis=0)
    masks = torch.rand(9, 40, generator=torch.Generator().manual_seed(0)) < 0.5
    for row, mask in zip(Knn(k=3).outputs(problem(x), masks).numpy(), masks.numpy()):
        np.testing.assert_allclose(row, votes(mask, 3, x), atol=1e-12)


def test_regression_is_the_sum_over_k():
    y = DRAW.normal(size=40)
    mask = torch.arange(40) < 3
    (found,) = Knn(k=5).outputs(problem(y=y, classes=0), mask[None])
    np.testing.assert_allclose(found[:, 0].numpy(), np.full(25, y[:3].sum() / 5), atol=1e-12)


@pytest.mark.parametrize("k", [1, 5])
def test_permutations_converge_to_exact_knn_shapley(k):
    utility = Utility(problem(), Knn(k=k), "probability")
    draw = torch.Generator().manual_seed(3)
    orders = torch.stack([torch.randperm(40, generator=draw) for _ in range(400)])
    values, length = utility.prefixes(orders)
    assert (length == 40).all()
    assert utility.empty == 0
    gains = torch.zeros(400, 40, dtype=torch.float64).scatter_(1, orders, values.diff(dim=1))
    exact = knn_shapley(X, Y, Q, W, k=k)
    torch.testing.assert_close(
        gains.sum(1), torch.full((400,), exact.sum(), dtype=torch.float64), rtol=0, atol=1e-12
    )  # in every permutation
    errors = (gains.std(0) / 20).numpy()
    z = (gains.mean(0).numpy() - exact) / errors
    assert np.abs(z).max() < 3.3  # of 40; one alone is within 3 with probability 0.997
    assert 0.5 < (z**2).mean() < 1.6


def test_all_subsets_give_exact_knn_shapley():
    n = 8
    utility = Utility(Problem(*(torch.from_numpy(a) for a in (X[:n], Y[:n], Q, W)), 3), Knn(k=3), "probability")
    masks = (torch.arange(1 << n)[:, None] >> torch.arange(n)) % 2 == 1
    table, sizes = utility.values(masks).numpy(), masks.sum(1).numpy()
    from math import comb

    for i in range(n):
        without = ~masks[:, i].numpy()
        at = np.flatnonzero(without)
        weight = np.array([1 / (n * comb(n - 1, size)) for size in sizes[at]])
        assert (
            abs((weight * (table[at + (1 << i)] - table[at])).sum() - knn_shapley(X[:n], Y[:n], Q, W, k=3)[i]) < 1e-12
        )


@pytest.mark.parametrize("k", [0, -1, 2.0, True])
def test_k_is_an_integer(k):
    with pytest.raises(DataError, match=r"k=.*; expected an integer >= 1"):
        Knn(k=k)
