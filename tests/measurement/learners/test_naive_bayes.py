import numpy as np
import pytest
import torch
from sklearn.naive_bayes import GaussianNB

from modicum.errors import DataError
from modicum.measurement.learners import NaiveBayes, Problem

DRAW = np.random.default_rng(0)
Y = DRAW.integers(0, 4, 60)
X = DRAW.normal(size=(60, 5)) * [1, 2, 3, 0.1, 0] + 2 * np.eye(5)[Y] + 7
Q = DRAW.normal(size=(15, 5)) + 7


@pytest.mark.parametrize("there", [[0, 1, 2, 3], [0, 1, 3], [1, 2]])
@pytest.mark.parametrize("floor", [1e-3, 0.1, 2.0])
def test_equals_scikit_learn_with_the_same_floor(there, floor):
    p = Problem(*(torch.from_numpy(a) for a in (X, Y, Q, np.zeros(15, np.int64))), 4)
    at = np.isin(Y, there) & (DRAW.random(60) < 0.7)
    (found,) = NaiveBayes(floor=floor).outputs(p, torch.from_numpy(at)[None]).numpy()
    # scikit-learn's floor is a share of the largest variance within the subset, ours of that among all samples
    peer = GaussianNB(var_smoothing=floor * X.var(0).max() / X[at].var(0).max()).fit(X[at], Y[at])
    np.testing.assert_allclose(found[:, there], peer.predict_joint_log_proba(Q), rtol=1e-9, atol=1e-8)
    assert np.isneginf(found[:, [c for c in range(4) if c not in there]]).all()


def test_features_that_do_not_vary_at_all():
    p = Problem(*(torch.from_numpy(a) for a in (np.ones((60, 2)), Y, np.ones((15, 2)), np.zeros(15, np.int64))), 4)
    (found,) = NaiveBayes().outputs(p, torch.ones(1, 60, dtype=torch.bool)).softmax(-1)
    torch.testing.assert_close(found, (torch.from_numpy(np.bincount(Y)) / 60).double().expand(15, 4))


def test_a_floor_is_positive():
    with pytest.raises(
        DataError, match=r"floor=-1; expected a number > 0, so that a class of one sample has a variance"
    ):
        NaiveBayes(floor=-1)
