import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import BudgetError, DataError, ModicumError
from modicum.measurement.features import FeatureTable
from modicum.methods import make
from modicum.scores import Budget
from modicum.selection import Moderate, moderate, prototype_distances


def data(n=41, d=3, c=3, seed=0):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(n, d)), draw.integers(0, c, n)


def test_distances_are_from_the_median_of_the_class():
    x, y = data()
    expected = [np.linalg.norm(x[i] - np.median(x[y == y[i]], axis=0)) for i in range(len(x))]
    assert np.allclose(prototype_distances(x, y), expected, atol=1e-14, rtol=0)
    assert prototype_distances(torch.tensor([[0.0], [0.0], [9.0]]), torch.zeros(3, dtype=int)).tolist() == [0, 0, 9]


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 40), share=st.floats(0.01, 1), seed=st.integers(0, 1000), ties=st.booleans())
def test_kept_is_a_block_around_the_median_and_dropped_are_its_tails(n, share, seed, ties):
    x, y = data(n, seed=seed)
    x = x.round() if ties else x
    distances, kept = prototype_distances(x, y), moderate(x, y, share)
    assert len(kept) == Budget(keep=share).count(n)
    ranked = np.argsort(distances, kind="stable")
    inside = np.isin(ranked, kept)
    low = int(inside.argmax())
    high = n - low - len(kept)
    assert inside[low : low + len(kept)].all()
    assert abs(low - high) <= 1
    tails = np.concatenate([ranked[:low], ranked[n - high :]])
    assert sorted([*tails, *kept]) == list(range(n))


def test_a_smaller_budget_is_part_of_a_larger_one():
    x, y = data()
    for k in range(1, 41):
        assert set(moderate(x, y, k)) < set(moderate(x, y, k + 1))


def test_class_by_class():
    x, y = data(60)
    kept = moderate(x, y, 0.4, per_class=True)
    for c in range(3):
        members = np.flatnonzero(y == c)
        inside = np.isin(np.argsort(prototype_distances(x, y)[members]), np.flatnonzero(np.isin(members, kept)))
        low, high = inside.argmax(), inside[::-1].argmax()
        assert inside[low : len(inside) - high].all()
        assert abs(low - high) <= 1
    assert np.bincount(y[moderate(x, y, "5/class")]).tolist() == [5, 5, 5]


def test_class_floor():
    x, y = data(60)
    x[y == 2] *= 100  # all far from the joint median
    assert 2 not in y[moderate(x, y, 12)]
    assert (y[moderate(x, y, 12, class_balance=0.5)] == 2).sum() == 2


def test_same_kind_and_no_writes():
    x, y = data()
    x.flags.writeable = y.flags.writeable = False
    as_tensors = moderate(torch.from_numpy(x.copy()), torch.from_numpy(y.copy()), 7)
    assert isinstance(as_tensors, torch.Tensor)
    assert as_tensors.tolist() == moderate(x, y, 7).tolist()
    assert prototype_distances(x.astype(np.float32), y).dtype == np.float32


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda x, y: moderate(np.where(x > 1, np.nan, x), y, 3), DataError, r"features\[\d+, \d+\] is nan"),
        (lambda x, y: moderate(x, y[:-1], 3), DataError, r"targets has shape \(40,\); expected \(41,\)"),
        (lambda x, y: moderate(x[:, 0], y, 3), DataError, r"features has shape \(41,\)"),
        (lambda x, y: moderate(x, y, 42), BudgetError, "42 asks for 42 samples, but there are 41"),
        (lambda x, y: moderate(x, y, "30/class"), BudgetError, "30/class asks for more than"),
        (lambda x, y: moderate(x, y, 3, True, 0.5), BudgetError, "class_balance=0.5 with per_class=True"),
        (lambda x, y: moderate(x, y, 3, class_balance=2), BudgetError, "class_balance=2; expected a share"),
        (lambda x, y: Moderate(per_class=True, class_balance=0.5), ModicumError, "option class_balance=0.5 is for"),
        (
            lambda x, y: make("moderate(class_balance=7)"),
            ModicumError,
            r"class_balance=7; expected a number in \[0, 1\]",
        ),
    ],
)
def test_errors_name_the_argument(call, error, text):
    with pytest.raises(error, match=text):
        call(*data())


def test_the_method_gives_distances_and_reasons():
    x, y = data(60)
    table = FeatureTable(torch.from_numpy(x), torch.from_numpy(x[:3]))
    train = Dataset(torch.from_numpy(x), torch.from_numpy(y), info=Info(classes=("a", "b", "c")))
    for per_class in (False, True):
        method = Moderate("inputs", per_class)
        chosen = method.select(Splits(train, train, train), Budget(keep=0.3), Context(), table)
        assert chosen.positions.tolist() == moderate(x, y, 0.3, per_class).tolist()
        assert np.allclose(chosen.values, prototype_distances(x, y))
        assert set(chosen.reasons[chosen.positions]) == {"near the median distance"}
        assert set(chosen.reasons) == {
            "near the median distance",
            "too near its prototype",
            "too far from its prototype",
        }
