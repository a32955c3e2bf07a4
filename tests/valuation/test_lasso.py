import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet, Lasso

from modicum.valuation.lasso import Columns, Folds, lasso, least_squares


def problem(m, n, t, alpha=0.5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = (torch.rand(m, n, generator=draw) < alpha).double()
    truth = torch.randn(n, t, generator=draw, dtype=torch.float64) * (torch.rand(n, t, generator=draw) < 0.2)
    return x, x @ truth + torch.randn(m, t, generator=draw, dtype=torch.float64) + 3


def solved(x, y, beta, l2=0.0, tolerance=1e-13):
    columns = Columns(x)
    products, variances = columns.with_(y)
    return lasso(columns, products, variances, beta, torch.zeros_like(products), l2, tolerance)


@pytest.mark.parametrize("m, n", [(200, 30), (40, 60), (20, 90)])  # the last without the moments of the columns
@pytest.mark.parametrize("share", [0.3, 0.02])
def test_equals_scikit_learn(m, n, share):
    x, y = problem(m, n, 6)
    highest = 2 * (Columns(x).with_(y)[0]).abs().amax(0)
    found = solved(x, y, share * highest)
    for j in range(6):
        peer = Lasso(alpha=share * float(highest[j]) / 2, tol=1e-13, max_iter=100_000).fit(x, y[:, j])
        np.testing.assert_allclose(found[:, j], peer.coef_, atol=1e-8)


def test_with_a_penalty_on_squares_it_equals_the_elastic_net():
    x, y = problem(60, 30, 3)
    beta, l2 = 0.05, 0.02
    found = solved(x, y, torch.full((3,), beta, dtype=torch.float64), l2)
    alpha = beta / 2 + l2
    for j in range(3):
        peer = ElasticNet(alpha=alpha, l1_ratio=beta / 2 / alpha, tol=1e-13, max_iter=100_000).fit(x, y[:, j])
        np.testing.assert_allclose(found[:, j], peer.coef_, atol=1e-8)


def test_from_the_highest_penalty_on_all_is_zero():
    x, y = problem(50, 20, 4)
    highest = 2 * (Columns(x).with_(y)[0]).abs().amax(0)
    assert not solved(x, y, highest).any()
    assert (solved(x, y, 0.99 * highest) != 0).sum(0).tolist() == [1, 1, 1, 1]


def test_a_constant_target_has_no_weights():
    x, y = problem(50, 20, 2)
    y[:, 1] = 7
    found = solved(x, y, torch.full((2,), 0.01, dtype=torch.float64))
    assert found[:, 0].any()
    assert not found[:, 1].any()


@pytest.mark.parametrize("m, n, l2", [(200, 30, 0.0), (200, 30, 0.1), (20, 60, 0.1)])
def test_least_squares_solves_the_normal_equations(m, n, l2):
    x, y = problem(m, n, 3)
    columns = Columns(x)
    found = least_squares(columns, columns.with_(y)[0], l2)
    centered = x - x.mean(0)
    left = centered.T @ centered / m + l2 * torch.eye(n, dtype=torch.float64)
    torch.testing.assert_close(found, torch.linalg.solve(left, centered.T @ (y - y.mean(0)) / m), rtol=0, atol=1e-10)


def test_of_many_least_squares_it_is_the_shortest():
    x, y = problem(20, 60, 3)
    columns = Columns(x)
    found = least_squares(columns, columns.with_(y)[0], 0.0)
    expected = torch.linalg.lstsq(x - x.mean(0), y - y.mean(0), driver="gelsd").solution
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_the_chosen_penalty_predicts_nearly_as_well_as_the_best_of_the_series():
    x, y = problem(150, 40, 3)
    highest = 2 * (Columns(x).with_(y)[0]).abs().amax(0)
    chosen = Folds(x, 5).penalties(y, highest, 0.0)
    series = 10 ** (-2 * np.arange(0, 17, 2) / 16)
    for j in range(3):
        errors = []
        for share in [*series, float(chosen[j] / highest[j])]:
            error = 0.0
            for out in np.arange(150).reshape(5, -1):
                rest = np.setdiff1d(np.arange(150), out)
                peer = Lasso(alpha=share * float(highest[j]) / 2, tol=1e-8).fit(x[rest], y[rest, j])
                error += float(((peer.predict(x[out]) - y[out, j].numpy()) ** 2).sum())
            errors.append(error)
        assert errors[-1] <= 1.01 * min(errors)
        assert errors[-1] < 0.7 * errors[0]
