"""Random projection of per-sample gradients against TRAK's BasicProjector, its projector for machines without CUDA.

    python bench/valuation/projection.py --peer-python PYTHON

The peer lives in an environment of its own (`pip install traker`). The gradients are real: of a perceptron on digits.
The two draw different random numbers, so that what is compared first is what a projection is for: the inner products of
the projected gradients, whose relative error has a root mean square of at most sqrt(2 / k) (`modicum.measurement.
projection`). Both must keep within a tenth of that bound; the peer's are divided by k, as it does not scale its matrix.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import compare, seconds_of, write

import modicum
from modicum.measurement.per_sample import per_sample_gradients
from modicum.measurement.projection import Kind, project
from modicum.training.fit import fit
from modicum.training.recipe import Recipe


def gradients_of(hidden: int, samples: int) -> Tensor:
    """(samples, p) gradients of the loss of a perceptron that was trained for an epoch."""
    train = modicum.load("digits").train
    model = fit(train, Recipe(model=f"mlp(hidden={hidden})", epochs=1, batch_size=32, lr=0.05)).model
    return per_sample_gradients(model, train.prepare(train.inputs[:samples]), train.labels[:samples])


def gram_error(projected: Tensor, gradients: Tensor) -> float:
    """Root mean square of the errors of the inner products, relative to the product of the lengths."""
    exact, found = (t.double() @ t.double().T for t in (gradients, projected))
    lengths = exact.diagonal().sqrt()
    return float(((found - exact) / (lengths[:, None] * lengths)).square().mean().sqrt())


def main() -> int:
    """Compare the errors, then the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    peer_python = Path(__file__).resolve().parents[2] / ".venv-peers" / "bin" / "python"
    parser.add_argument("--peer-python", default=str(peer_python), help="python of an environment with traker")
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 512], help="width of the network, one row each")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[512, 2048], help="one row each")
    parser.add_argument("--repeats", type=int, default=3, help="pairs")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    versions: dict[str, Any] = {}
    for hidden in options.hidden:
        gradients = gradients_of(hidden, options.samples)
        for k in options.dimensions:
            with tempfile.TemporaryDirectory() as folder:
                given, answer = Path(folder, "gradients.npy"), Path(folder, "answer.npy")
                np.save(given, gradients.numpy())

                def peer(k: int = k, given: Path = given, answer: Path = answer) -> float:
                    script = Path(__file__).resolve().parents[1] / "peers" / "trak_projector.py"
                    command = [options.peer_python, str(script), str(given), str(answer), str(k), str(options.threads)]
                    out = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                    versions.update(out)
                    return float(versions.pop("seconds"))

                for kind in get_args(Kind):

                    def ours(g: Tensor = gradients, k: int = k, kind: Kind = kind) -> float:
                        return seconds_of(lambda: project(g, k, kind))

                    bound = math.sqrt(2 / k)
                    error = float(np.mean([gram_error(project(gradients, k, kind, s), gradients) for s in range(5)]))
                    times = compare(ours, peer, options.repeats)
                    theirs = gram_error(torch.from_numpy(np.load(answer)) / math.sqrt(k), gradients)
                    if max(error, theirs) > 1.1 * bound:
                        print(f"{kind}: errors {error:.3g}, peer {theirs:.3g}, bound {bound:.3g}; no time is reported")
                        return 1
                    size = f"{len(gradients)} x {gradients.shape[1]} to {k}"
                    about = {"error": round(error, 5), "peer_error": round(theirs, 5), "bound": round(bound, 5)}
                    rows.append({"size": size, "kind": kind, **times, **about})
    write(
        "valuation_projection",
        rows,
        what="projection of per-sample gradients; error: root mean square of the inner products",
        peer={"algorithm": "trak.projectors.BasicProjector, Rademacher", **versions},
        threads=options.threads,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
