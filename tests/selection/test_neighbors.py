import numpy as np
import pytest
import torch

from modicum.errors import DataError
from modicum.selection import neighbor_graph


def clusters(n, d=16, seed=0):
    draw = torch.Generator().manual_seed(seed)
    rows = 0.5 * torch.randn(n, d, generator=draw)
    return rows + torch.randn(30, d, generator=draw)[torch.randint(30, (n,), generator=draw)]


def by_definition(rows, k):
    apart = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(-1))
    np.fill_diagonal(apart, np.inf)
    order = np.argsort(apart, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(apart, order, 1)


def recall(found, exact):
    return float((exact[:, :, None] == found[:, None]).any(2).float().mean())


@pytest.mark.parametrize("k", [1, 7, 199])
def test_equals_the_definition(k):
    rows = np.random.default_rng(0).normal(size=(200, 5))
    indices, distances = neighbor_graph(rows, k)
    order, apart = by_definition(rows, k)
    assert (indices == order).all()
    assert np.abs(distances - apart).max() < 1e-12


def test_many_columns_are_searched_by_their_minima():
    rows = np.random.default_rng(1).normal(size=(1500, 3))
    order, apart = by_definition(rows, 5)
    indices, distances = neighbor_graph(rows, 5)
    assert (indices == order).all()
    assert np.abs(distances - apart).max() < 1e-12


def test_angles():
    rows = np.random.default_rng(2).normal(size=(100, 4))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    indices, distances = neighbor_graph(rows, 6, metric="cosine")
    cosines = unit @ unit.T
    assert np.abs(distances - (1 - np.take_along_axis(cosines, indices, 1))).max() < 1e-12
    assert (indices == by_definition(unit, 6)[0]).all()


def test_equal_rows_are_at_distance_zero_and_never_their_own_neighbor():
    rows = clusters(300).repeat(2, 1) + 1000
    indices, distances = neighbor_graph(rows, 3)
    assert (indices[:, 0] == (torch.arange(600) + 300) % 600).all()
    assert (distances[:, 0] == 0).all()
    assert (indices != torch.arange(600)[:, None]).all()


@pytest.mark.parametrize("n", [40, 3000])
def test_cells_find_nearly_all(n):
    rows = clusters(n)
    exact, apart = neighbor_graph(rows, 10, approximate=False)
    found, distances = neighbor_graph(rows, 10, approximate=True)
    assert recall(found, exact) > 0.95
    assert (distances >= apart - 1e-6).all()
    assert (distances.diff(dim=1) >= 0).all()
    assert all(len(set(row)) == 10 for row in found.tolist())
    assert (found != torch.arange(n)[:, None]).all()


def test_more_probes_find_more():
    rows = torch.randn(3000, 16, generator=torch.Generator().manual_seed(0))
    exact, _ = neighbor_graph(rows, 10)
    some, more = (recall(neighbor_graph(rows, 10, approximate=True, probes=p)[0], exact) for p in (2, 60))
    assert some < more
    assert more > 0.9


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [30, 700])
def test_however_many_tie_the_first_are_taken(n, dtype):
    draw = np.random.default_rng(3)
    for rows in (draw.integers(0, 3, size=(n, 2)), np.zeros((n, 2)), np.arange(n)[:, None] % 7 + 1000):
        indices, distances = neighbor_graph(rows.astype(dtype), 6)
        order, apart = by_definition(rows.astype(float), 6)
        assert (indices == order).all()
        assert np.allclose(distances, apart)


def test_all_rows_equal():
    for way in (False, True):
        _, distances = neighbor_graph(torch.ones(50, 3), 4, approximate=way)
        assert (distances == 0).all()


@pytest.mark.parametrize(
    "given, text",
    [
        ({"k": 5}, "k=5; expected an integer from 1 to n - 1 = 4"),
        ({"k": 0}, "k=0; expected an integer from 1"),
        ({"k": 1, "metric": "l1"}, "metric='l1'; expected one of"),
        ({"k": 1, "probes": 0}, "probes=0; expected an integer >= 1"),
        ({"k": 1, "metric": "cosine"}, r"features\[0\] is all zero"),
    ],
)
def test_errors(given, text):
    with pytest.raises(DataError, match=text):
        neighbor_graph(np.zeros((5, 2)), **given)
