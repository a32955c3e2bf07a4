import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modicum.context import Context
from modicum.errors import DataError
from modicum.measurement.learners import Estimator, Problem, describe_learner, make_learner
from modicum.measurement.utilities import Utility

DRAW = np.random.default_rng(0)
X, Y, Q = DRAW.normal(size=(40, 3)), DRAW.integers(0, 3, 40), DRAW.normal(size=(11, 3))
MASKS = torch.rand(5, 40, generator=torch.Generator().manual_seed(0)) < 0.6


def problem(y=Y, classes=3, ctx=None):
    wanted = DRAW.integers(0, 3, 11) if classes else np.zeros(11)
    return Problem(*(torch.from_numpy(a) for a in (X, y, Q, wanted)), classes, ctx=ctx)


class Picky:
    """Fails on subsets without the sample 0."""

    def fit(self, x, y):
        if not (x == X[0]).all(1).any():
            raise ValueError("I want the first sample")
        self.mean = y.mean()
        return self

    def predict(self, x):
        return np.full(len(x), 1)


def test_probabilities_stand_where_their_classes_are():
    p, mask = problem(), torch.from_numpy(Y != 1)
    (found,) = Estimator(LogisticRegression()).outputs(p, mask[None]).numpy()
    peer = LogisticRegression().fit(X[Y != 1], Y[Y != 1])
    assert np.array_equal(found[:, [0, 2]], peer.predict_proba(Q))
    assert (found[:, 1] == 0).all()
    assert Estimator(LogisticRegression()).gives == "probabilities"


def test_without_probabilities_the_answer_is_one():
    learner = Estimator(RidgeClassifier())
    (found,) = learner.outputs(problem(), MASKS[:1]).numpy()
    at = MASKS[0].numpy()
    assert np.array_equal(found, np.eye(3)[RidgeClassifier().fit(X[at], Y[at]).predict(Q)])
    assert learner.gives == "scores"


def test_regression():
    y = DRAW.normal(size=40)
    found = Estimator(Ridge(alpha=0.5)).outputs(problem(y, 0), MASKS)
    for row, at in zip(found.numpy(), MASKS.numpy()):
        np.testing.assert_array_equal(row[:, 0], Ridge(alpha=0.5).fit(X[at], y[at]).predict(Q))


def test_an_open_random_state_is_the_seed():
    learner = Estimator(make_pipeline(StandardScaler(), RandomForestClassifier(3)))
    a, b, c = (learner.outputs(problem(ctx=Context(seed=seed)), MASKS) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert learner.estimator.get_params()["randomforestclassifier__random_state"] is None


def test_failures_give_the_commonest_class_and_are_counted():
    masks = MASKS.clone()
    masks[:, 0] = torch.tensor([True, False, True, False, True])
    utility = Utility(problem(), Estimator(Picky()))
    values = utility.values(masks)
    for i in (1, 3):
        commonest = np.bincount(Y[masks[i].numpy()]).argmax()
        assert float(values[i]) == float((utility.problem.wanted == commonest).double().mean())
    assert "I want the first sample" in next(iter(utility.problem.failures.values()))
    assert len(utility.problem.failures) == 2
    assert utility.failures == 2
    assert utility.note == (
        "the learner failed on 2 subsets, which have a constant answer instead (ValueError: I want the first sample)"
    )


def test_failures_of_a_regression_give_the_mean():
    y = DRAW.normal(size=40)
    mask = torch.arange(40) > 20
    found = Estimator(Picky()).outputs(problem(y, 0), mask[None])
    assert torch.allclose(found, torch.tensor(y[21:].mean()))


def test_failing_on_all_samples_is_an_error():
    class Broken(Picky):
        def fit(self, x, y):
            raise ZeroDivisionError("no")

    with pytest.raises(DataError, match=r"estimator .*Broken.* fails on all 40 samples: ZeroDivisionError: no"):
        Utility(problem(), Estimator(Broken())).values(torch.ones(1, 40, dtype=torch.bool))


def test_what_is_no_estimator():
    with pytest.raises(DataError, match=r"estimator 3 has no method fit; expected one with fit and predict"):
        Estimator(3)


def test_descriptions_tell_estimators_apart_and_last():
    described = [describe_learner(make_learner(e)) for e in (LogisticRegression(), LogisticRegression(C=2.0), Picky())]
    assert described[0] == describe_learner(Estimator(LogisticRegression()))
    assert described[0] != described[1]
    assert described[2] is None
    assert Estimator(LogisticRegression()) == Estimator(LogisticRegression()) != Estimator(LogisticRegression(C=2.0))
    assert hash(Estimator(LogisticRegression())) == hash(Estimator(LogisticRegression()))
    nested = [describe_learner(Estimator(make_pipeline(StandardScaler(), LogisticRegression(C=c)))) for c in (1.0, 2.0)]
    assert None not in nested
    assert nested[0] != nested[1]
