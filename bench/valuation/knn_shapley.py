"""kNN-Shapley against pyDVL and against the algorithm of OpenDataVal.

    make bench, or: python bench/valuation/knn_shapley.py --peer-python PYTHON --data mnist.npz

pyDVL lives in an environment of its own because it needs numpy < 2; OpenDataVal cannot be installed beside a current torch,
so that its algorithm was written anew (`peers/opendataval_knn_shapley.py`). All get the same float32 arrays, in a process
of their own; the answers are compared before any time is reported. OpenDataVal makes distances in single precision, which
swaps neighbors: its algorithm is compared in double precision on a part of the data, and has to correlate on the whole.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import compare, seconds_of, write

from modicum.valuation import knn_shapley

BENCH = Path(__file__).resolve().parents[1]
K = 5
PART, BATCH = (5000, 100), 32


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


class Peer:
    """A script of `peers/` on a problem, in a process of its own."""

    def __init__(self, folder: str, python: str, script: str, *options: object) -> None:
        self.given, self.found = Path(folder, "problem.npz"), Path(folder, "answer.npy")
        self.command = [python, str(BENCH / "peers" / script), str(self.given), str(self.found), str(K)]
        self.command += [str(option) for option in options]
        self.versions: dict[str, Any] = {}

    def __call__(self, arrays: dict[str, Any]) -> float:
        """Run once and give its seconds."""
        np.savez(self.given, **arrays)
        out = json.loads(subprocess.run(self.command, check=True, capture_output=True, text=True).stdout)
        self.versions = out
        return float(self.versions.pop("seconds"))

    def answer(self) -> Any:
        """The values of the last run."""
        return np.load(self.found)


def opendataval_agrees(folder: str, data: Path | None, batch: int) -> bool:
    """Whether the algorithm written anew gives our answer, in double precision on a part."""
    arrays, peer = problem(data, *PART), Peer(folder, sys.executable, "opendataval_knn_shapley.py", batch, "float64")
    peer(arrays)
    gap = float(np.abs(knn_shapley(**arrays, k=K) - peer.answer()).max())
    if gap > 1e-8:
        print(f"OpenDataVal's algorithm differs by {gap:.2g}; no time is reported", file=sys.stderr)
    return gap <= 1e-8


def main() -> int:
    """Compare the answers, then the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    here = BENCH.parent
    python, data = here / ".venv-peers" / "bin" / "python", here.parent / "shared" / "data" / "mnist.npz"
    parser.add_argument("--peer-python", default=str(python), help="python of an environment with pyDVL")
    parser.add_argument(
        "--data",
        type=Path,
        default=data if data.is_file() else None,
        help=".npz with train_images, train_labels, test_images, test_labels",
    )
    parser.add_argument("--train", type=int, default=60_000, help="training points")
    parser.add_argument("--valid", type=int, nargs="+", default=[200, 1000], help="validation points, one row each")
    parser.add_argument("--repeats", type=int, nargs="+", default=[3, 1], help="pairs for each row")
    parser.add_argument("--jobs", type=int, nargs="*", default=[1, 2], help="processes of pyDVL, one row each")
    parser.add_argument(
        "--batches", type=int, nargs="*", default=[BATCH, 1000], help="batch sizes of OpenDataVal, one row each"
    )
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    versions: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        peers = {
            f"pyDVL, {jobs} process{'es' * (jobs > 1)}": Peer(folder, options.peer_python, "pydvl_knn_shapley.py", jobs)
            for jobs in options.jobs
        }
        for batch in options.batches:
            if not opendataval_agrees(folder, options.data, batch):
                return 1
            peers[f"OpenDataVal's algorithm, batches of {batch}"] = Peer(
                folder, sys.executable, "opendataval_knn_shapley.py", batch, "float32"
            )
        for m, repeats in zip(options.valid, options.repeats):
            arrays = problem(options.data, options.train, m)
            expected = knn_shapley(**arrays, k=K)
            size = f"{options.train} x {m} x {arrays['train_features'].shape[1]}"
            for name, peer in peers.items():
                times = compare(
                    lambda a=arrays: seconds_of(lambda: knn_shapley(**a, k=K)),  # type: ignore[misc]
                    lambda a=arrays, p=peer: p(a),  # type: ignore[misc]
                    repeats,
                )
                found, own = peer.answer(), name.startswith("pyDVL")
                difference = float(np.abs(expected - found).max())
                correlation = float(np.corrcoef(expected, found)[0, 1])
                if (own and difference > 1e-8) or correlation < 0.9999:  # single precision of the result
                    print(
                        f"{name} differs by {difference:.2g}, correlation {correlation:.6f}, at {size}; no time is reported",
                        file=sys.stderr,
                    )
                    return 1
                versions.update(peer.versions)
                rows.append({"size": size, "peer": name, **times, "largest_difference": difference})
    name = "MNIST pixels" if options.data else "ten Gaussian classes"
    write("knn_shapley", rows, what=f"kNN-Shapley, k = {K}, {name}; training x validation x columns", peer=versions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
