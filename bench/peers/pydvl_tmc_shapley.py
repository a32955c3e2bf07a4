"""Runs in an environment with pyDVL: reads a problem, writes utilities and Shapley values, prints seconds and versions."""

import json
import sys
import time
import warnings

warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import pydvl  # noqa: E402
import sklearn  # noqa: E402
from pydvl.valuation.dataset import Dataset  # noqa: E402
from pydvl.valuation.methods.shapley import ShapleyValuation  # noqa: E402
from pydvl.valuation.samplers.permutation import PermutationSampler  # noqa: E402
from pydvl.valuation.scorers import SupervisedScorer  # noqa: E402
from pydvl.valuation.stopping import MaxUpdates  # noqa: E402
from pydvl.valuation.types import Sample  # noqa: E402
from pydvl.valuation.utility import ModelUtility  # noqa: E402
from sklearn.base import BaseEstimator, ClassifierMixin  # noqa: E402
from sklearn.linear_model import LogisticRegression, Ridge  # noqa: E402


class CodedRidge(ClassifierMixin, BaseEstimator):
    """Ridge regression on classes coded as 1 and -1, with the bias penalized; only classes that were seen are answers."""

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        if len(self.classes_) > 1:
            coded = 2.0 * (y[:, None] == self.classes_) - 1
            self.model_ = Ridge(alpha=1.0, fit_intercept=False).fit(self.with_bias(x), coded)
        return self

    def predict(self, x):
        if len(self.classes_) == 1:
            return np.full(len(x), self.classes_[0])
        return self.classes_[self.model_.predict(self.with_bias(x)).argmax(1)]

    @staticmethod
    def with_bias(x):
        return np.column_stack([x, np.ones(len(x))])


problem, answer, learner, permutations, seed = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
with np.load(problem) as arrays:
    train = Dataset(arrays["train_x"], arrays["train_y"])
    valid = Dataset(arrays["valid_x"], arrays["valid_y"])
    masks, empty = arrays["masks"], float(arrays["empty"])
model = CodedRidge() if learner == "ridge" else LogisticRegression(max_iter=100)
scorer = SupervisedScorer("accuracy", valid, default=empty, range=(0, 1))
utility = ModelUtility(model, scorer, show_warnings=False)
method = ShapleyValuation(utility, PermutationSampler(seed=seed), MaxUpdates(permutations), progress=False)
started = time.perf_counter()
method.fit(train)
seconds = time.perf_counter() - started
result = method.result
values = np.empty(len(train.data().y))
values[result.indices] = result.values
asked = utility.with_dataset(train)
worth = np.array([asked(Sample(None, np.flatnonzero(mask))) for mask in masks])
np.savez(answer, values=values, worth=worth, counts=result.counts)
versions = {"pydvl": pydvl.__version__, "numpy": np.__version__, "scikit-learn": sklearn.__version__}
print(json.dumps({"seconds": seconds, **versions}))
