"""Runs in an environment with traker: reads gradients, writes their projections, prints seconds and versions."""

import importlib.metadata
import json
import sys
import time

import numpy as np
import torch
from trak.projectors import BasicProjector, ProjectionType

given, answer, k, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(threads)
gradients = torch.from_numpy(np.load(given))
projector = BasicProjector(gradients.shape[1], k, 0, ProjectionType.rademacher, "cpu")
projector.project(gradients[:1, :].clone(), model_id=0)  # everything is loaded before the clock starts
started = time.perf_counter()
projected = projector.project(gradients, model_id=0)
seconds = time.perf_counter() - started
np.save(answer, projected.numpy())
versions = {name: importlib.metadata.version(name) for name in ("traker", "torch")}
print(json.dumps({"seconds": seconds, **versions}))
