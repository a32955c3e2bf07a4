import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from modicum.errors import DataError
from modicum.measurement.learners import Lda, Problem

DRAW = np.random.default_rng(0)
Y = DRAW.integers(0, 4, 60)
X = DRAW.normal(size=(60, 5)) + 3 * np.eye(5)[Y] + 20
Q = DRAW.normal(size=(15, 5)) + 20


class Ridged:
    """The covariance estimator that gives scikit-learn the same ridge."""

    def __init__(self, extra):
        self.extra = extra

    def fit(self, x):
        self.covariance_ = np.cov(x.T, bias=True) + self.extra * np.eye(x.shape[1])
        return self


@pytest.mark.parametrize("there", [[0, 1, 2, 3], [0, 1, 3], [1, 2]])
@pytest.mark.parametrize("ridge", [0.2, 10.0])
def test_equals_scikit_learn_with_the_same_ridge(there, ridge):
    p = Problem(*(torch.from_numpy(a) for a in (X, Y, Q, np.zeros(15, np.int64))), 4)
    at = np.isin(Y, there) & (DRAW.random(60) < 0.7)
    (found,) = Lda(ridge=ridge).outputs(p, torch.from_numpy(at)[None]).softmax(-1).numpy()
    peer = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Ridged(ridge / at.sum())).fit(X[at], Y[at])
    np.testing.assert_allclose(found[:, there], peer.predict_proba(Q), atol=1e-9)
    assert found[:, [c for c in range(4) if c not in there]].sum() == 0


def test_a_ridge_is_positive():
    with pytest.raises(DataError, match=r"ridge=0\.0; expected a number > 0, so that any subset has a covariance"):
        Lda(ridge=0.0)


def test_it_is_for_classes():
    p = Problem(*(torch.from_numpy(a) for a in (X, Y.astype(float), Q, np.zeros(15))), 0)
    for ask in (
        lambda: Lda().outputs(p, torch.ones(1, 60, dtype=torch.bool)),
        lambda: Lda().start(p, torch.arange(60)[None]),
    ):
        with pytest.raises(DataError, match="the learner lda is for classes, but the targets are for regression"):
            ask()
