"""Runs in an environment with pyDVL: reads a problem, writes its kNN-Shapley values, prints seconds and versions."""

import json
import sys
import time
import warnings

warnings.simplefilter("ignore")

import joblib  # noqa: E402
import numpy as np  # noqa: E402
import pydvl  # noqa: E402
import sklearn  # noqa: E402
from pydvl.valuation.dataset import Dataset  # noqa: E402
from pydvl.valuation.methods.knn_shapley import KNNShapleyValuation  # noqa: E402
from sklearn.neighbors import KNeighborsClassifier  # noqa: E402

problem, answer, k, jobs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with np.load(problem) as arrays:
    train = Dataset(arrays["train_features"], arrays["train_targets"])
    valid = Dataset(arrays["valid_features"], arrays["valid_targets"])
method = KNNShapleyValuation(KNeighborsClassifier(n_neighbors=k), valid, progress=False)
with joblib.parallel_config(n_jobs=jobs):
    joblib.Parallel()(joblib.delayed(abs)(i) for i in range(jobs))  # the workers start before the clock does
    started = time.perf_counter()
    method.fit(train)
    seconds = time.perf_counter() - started
result = method.result
values = np.empty(len(train.data().y))
values[result.indices] = result.values
np.save(answer, values)
versions = {"pydvl": pydvl.__version__, "numpy": np.__version__, "scikit-learn": sklearn.__version__}
print(json.dumps({"seconds": seconds, **versions}))
