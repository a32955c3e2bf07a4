"""kNN-Shapley against pyDVL, which lives in an environment of its own because it needs numpy < 2.

    make bench, or: python bench/knn_shapley.py --peer-python PYTHON --data mnist.npz

Both get the same float32 arrays; the answers are compared before any time is reported.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from harness import compare, seconds_of, write

from modicum.valuation import knn_shapley

K = 5


def problem(path: Path | None, n: int, m: int) -> dict[str, Any]:
    """The first n training and m test images of an .npz such as MNIST, or as many points of ten Gaussian classes."""
    if path is not None:
        with np.load(path) as arrays:
            flat = {s: arrays[f"{s}_images"].reshape(len(arrays[f"{s}_images"]), -1) for s in ("train", "test")}
            labels = {s: arrays[f"{s}_labels"].astype(np.int64) for s in ("train", "test")}
        return {
            "train_features": flat["train"][:n].astype(np.float32) / 255,
            "train_targets": labels["train"][:n],
            "valid_features": flat["test"][:m].astype(np.float32) / 255,
            "valid_targets": labels["test"][:m],
        }
    draw = np.random.default_rng(0)
    centers, targets = draw.normal(size=(10, 784)), draw.integers(0, 10, n + m)
    features = (centers[targets] + 3 * draw.normal(size=(n + m, 784))).astype(np.float32)
    names = ("train_features", "valid_features", "train_targets", "valid_targets")
    return dict(zip(names, (features[:n], features[n:], targets[:n], targets[n:])))


def main() -> int:
    """Compare the answers, then the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    here = Path(__file__).resolve().parents[1]
    peer, data = here / ".venv-peers" / "bin" / "python", here.parent / "shared" / "data" / "mnist.npz"
    parser.add_argument("--peer-python", default=str(peer), help="python of an environment with pyDVL")
    parser.add_argument(
        "--data",
        type=Path,
        default=data if data.is_file() else None,
        help=".npz with train_images, train_labels, test_images, test_labels",
    )
    parser.add_argument("--train", type=int, default=60_000, help="training points")
    parser.add_argument("--valid", type=int, nargs="+", default=[200, 1000], help="validation points, one row each")
    parser.add_argument("--repeats", type=int, nargs="+", default=[3, 1], help="pairs for each row")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2], help="processes of the peer, one row each")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    versions: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for m, repeats in zip(options.valid, options.repeats):
            arrays = problem(options.data, options.train, m)
            given, answer = Path(folder, "problem.npz"), Path(folder, "answer.npy")
            np.savez(given, **arrays)
            for jobs in options.jobs:

                def peer(jobs: int = jobs, given: Path = given, answer: Path = answer) -> float:
                    script = Path(__file__).parent / "peers" / "pydvl_knn_shapley.py"
                    command = [options.peer_python, str(script), str(given), str(answer), str(K), str(jobs)]
                    out = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                    versions.update(out)
                    return float(versions.pop("seconds"))

                def ours(arrays: dict[str, Any] = arrays) -> float:
                    return seconds_of(lambda: knn_shapley(**arrays, k=K))

                times = compare(ours, peer, repeats)
                difference = float(np.abs(knn_shapley(**arrays, k=K) - np.load(answer)).max())
                size = f"{options.train} x {m} x {arrays['train_features'].shape[1]}"
                if difference > 1e-8:  # single precision of the result
                    print(f"the answers differ by {difference:.2g} at {size}; no time is reported", file=sys.stderr)
                    return 1
                rows.append({"size": size, "peer_processes": jobs, **times, "largest_difference": difference})
    data = "MNIST pixels" if options.data else "ten Gaussian classes"
    write("knn_shapley", rows, what=f"kNN-Shapley, k = {K}, {data}; training x validation x columns", peer=versions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
