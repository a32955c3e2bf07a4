import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from modicum.arrays import center_of, distinct, features, tensor, unit_rows
from modicum.errors import DataError


@settings(max_examples=50, deadline=None)
@given(
    arrays(
        np.float32, st.tuples(st.integers(1, 20), st.integers(1, 3)), elements=st.sampled_from([-1.0, -0.0, 0.0, 2.0])
    )
)
def test_distinct_finds_every_repetition(rows):
    again, first = distinct(rows)
    for i, row in enumerate(rows):
        earliest = next(j for j in range(i + 1) if (rows[j] == row).all())
        assert (i in again) == (earliest != i)
        if earliest != i:
            assert first[again.tolist().index(i)] == earliest


def test_distinct_survives_equal_hashes(monkeypatch):
    class Zero:
        def integers(self, low, high, size, dtype):
            return np.zeros(size, dtype)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Zero())
    again, first = distinct(np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]]))
    assert (again.tolist(), first.tolist()) == ([2], [0])


def test_center_keeps_integers_exact():
    x = (np.random.default_rng(0).integers(0, 50, (100, 4)) + 10_000).astype(np.float32)
    moved = x - center_of(x).astype(np.float32)
    assert (moved == np.round(moved)).all()
    assert np.abs(moved).max() < 100


def test_half_precision_and_integers_are_computed_in_more():
    assert features("x", torch.ones(2, 2, dtype=torch.bfloat16)).dtype == np.float32
    assert features("x", np.ones((2, 2), np.uint8)).dtype == np.float64
    assert tensor("x", torch.ones(2, 2, dtype=torch.int64), (2,), "(n, d)").dtype == torch.float64


def test_unit_rows():
    with pytest.raises(DataError, match=r"x\[1\] is all zero and has no direction"):
        unit_rows("x", np.array([[3.0, 4.0], [0.0, 0.0]]))
    assert unit_rows("x", np.array([[3.0, 4.0], [0.0, 0.0]]), zeros=True).tolist() == [[0.6, 0.8], [0.0, 0.0]]


def test_unit_rows_at_the_ends_of_the_range():
    rows = np.array([[3e200, 4e200], [3e-200, 4e-200], [3.0, 4.0]])
    assert unit_rows("x", rows) == pytest.approx(np.array([[0.6, 0.8]] * 3))
    assert rows[0, 0] == 3e200


def test_a_view_that_runs_backwards_is_an_array_like_others():
    rows = np.arange(6.0).reshape(3, 2)
    assert tensor("x", rows[::-1], (2,), "(n, d)").tolist() == rows[::-1].tolist()
