import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.errors import DataError
from modicum.valuation import ridge_group_loo, ridge_loo


def problem(n=60, d=8, c=0, m=25, seed=0):
    draw = np.random.default_rng(seed)
    shape = (d, c) if c else (d,)
    truth = draw.normal(size=shape)
    x, v = draw.normal(size=(n, d)), draw.normal(size=(m, d))

    def noise(k):
        return draw.normal(size=(k, c) if c else k)

    return x, x @ truth + noise(n), v, v @ truth + noise(m)


def refit(x, y, l2, weights=None, intercept=False):
    """Normal equations, plainly."""
    if intercept:
        x = np.hstack([x, np.ones((len(x), 1))])
    penalty = l2 * np.eye(x.shape[1])
    if intercept:
        penalty[-1, -1] = 0
    s = np.ones(len(x)) if weights is None else weights
    return np.linalg.solve(x.T @ (s[:, None] * x) + penalty, x.T @ (s.reshape(-1, *[1] * (y.ndim - 1)) * y))


def predict(theta, x, intercept):
    return (np.hstack([x, np.ones((len(x), 1))]) if intercept else x) @ theta


def loss(theta, x, y, intercept):
    return ((y - predict(theta, x, intercept)) ** 2).reshape(len(x), -1).sum(1).mean()


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outputs", [0, 3])
@pytest.mark.parametrize("l2", [0.0, 0.7])
def test_equals_refits(intercept, weighted, outputs, l2):
    x, y, v, z = problem(c=outputs)
    weights = np.random.default_rng(1).uniform(0.2, 2, len(x)) if weighted else None
    found = ridge_loo(x, y, l2, weights=weights, intercept=intercept, valid_features=v, valid_targets=z)
    full = refit(x, y, l2, weights, intercept)
    np.testing.assert_allclose(found.coefficients, full, atol=1e-12)
    total = 0.0
    for i in range(len(x)):
        keep = np.arange(len(x)) != i
        theta = refit(x[keep], y[keep], l2, None if weights is None else weights[keep], intercept)
        np.testing.assert_allclose(found.without(i), theta, atol=1e-12)
        residual = y[i] - predict(theta, x[i : i + 1], intercept)[0]
        np.testing.assert_allclose(found.residuals[i], residual, atol=1e-12)
        total += (residual**2).sum()
        expected = loss(theta, v, z, intercept) - loss(full, v, z, intercept)
        np.testing.assert_allclose(found.values[i], expected, atol=1e-12)
    np.testing.assert_allclose(found.press, total, rtol=1e-12)


@pytest.mark.parametrize("intercept", [False, True])
def test_more_columns_than_samples(intercept):
    x, y, v, z = problem(n=12, d=30)
    found = ridge_loo(x, y, 0.5, intercept=intercept, valid_features=v, valid_targets=z)
    np.testing.assert_allclose(found.coefficients, refit(x, y, 0.5, intercept=intercept), atol=1e-11)
    for i in range(12):
        keep = np.arange(12) != i
        theta = refit(x[keep], y[keep], 0.5, intercept=intercept)
        np.testing.assert_allclose(found.without(i), theta, atol=1e-11)
        np.testing.assert_allclose(
            found.values[i],
            loss(theta, v, z, intercept) - loss(found.coefficients, v, z, intercept),
            atol=1e-11,
        )


def test_leverages_sum_to_the_number_of_coefficients():
    x, y, _, _ = problem()
    assert ridge_loo(x, y, 0.0).leverages.sum() == pytest.approx(8)
    assert ridge_loo(x, y, 0.0, intercept=True).leverages.sum() == pytest.approx(9)


def test_blocks_change_nothing(monkeypatch):
    x, y, v, z = problem(c=2)
    whole = ridge_loo(x, y, 0.3, intercept=True, valid_features=v, valid_targets=z)
    monkeypatch.setattr(importlib.import_module("modicum.valuation.ridge_loo"), "BLOCK", 1)
    parts = ridge_loo(x, y, 0.3, intercept=True, valid_features=v, valid_targets=z)
    for name in ("coefficients", "leverages", "residuals", "values"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-13)


def test_keeps_digits_that_normal_equations_lose():
    x, y, _, _ = problem()
    x[:, 0] = x[:, 1] + 1e-6 * x[:, 0]
    found = ridge_loo(x, y, 0.0)
    theta, *_ = np.linalg.lstsq(x[1:], y[1:], rcond=None)
    np.testing.assert_allclose(found.residuals[0], y[0] - x[0] @ theta, atol=1e-9)


