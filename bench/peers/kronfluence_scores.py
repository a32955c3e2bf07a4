"""Runs in an environment with kronfluence: reads a problem, writes its EK-FAC scores, prints seconds and versions."""

import json
import logging
import sys
import tempfile
import time
import warnings

warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from kronfluence import version  # noqa: E402
from kronfluence.analyzer import Analyzer, prepare_model  # noqa: E402
from kronfluence.arguments import FactorArguments, ScoreArguments  # noqa: E402
from kronfluence.task import Task  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import TensorDataset  # noqa: E402


class Classification(Task):
    """Cross-entropy of the data's own labels."""

    def compute_train_loss(self, batch, model, sample=False):
        assert not sample
        return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")

    def compute_measurement(self, batch, model):
        return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")


problem, answer, batch, quiet = sys.argv[1], sys.argv[2], int(sys.argv[3]), logging.getLogger()
quiet.setLevel(logging.ERROR)
with np.load(problem) as arrays:
    x, y, v, w = (torch.from_numpy(arrays[name]) for name in ("x", "y", "v", "w"))
    weights = [torch.from_numpy(arrays[f"p{i}"]) for i in range(sum(name.startswith("p") for name in arrays))]
layers = []
for weight, bias in zip(weights[::2], weights[1::2]):
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    layers += [layer, nn.ReLU()]
task = Classification()
model = prepare_model(nn.Sequential(*layers[:-1]).eval(), task)
train, query = TensorDataset(x, y), TensorDataset(v, w)
with tempfile.TemporaryDirectory() as folder:
    analyzer = Analyzer("bench", model, task, cpu=True, output_dir=folder, disable_tqdm=True)
    started = time.perf_counter()
    analyzer.fit_all_factors(
        "factors",
        train,
        per_device_batch_size=batch,
        factor_args=FactorArguments(strategy="ekfac", use_empirical_fisher=True),
    )
    middle = time.perf_counter()
    analyzer.compute_pairwise_scores(
        "scores",
        "factors",
        query,
        train,
        per_device_query_batch_size=len(v),
        per_device_train_batch_size=batch,
        score_args=ScoreArguments(damping_factor=None),
    )
    ended = time.perf_counter()
    scores = analyzer.load_pairwise_scores("scores")["all_modules"]
np.save(answer, scores.T.numpy())
versions = {"kronfluence": version.__version__, "torch": torch.__version__}
print(json.dumps({"factors": middle - started, "scores": ended - middle, **versions}))
