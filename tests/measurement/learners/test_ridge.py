import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Peer
from sklearn.linear_model import RidgeClassifier

from modicum.errors import DataError
from modicum.measurement.learners import Problem, Ridge

DRAW = np.random.default_rng(0)
X, Q = DRAW.normal(size=(40, 6)), DRAW.normal(size=(15, 6))


def with_bias(rows):
    return np.column_stack([rows, np.ones(len(rows))])


@pytest.mark.parametrize("d", [6, 3])
@pytest.mark.parametrize("n", [40, 5], ids=["normal equations", "dual"])
def test_regression_equals_scikit_learn(n, d):
    y = DRAW.normal(size=n)
    p = Problem(*(torch.from_numpy(a) for a in (X[:n, :d], y, Q[:, :d], np.zeros(15))), 0)
    masks = torch.rand(9, n, generator=torch.Generator().manual_seed(0)) < 0.7
    masks[0] = True
    for mask, found in zip(masks, Ridge(l2=0.3).outputs(p, masks)):
        at = mask.numpy()
        peer = Peer(alpha=0.3, fit_intercept=False).fit(with_bias(X[:n, :d][at]), y[at])
        np.testing.assert_allclose(found[:, 0].numpy(), peer.predict(with_bias(Q[:, :d])), atol=1e-10)


@pytest.mark.parametrize("there", [[0, 1, 2, 3], [0, 2, 3], [1, 3]])
def test_answers_equal_scikit_learn_also_where_classes_are_missing(there):
    y = DRAW.integers(0, 4, 40)
    p = Problem(*(torch.from_numpy(a) for a in (X, y, Q, np.zeros(15, np.int64))), 4)
    at = np.isin(y, there)
    found = Ridge().outputs(p, torch.from_numpy(at)[None])[0].numpy()
    peer = RidgeClassifier(alpha=1.0, fit_intercept=False).fit(with_bias(X[at]), y[at])
    assert np.array_equal(found.argmax(1), peer.predict(with_bias(Q)))
    decision = peer.decision_function(with_bias(Q))
    np.testing.assert_allclose(found[:, there[-1]], decision if len(there) == 2 else decision[:, -1], atol=1e-10)


@pytest.mark.parametrize("l2", [0.0, -1.0, float("nan"), float("inf")])
def test_a_penalty_is_positive(l2):
    with pytest.raises(DataError, match=r"l2=.*; expected a number > 0, so that any subset has one solution"):
        Ridge(l2=l2)
