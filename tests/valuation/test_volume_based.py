import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError
from modicum.measurement import FeatureTable
from modicum.valuation import VolumeBased, robust_volume, volume, volume_leave_one_out, volume_values


def rows(n=30, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_is_the_root_of_the_determinant():
    x = rows()
    assert volume(x) == pytest.approx(0.5 * np.linalg.slogdet(x.T @ x)[1], rel=1e-12)
    assert isinstance(volume(torch.from_numpy(x)), float)


@settings(max_examples=15, deadline=None)
@given(k=st.integers(1, 6), d=st.integers(1, 5), seed=st.integers(0, 99))
def test_copies(k, d, seed):
    x = rows(20, d, seed)
    copied = np.concatenate([x] * k)
    assert volume(copied) - volume(x) == pytest.approx(d / 2 * math.log(k), abs=1e-9)
    assert 0 <= robust_volume(copied, alpha=1 / 200) - robust_volume(x, alpha=1 / 200) <= 0.11


def test_without_near_copies_every_row_is_rewarded_once():
    x, alpha = rows(), 0.01
    assert robust_volume(x, 1e-9, alpha=alpha) == pytest.approx(volume(x) + 30 * math.log(1 + alpha), rel=1e-12)


def test_merged_by_hand():
    x = np.array([[0.0, 0.0], [0.05, 0.02], [1.0, 0.3], [0.4, 2.0]])
    merged = np.array([[0.025, 0.01], [1.0, 0.3], [0.4, 2.0]])
    reward = math.log(1 + 0.1 + 0.01) + 2 * math.log(1.1)
    assert robust_volume(x, 0.1, alpha=0.1) == pytest.approx(volume(merged) + reward, rel=1e-12)
    assert robust_volume(x, 0.1) == pytest.approx(robust_volume(x, 0.1, alpha=1 / 30), rel=1e-12)
    assert robust_volume(x, 0.1, minimum=[0, 0]) == robust_volume(x, 0.1)


def test_rotation_changes_the_cubes_only():
    x = rows(200, 2)
    turn = np.array([[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]])
    assert volume(x @ turn) == pytest.approx(volume(x), rel=1e-12)
    assert robust_volume(x @ turn, 0.5) != pytest.approx(robust_volume(x, 0.5), rel=1e-6)


def test_shapley_values_of_sets_equal_all_orders():
    sets = [rows(n, 2, seed) for seed, n in enumerate((12, 20, 9, 15))]
    corner = np.concatenate(sets).min(0)

    def count(x):
        return len(np.unique(np.floor((x - corner) / 0.3), axis=0))

    alpha = 1 / (10 * sum(map(count, sets)))

    def worth(players):
        if not players:
            return 0.0
        return math.exp(
            robust_volume(np.concatenate([sets[i] for i in sorted(players)]), 0.3, minimum=corner, alpha=alpha)
        )

    everything = worth(range(4))
    expected = np.zeros(4)
    for order in itertools.permutations(range(4)):
        for place, player in enumerate(order):
            expected[player] += worth(order[: place + 1]) - worth(order[:place])
    np.testing.assert_allclose(volume_values(sets, 0.3), expected / 24 / everything, rtol=1e-10)
    alone = [worth([i]) / everything for i in range(4)]
    np.testing.assert_allclose(volume_values(sets, 0.3, shapley=False), alone, rtol=1e-10)


def test_leave_one_out_equals_leaving_one_out():
    x = rows()
    expected = [volume(x) - volume(np.delete(x, i, 0)) for i in range(len(x))]
    np.testing.assert_allclose(volume_leave_one_out(x), expected, rtol=1e-9, atol=1e-12)
    assert volume_leave_one_out(torch.from_numpy(x).float()).dtype == torch.float32


def test_larger_volume_smaller_error_of_a_regression():
    sets = [rows(40, 3, seed) * (1 + seed / 4) for seed in range(6)]
    errors = [np.trace(np.linalg.inv(x.T @ x)) for x in sets]
    assert np.array_equal(np.argsort([volume(x) for x in sets]), np.argsort(errors)[::-1])


def test_samples_of_a_source_share_its_value():
    x = torch.from_numpy(rows(60, 4)).float()
    sources = torch.arange(60) % 3
    data = Dataset(x, info=Info("unlabeled", sources=("a", "b", "c")), sources=sources)
    scores = VolumeBased().score(Splits(data, data[:3], data[:3]), Context(), FeatureTable(x, x[:3]))
    assert scores.labels is None
    assert scores.values.sum() == pytest.approx(1)
    assert [len(np.unique(scores.values[sources == s])) for s in range(3)] == [1, 1, 1]
    bare = data.replace(sources=None)
    alone = VolumeBased().score(Splits(bare, bare[:3], bare[:3]), Context(), FeatureTable(x, x[:3]))
    centered = x.double().numpy() - x.double().numpy().mean(0)
    np.testing.assert_allclose(alone.values, volume_leave_one_out(centered), rtol=1e-6)


def test_many_sources_and_constant_columns():
    x = torch.from_numpy(rows(60, 4)).float()
    x[:, 1] = 3
    data = Dataset(x, info=Info("unlabeled", sources=tuple(map(str, range(12)))), sources=torch.arange(60) % 12)
    scores = VolumeBased(components=2).score(Splits(data, data, data), Context(), FeatureTable(x, x))
    assert (scores.values > 0).all()
    same = FeatureTable(torch.ones(60, 4), x)
    with pytest.raises(DataError, match="all samples are the same, so that they span nothing"):
        VolumeBased().score(Splits(data, data, data), Context(), same)


def test_too_few_rows_have_no_volume():
    for found in (volume, robust_volume):
        with pytest.warns(UserWarning, match="2 rows do not span 3 columns, so that their volume is 0"):
            assert found(rows(2)) == -np.inf
    with pytest.warns(UserWarning, match=r"sets\[1\]: 2 rows do not span 3 columns"):
        assert volume_values([rows(), rows(2)], shapley=False)[1] == 0
    x = rows()
    x[:, 0] = x[:, 1]
    with pytest.warns(UserWarning, match="30 rows do not span 3 columns"):
        assert volume(x) == -np.inf


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: volume(np.full((3, 2), np.nan)), r"features\[0, 0\] is nan"),
        (lambda: robust_volume(rows(), 0.0), "omega=0.0; expected a number > 0"),
        (lambda: robust_volume(rows(), beta=-1), "beta=-1; expected a number > 0"),
        (lambda: robust_volume(rows(), alpha=1.0), r"alpha=1.0; expected a number in \[0, 1\)"),
        (lambda: robust_volume(rows(), minimum=[0.0, 0.0, 0.0]), "nowhere above the features"),
        (lambda: volume_values([]), "sets is empty"),
        (lambda: volume_values([rows(), rows(5, 2)]), r"sets have \[2, 3\] columns"),
        (lambda: volume_values([rows()] * 11), "sets has 11 sets; exact Shapley values take at most 10"),
        (lambda: volume_leave_one_out(rows(2)), "2 rows do not span 3 columns; drop columns"),
    ],
)
def test_errors_name_the_argument(call, text):
    with pytest.raises(DataError, match=text):
        call()
