"""What is trained on a subset to say what the subset is worth: learners that are cheap to train very often."""

from modicum.measurement.learners.estimator import Estimator
from modicum.measurement.learners.knn import Knn
from modicum.measurement.learners.lda import Lda
from modicum.measurement.learners.logistic import Logistic
from modicum.measurement.learners.naive_bayes import NaiveBayes
from modicum.measurement.learners.network import Network
from modicum.measurement.learners.problem import Growing, Learner, Outputs, Problem
from modicum.measurement.learners.ridge import Ridge
from modicum.measurement.learners.table import LEARNERS, describe_learner, make_learner

__all__ = [
    "LEARNERS",
    "Estimator",
    "Growing",
    "Knn",
    "Lda",
    "Learner",
    "Logistic",
    "NaiveBayes",
    "Network",
    "Outputs",
    "Problem",
    "Ridge",
    "describe_learner",
    "make_learner",
]
