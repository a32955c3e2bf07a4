import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from modicum.errors import DataError, ModicumError
from modicum.measurement import softmax
from modicum.measurement.softmax import SoftmaxHead, fit_softmax


def problem(n=50, d=4, c=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=draw, dtype=torch.float64), torch.randint(c, (n,), generator=draw)


def head_at(seed=0):
    x, y = problem()
    draw = torch.Generator().manual_seed(seed)
    ones, w = torch.ones(50, 1, dtype=torch.float64), torch.rand(50, generator=draw, dtype=torch.float64) / 50
    return SoftmaxHead(torch.cat([x, ones], 1), y, torch.randn(3, 5, generator=draw, dtype=torch.float64), w, 0.1)


def loss_of(head, flat):
    w = flat.view_as(head.weights)
    each = F.cross_entropy(head.features @ w.T, head.targets, reduction="none")
    return head.importance @ each + head.l2 / 2 * w.square().sum()


@pytest.mark.parametrize("block", [1 << 23, 40])
def test_derivatives_equal_autograd(block, monkeypatch):
    monkeypatch.setattr(softmax, "BLOCK", block)
    head = head_at()
    flat = head.weights.flatten()
    hessian = torch.autograd.functional.hessian(lambda w: loss_of(head, w), flat)
    gradient = torch.autograd.functional.jacobian(lambda w: loss_of(head, w), flat)
    vectors = torch.randn(15, 4, dtype=torch.float64)
    assert head.loss() == pytest.approx(float(loss_of(head, flat)), rel=1e-12)
    torch.testing.assert_close(head.gradient(), gradient, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(head.hessian(), hessian, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(head.hessian_product(vectors), hessian @ vectors, rtol=1e-10, atol=1e-12)
    each = torch.autograd.functional.jacobian(
        lambda w: F.cross_entropy(head.features @ w.view(3, 5).T, head.targets, reduction="none"), flat
    )
    torch.testing.assert_close(head.products(vectors), each @ vectors, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(head.mean_gradient(head.features, head.targets), each.mean(0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("block", [1 << 23, 40])
def test_left_out_signals_are_newton_steps_on_the_others(block, monkeypatch):
    monkeypatch.setattr(softmax, "BLOCK", block)
    head = head_at()
    inverse = torch.linalg.inv(head.hessian())
    signals = head.left_out_signals(inverse)
    for i in range(5):
        p, x = head.probabilities[i], head.features[i]
        own = head.importance[i] * torch.kron(torch.diag(p) - torch.outer(p, p), torch.outer(x, x))
        gradient = head.importance[i] * torch.outer(head.signals(head.features, head.targets)[i], x).flatten()
        wanted = torch.linalg.solve(head.hessian() - own, gradient)
        found = inverse @ (head.importance[i] * torch.outer(signals[i], x).flatten())
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_the_minimum_is_that_of_scikit_learn():
    x, y = problem()
    ones = torch.ones(50, 1, dtype=torch.float64)
    head, products = fit_softmax(x, y, 3)
    theirs = LogisticRegression(C=1 / (1e-2 * 50), fit_intercept=False, tol=1e-10, max_iter=5000)
    theirs.fit(torch.cat([x, ones], 1).numpy(), y.numpy())
    np.testing.assert_allclose(head.weights.numpy(), theirs.coef_, atol=1e-6)
    assert head.gradient().norm() <= 1e-9
    assert 0 < products < 300


def test_it_is_the_same_minimum_from_anywhere_and_in_float32():
    x, y = problem()
    head, _ = fit_softmax(x, y, 3)
    far, _ = fit_softmax(x, y, 3, start=10 * torch.randn(3, 5))
    torch.testing.assert_close(far.weights, head.weights, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(fit_softmax(x.float(), y, 3)[0].weights, head.weights, rtol=1e-5, atol=1e-6)


def test_separable_and_badly_scaled_features_converge():
    x = torch.cat([torch.linspace(-1, 1, 20)[:, None] * 100, torch.rand(20, 1) * 1e-3], 1)
    head, _ = fit_softmax(x, (x[:, 0] > 0).long(), 2, l2=1e-4)
    assert head.gradient().norm() <= 1e-9


def test_importance_zero_leaves_a_sample_out():
    x, y = problem()
    w = torch.full((50,), 1 / 50, dtype=torch.float64)
    w[7] = 0
    others = torch.arange(50) != 7
    without, _ = fit_softmax(x[others], y[others], 3, importance=w[others])
    torch.testing.assert_close(fit_softmax(x, y, 3, importance=w)[0].weights, without.weights, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    "change, error, text",
    [
        ({"targets": torch.zeros(3).long()}, DataError, "features have 50 rows and targets 3"),
        ({"classes": 2}, DataError, "targets reach from 0 to 2; expected 0..1"),
        ({"l2": 0.0}, ModicumError, "l2=0.0; expected a number > 0"),
    ],
)
def test_errors(change, error, text):
    x, y = problem()
    with pytest.raises(error, match=text):
        fit_softmax(**({"features": x, "targets": y, "classes": 3} | change))
