import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.valuation import sinkhorn
from modicum.valuation.sinkhorn import Cost, self_transport, transport


def samples(n, m, d=3, seed=0, far=0.0):
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=draw, dtype=torch.float64)
    return rows, torch.randn(m, d, generator=draw, dtype=torch.float64) + far


def plain(cost, eps, steps=20_000):
    """Sinkhorn's iteration as in the textbooks."""
    _n, m = cost.shape
    g = np.zeros(m)
    for _ in range(steps):
        f = -eps * np.log(np.exp((g - cost) / eps).mean(1))
        g = -eps * np.log(np.exp((f[:, None] - cost) / eps).mean(0))
    return f, g


@pytest.mark.parametrize("n, m", [(9, 6), (6, 9), (7, 7)])
def test_equals_the_plain_iteration_and_the_primal_cost(n, m):
    rows, columns = samples(n, m)
    cost = torch.cdist(rows, columns).square().numpy()
    found = transport(Cost(rows, columns), 1.0, 1e-12)
    f, g = plain(cost, 1.0)
    np.testing.assert_allclose(found.rows - found.rows.mean(), f - f.mean(), atol=1e-8)
    np.testing.assert_allclose(found.columns - found.columns.mean(), g - g.mean(), atol=1e-8)
    plan = np.exp((f[:, None] + g - cost) / 1.0) / (n * m)
    primal = (plan * cost).sum() + (plan * np.log(plan * n * m)).sum()
    assert found.cost == pytest.approx(primal, abs=1e-9)
    assert found.violation < 1e-11


def test_potentials_are_those_of_the_converged_problem_where_the_iteration_is_not():
    rows, columns = samples(40, 40, seed=1)
    found = transport(Cost(rows, columns), 0.05)
    assert found.violation < 1e-7
    plan = (found.rows[:, None] + found.columns - torch.cdist(rows, columns).square()) / 0.05
    plan = plan.exp() / 1600
    torch.testing.assert_close(plan.sum(1), torch.full((40,), 1 / 40, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(plan.sum(0), torch.full((40,), 1 / 40, dtype=torch.float64), atol=1e-8, rtol=0)


def test_blocks_and_conjugate_gradients_give_the_same(monkeypatch):
    rows, columns = samples(50, 30)
    whole = transport(Cost(rows, columns), 0.5, 1e-11)
    monkeypatch.setattr(sinkhorn, "KEPT", 0)
    monkeypatch.setattr(sinkhorn, "BLOCK", 64)
    parts = transport(Cost(rows, columns), 0.5, 1e-11)
    torch.testing.assert_close(parts.rows, whole.rows, atol=1e-9, rtol=0)
    assert parts.passes == whole.passes
    monkeypatch.setattr(sinkhorn, "DENSE", 0)
    matrix_free = transport(Cost(rows, columns), 0.5)
    assert matrix_free.violation < 1e-4
    torch.testing.assert_close(matrix_free.rows, whole.rows, atol=1e-2, rtol=0)


def test_to_itself():
    rows, _ = samples(30, 1)
    once, twice = self_transport(Cost(rows, rows), 0.7, 1e-12), transport(Cost(rows, rows), 0.7, 1e-12)
    assert once.cost == pytest.approx(twice.cost, abs=1e-9)
    torch.testing.assert_close(once.rows - once.rows.mean(), twice.rows - twice.rows.mean(), atol=1e-8, rtol=0)
    assert torch.equal(once.rows, once.columns)


def test_far_clusters_and_copies():
    rows, columns = samples(30, 20, far=50.0)
    rows[:10] = rows[0]
    columns[:5] -= 100
    found = transport(Cost(rows, columns), 0.1)
    assert found.violation < 1e-6
    assert bool(found.rows.isfinite().all())
    torch.testing.assert_close(found.rows[:10], found.rows[:1].expand(10), atol=1e-8, rtol=0)


@settings(max_examples=10, deadline=None)
@given(n=st.integers(1, 12), m=st.integers(1, 12), seed=st.integers(0, 50), shift=st.floats(-3, 3))
def test_a_constant_in_the_cost_only_shifts_it(n, m, seed, shift):
    rows, columns = samples(n, m, seed=seed)
    labels = torch.zeros(n, dtype=torch.int64), torch.zeros(m, dtype=torch.int64)
    table = torch.full((1, 1), shift, dtype=torch.float64)
    a = transport(Cost(rows, columns), 1.0, 1e-10)
    b = transport(Cost(rows, columns, 1.0, *labels, table), 1.0, 1e-10)
    assert b.cost == pytest.approx(a.cost + shift, abs=1e-7)
    torch.testing.assert_close(a.rows - a.rows.mean(), b.rows - b.rows.mean(), atol=1e-6, rtol=0)
