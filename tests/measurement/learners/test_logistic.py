import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from modicum.context import Context
from modicum.errors import DataError, TrainingError
from modicum.measurement.learners import Logistic, Problem

DRAW = np.random.default_rng(0)
Y = DRAW.integers(0, 4, 80)
X = DRAW.normal(size=(80, 6)) + np.eye(6)[Y] + 5
Q = DRAW.normal(size=(15, 6)) + 5


def problem(ctx=None):
    return Problem(*(torch.from_numpy(a) for a in (X, Y, Q, np.zeros(15, np.int64))), 4, ctx=ctx)


def subsets(there=(0, 1, 2, 3), b=6):
    masks = torch.rand(b, 80, generator=torch.Generator().manual_seed(0)) < torch.linspace(0.15, 1, b)[:, None]
    return masks & torch.from_numpy(np.isin(Y, there))


@pytest.mark.parametrize("loss", ["mean", "sum"])
@pytest.mark.parametrize("there", [(0, 1, 2, 3), (0, 2, 3)])
def test_equals_scikit_learn(loss, there):
    masks = subsets(there)
    found = Logistic(l2=0.02, loss=loss, tolerance=1e-9).outputs(problem(), masks).softmax(-1).numpy()
    for row, at in zip(found, masks.numpy()):
        scale = at.sum() if loss == "mean" else 1
        peer = LogisticRegression(C=1 / (0.02 * scale), solver="newton-cg", tol=1e-9, max_iter=1000).fit(X[at], Y[at])
        np.testing.assert_allclose(row[:, peer.classes_], peer.predict_proba(Q), atol=2e-5)


def test_two_classes_have_twice_the_penalty_of_scikit_learn():
    masks = subsets((1, 3), 3)
    found = Logistic(l2=0.02, tolerance=1e-9).outputs(problem(), masks).softmax(-1).numpy()
    for row, at in zip(found, masks.numpy()):
        peer = LogisticRegression(C=2 / (0.02 * at.sum()), solver="newton-cg", tol=1e-9, max_iter=1000).fit(
            X[at], Y[at]
        )
        np.testing.assert_allclose(row[:, [1, 3]], peer.predict_proba(Q), atol=2e-5)


@pytest.mark.parametrize("tolerance", [1e-5, 1e-8])
def test_where_it_starts_changes_nothing_beyond_the_tolerance(tolerance):
    learner, warm, cold = Logistic(tolerance=tolerance), problem(), problem()
    expected = learner.outputs(warm, subsets())
    learner.outputs(cold, subsets()[:1])
    cold.memo[f"{learner!r} weights"] = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)).double()
    found = learner.outputs(cold, subsets())
    difference = (found.softmax(-1) - expected.softmax(-1)).abs().max()
    assert 0 < difference < 300 * tolerance  # a distance of weights is at most the gradient's over l2


def test_the_gradient_is_within_the_tolerance():
    p, masks = problem(), subsets()
    found = Logistic(l2=0.1, tolerance=1e-7).outputs(p, masks)
    x = np.column_stack([X - X.mean(0), np.ones(80)])
    queries = np.column_stack([Q - X.mean(0), np.ones(15)])
    for row, at in zip(found.numpy(), masks.numpy()):
        weights = np.linalg.lstsq(queries, row, rcond=None)[0]
        rest = torch.from_numpy(x[at] @ weights).softmax(-1).numpy() - np.eye(4)[Y[at]]
        gradient = x[at].T @ rest / at.sum()
        gradient[:6] += 0.1 * weights[:6]
        assert np.abs(gradient).max() < 1.1e-7


def test_operations_are_counted_as_they_happen():
    ctx = Context()
    Logistic().outputs(problem(ctx), subsets())
    total = ctx.ledger.total()
    assert total.flops % (4 * 80 * 7 * 4) == 0
    assert total.flops > 6 * 4 * 80 * 7 * 4


@pytest.mark.parametrize(
    "options, text",
    [
        ({"l2": 0.0}, "l2=0.0; expected a number > 0"),
        ({"tolerance": -1.0}, "tolerance=-1.0; expected a number > 0"),
        ({"loss": "median"}, "loss='median'; expected 'mean' or 'sum'"),
        ({"iterations": 0}, "iterations=0; expected an integer >= 1"),
    ],
)
def test_what_is_refused(options, text):
    with pytest.raises(DataError, match=text):
        Logistic(**options)


def test_what_does_not_converge_is_said():
    with pytest.raises(
        TrainingError, match=r"has not converged on 1 subsets after 2 iterations: the gradient is .*, expected"
    ):
        Logistic(iterations=2).outputs(problem(), subsets())
