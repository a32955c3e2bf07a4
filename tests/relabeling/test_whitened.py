"""Whitening: unit covariance, equal to scikit-learn's, invariant to rotations, blocks of any size."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.errors import DataError
from modicum.relabeling import whitened_targets


def rows(n=200, d=12, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=draw, dtype=torch.float64)
    return (torch.randn(n, d, generator=draw, dtype=torch.float64) @ mix + 3).to(dtype)


def up_to_sign(a, b):
    return float((a - b * (a * b).sum(0).sign()).abs().max())


@settings(max_examples=15, deadline=None)
@given(n=st.integers(5, 60), d=st.integers(1, 10), seed=st.integers(0, 99), data=st.data())
def test_columns_are_uncorrelated_with_mean_0_and_variance_1(n, d, seed, data):
    dim = data.draw(st.integers(1, min(d, n - 1)))
    t = whitened_targets(rows(n, d, seed), dim)
    assert t.shape == (n, dim)
    torch.testing.assert_close(t.T @ t / n, torch.eye(dim, dtype=t.dtype), atol=1e-8, rtol=0)
    torch.testing.assert_close(t.mean(0), torch.zeros(dim, dtype=t.dtype), atol=1e-8, rtol=0)


def test_in_single_precision_too():
    t = whitened_targets(rows(2000, 64, dtype=torch.float32), 64)
    assert t.dtype == torch.float32
    assert float((t.T @ t / 2000 - torch.eye(64)).abs().max()) < 1e-4


@pytest.mark.parametrize("dim", [12, 5])
def test_equals_whitened_principal_components_of_scikit_learn(dim):
    from sklearn.decomposition import PCA

    y = rows()
    theirs = PCA(dim, whiten=True).fit_transform(y.numpy())[:, ::-1] * np.sqrt(200 / 199)
    assert up_to_sign(torch.from_numpy(theirs.copy()), whitened_targets(y, dim)) < 1e-8


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_the_blocks_do_not_matter(batch_size):
    y = rows()
    torch.testing.assert_close(whitened_targets(y, 6, batch_size), whitened_targets(y, 6), atol=1e-9, rtol=0)


def test_a_rotated_and_moved_prior_gives_the_same_targets_up_to_sign():
    y = rows()
    q = torch.linalg.qr(rows(12, 12, seed=1)).Q
    assert up_to_sign(whitened_targets(y @ q.T + 5, 8), whitened_targets(y, 8)) < 1e-8


def test_directions_without_variance_stay_small_and_finite():
    y = rows(50, 4)
    t = whitened_targets(torch.cat([y, y[:, :2], torch.ones(50, 1, dtype=y.dtype)], 1), 7)
    assert bool(t.isfinite().all())
    assert float(t[:, :3].abs().max()) < 1e-3
    torch.testing.assert_close(t[:, 3:].T @ t[:, 3:] / 50, torch.eye(4, dtype=t.dtype), atol=1e-6, rtol=0)


def test_half_precision_comes_back_in_single():
    assert whitened_targets(rows(dtype=torch.bfloat16), 3).dtype == torch.float32


def test_features_are_not_written_to():
    y = rows()
    before = y.clone()
    whitened_targets(y, 3)
    assert torch.equal(y, before)


def broken(value):
    y = rows(20, 4)
    y[7, 2] = value
    return y


@pytest.mark.parametrize(
    "features, dim, text",
    [
        (torch.zeros(4), 1, r"features are torch.float32 of shape \(4,\); expected floating \(n, d\)"),
        (torch.zeros(4, 2, dtype=torch.int64), 1, r"features are torch.int64 of shape \(4, 2\)"),
        (broken(torch.nan), 2, "features of row 7 are not finite"),
        (broken(torch.inf), 2, "features of row 7 are not finite"),
        (rows(20, 4), 5, "dim=5; expected an integer from 1 to 4: 20 rows of 4 features"),
        (rows(5, 9), 5, "dim=5; expected an integer from 1 to 4: 5 rows of 9 features"),
        (rows(20, 4), 0, "dim=0; expected"),
        (torch.ones(5, 3), 2, "all 5 rows are the same"),
    ],
)
def test_errors_name_the_argument(features, dim, text):
    with pytest.raises(DataError, match=text):
        whitened_targets(features, dim)


def test_a_block_has_rows():
    with pytest.raises(DataError, match="batch_size=0; expected an integer >= 1"):
        whitened_targets(rows(), 2, 0)
