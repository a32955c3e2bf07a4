"""The learners by key."""

from __future__ import annotations

import dataclasses
from typing import Any

from modicum.errors import ModicumError
from modicum.measurement.learners.estimator import Estimator
from modicum.measurement.learners.knn import Knn
from modicum.measurement.learners.lda import Lda
from modicum.measurement.learners.logistic import Logistic
from modicum.measurement.learners.naive_bayes import NaiveBayes
from modicum.measurement.learners.network import Network
from modicum.measurement.learners.problem import Learner
from modicum.measurement.learners.ridge import Ridge
from modicum.spec import canonical, parse_call

__all__ = ["LEARNERS", "describe_learner", "make_learner"]

LEARNERS: dict[str, type] = {
    "ridge": Ridge,
    "knn": Knn,
    "lda": Lda,
    "naive-bayes": NaiveBayes,
    "logistic": Logistic,
    "network": Network,
}


def make_learner(learner: object) -> Learner:
    """A learner from its key with options, such as `ridge(l2=0.1)`, or the learner itself.

    Anything else with `fit` and `predict` is wrapped in `Estimator`.

    Raises:
        ModicumError: There is none of that key, or an option is unknown.

    Example:
        >>> make_learner("ridge(l2=0.1)")
        Ridge(l2=0.1)
    """
    if not isinstance(learner, str):
        if isinstance(learner, Learner) and not isinstance(learner, type):
            return learner
        if hasattr(learner, "fit") and hasattr(learner, "predict") and not isinstance(learner, type):
            return Estimator(learner)
        raise ModicumError(
            f"learner={learner!r}; expected one of {', '.join(LEARNERS)}, a learner, or an object with fit and predict"
        )
    key, options = parse_call(learner)
    if key not in LEARNERS:
        raise ModicumError(f"learner={learner!r} is unknown; expected one of {', '.join(LEARNERS)}")
    known = [f.name for f in dataclasses.fields(LEARNERS[key])]
    wrong = sorted(set(options) - set(known))
    if wrong:
        raise ModicumError(f"learner {key!r} has no option {wrong[0]!r}; its options are {', '.join(known) or 'none'}")
    made: Learner = LEARNERS[key](**options)
    return made


def describe_learner(learner: Learner) -> Any:
    """What answers of the learner depend on, in JSON types; None when it has no description that lasts."""
    if isinstance(learner, Estimator):
        return learner.describe()
    try:
        return canonical(learner)
    except ModicumError:
        return None