def test_a_sample_of_no_weight_is_worth_nothing():
    x, y, v, z = problem()
    weights = np.ones(60)
    weights[7] = 0
    found = ridge_loo(x, y, 1.0, weights=weights, valid_features=v, valid_targets=z)
    assert found.values[7] == found.leverages[7] == 0


@settings(max_examples=10, deadline=None)
@given(n=st.integers(3, 20), d=st.integers(1, 6), seed=st.integers(0, 99), scale=st.floats(0.1, 10))
def test_what_changes_the_targets_by_a_factor_changes_values_by_its_square(n, d, seed, scale):
    x, y, v, z = problem(n, d, seed=seed)
    a = ridge_loo(x, y, 1.0, valid_features=v, valid_targets=z).values
    b = ridge_loo(x, scale * y, 1.0, valid_features=v, valid_targets=scale * z).values
    np.testing.assert_allclose(b, scale**2 * a, rtol=1e-7, atol=1e-9 * scale**2 * np.abs(a).max())


def test_groups_equal_refits():
    x, y, v, z = problem(c=2)
    groups = np.arange(60) % 4
    for intercept in (False, True):
        found = ridge_group_loo(x, y, 0.5, groups, v, z, intercept=intercept)
        full = loss(refit(x, y, 0.5, intercept=intercept), v, z, intercept)
        for g in range(4):
            theta = refit(x[groups != g], y[groups != g], 0.5, intercept=intercept)
            np.testing.assert_allclose(found[g], loss(theta, v, z, intercept) - full, atol=1e-12)
    alone = ridge_group_loo(x, y, 0.5, np.arange(60), v, z)
    one = ridge_loo(x, y, 0.5, valid_features=v, valid_targets=z).values
    np.testing.assert_allclose(alone, one, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_kind_and_dtype_and_no_writes(dtype):
    x, y, v, z = (torch.from_numpy(a).to(dtype) for a in problem())
    before = x.clone()
    found = ridge_loo(x, y, 1.0, valid_features=v, valid_targets=z)
    for part in (found.coefficients, found.leverages, found.residuals, found.values, found.without(0)):
        assert isinstance(part, torch.Tensor)
        assert part.dtype == dtype
    assert torch.equal(x, before)


GOOD = (np.eye(3)[[0, 1, 2, 0, 1, 2]] + 0.1, np.arange(6.0))


@pytest.mark.parametrize(
    "arguments, options, text",
    [
        ((np.full((3, 2), np.nan), np.zeros(3), 1.0), {}, r"features\[0, 0\] is nan"),
        ((GOOD[0], np.arange(5.0), 1.0), {}, "targets has 5 rows but features has 6"),
        ((GOOD[0][:1], GOOD[1][:1], 1.0), {}, "features has 1 row; expected at least 2"),
        ((*GOOD, -1.0), {}, "l2=-1.0; expected a finite number >= 0"),
        ((*GOOD, np.inf), {}, "l2=inf"),
        ((np.ones((6, 2)), GOOD[1], 0.0), {}, "the 6 rows do not determine 2 coefficients; use l2 > 0"),
        ((np.eye(3), np.ones(3), 0.0), {}, r"features\[0\] has leverage 1: it alone determines a coefficient"),
        ((*GOOD, 1.0), {"weights": np.ones(5)}, r"weights has shape \(5,\); expected \(6,\)"),
        ((*GOOD, 1.0), {"weights": np.array([1, 1, -1, 1, 1, 1.0])}, r"weights\[2\] is -1.0; expected numbers >= 0"),
        ((*GOOD, 1.0), {"valid_features": GOOD[0]}, "valid_features and valid_targets belong together"),
        (
            (*GOOD, 1.0),
            {"valid_features": np.ones((2, 4)), "valid_targets": np.ones(2)},
            "valid_features and valid_targets have 4 and 1 columns; expected those of features and targets, 3 and 1",
        ),
    ],
)
def test_errors_name_the_argument(arguments, options, text):
    with pytest.raises(DataError, match=text):
        ridge_loo(*arguments, **options)


def test_errors_of_groups_and_positions():
    with pytest.raises(DataError, match=r"groups has 2 of 3 groups; expected 0, 1, \.\.\. and at least two"):
        ridge_group_loo(*GOOD, 1.0, np.array([0, 0, 2, 2, 0, 2]), *GOOD)
    with pytest.raises(DataError, match=r"i=6; expected the position of a sample, 0\.\.5"):
        ridge_loo(*GOOD, 1.0).without(6)
