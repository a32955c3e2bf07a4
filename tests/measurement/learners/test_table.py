import dataclasses

import pytest

from modicum.errors import ModicumError
from modicum.measurement.learners import LEARNERS, Estimator, Knn, Ridge, describe_learner, make_learner


@pytest.mark.parametrize("key", LEARNERS)
def test_a_key_is_a_learner_with_its_defaults(key):
    assert make_learner(key) == LEARNERS[key]()
    assert type(make_learner(key)).__dataclass_params__.frozen
    assert describe_learner(make_learner(key)) == describe_learner(LEARNERS[key]()) is not None
    for field in dataclasses.fields(LEARNERS[key]):
        assert field.default is not dataclasses.MISSING


def test_options_objects_and_estimators():
    from sklearn.naive_bayes import GaussianNB

    assert make_learner("knn(k=3)") == Knn(k=3)
    assert make_learner(Ridge(2.0)) == Ridge(2.0)
    assert isinstance(make_learner(GaussianNB()), Estimator)


@pytest.mark.parametrize(
    "learner, text",
    [
        ("svm", "learner='svm' is unknown; expected one of ridge, knn, lda, naive-bayes, logistic, network"),
        ("knn(neighbors=3)", "learner 'knn' has no option 'neighbors'; its options are k"),
        (3, "learner=3; expected one of ridge, .*, a learner, or an object with fit and predict"),
        (Ridge, "learner=<class .*Ridge'>; expected one of"),
    ],
)
def test_what_is_refused(learner, text):
    with pytest.raises(ModicumError, match=text):
        make_learner(learner)
