"""Facility location on a million samples by their nearest neighbors: seconds and peak memory.

    python bench/selection/million.py

There is no peer: a dense matrix of similarities would take 4 TB. Before any time is reported, the picks from a sparse matrix
of few samples are compared with greedy picks written out anew, and the neighbors found in cells with all the pairs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import write

from modicum.selection import facility_location, neighbor_graph


def samples(n: int, d: int) -> Tensor:
    """Around 1000 centers."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(n, d, generator=draw).mul_(0.5)
    return rows.add_(torch.randn(1000, d, generator=draw)[torch.randint(1000, (n,), generator=draw)])


def one(n: int, d: int, k: int, neighbors: int) -> None:
    """Print seconds and bytes."""
    features = samples(n, d)
    started = time.perf_counter()
    _, gains = facility_location(features, k, neighbors=neighbors)
    seconds = time.perf_counter() - started
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    covered = round(float(gains.double().sum()) / n, 4)
    print(
        json.dumps({"seconds": round(seconds, 2), "peak_gigabytes": round(peak / 1e9, 3), "mean_similarity": covered})
    )


def agrees(d: int, neighbors: int) -> tuple[bool, float]:
    """Whether few samples are picked as by the definition, and the share of true neighbors found in cells."""
    features = samples(2000, d).double()
    unit = torch.nn.functional.normalize(features, dim=1)
    nearest, _ = neighbor_graph(features, neighbors, "cosine", approximate=False)
    matrix = np.zeros((2000, 2000))
    matrix[np.arange(2000)[:, None], nearest.numpy()] = ((1 + unit @ unit.T) / 2).gather(1, nearest).numpy()
    np.fill_diagonal(matrix, 1)
    best, picks = np.zeros(2000), []
    for _ in range(200):
        gains = np.maximum(matrix - best[:, None], 0).sum(0)
        picks.append(int(gains.argmax()))
        best = np.maximum(best, matrix[:, picks[-1]])
    ours, _ = facility_location(features, 200, neighbors=neighbors)
    some = samples(20_000, d)
    exact, found = (neighbor_graph(some, neighbors, approximate=way)[0] for way in (False, True))
    recall = float((exact[:, :, None] == found[:, None]).any(2).float().mean())
    return ours.tolist() == picks, recall


def main() -> int:
    """Compare the answers, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--picks", type=int, default=100_000)
    parser.add_argument("--neighbors", type=int, default=16)
    parser.add_argument("--limit", type=float, default=4.0, help="gigabytes that may not be exceeded")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    n, d, k, neighbors = options.samples, options.columns, options.picks, options.neighbors
    if options.one:
        one(n, d, k, neighbors)
        return 0
    same, recall = agrees(d, neighbors)
    if not same or recall < 0.9:
        print(f"the picks are the same: {same}; recall {recall:.3f}; no time is reported", file=sys.stderr)
        return 1
    sizes = [f"--samples={n}", f"--columns={d}", f"--picks={k}", f"--neighbors={neighbors}"]
    command = [sys.executable, __file__, "--one", *sizes]
    out = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    row = {"size": f"{n} x {d}", "picks": k, "neighbors": neighbors, "recall_of_20000": round(recall, 4), **out}
    write(
        "selection_million", [row], what="Facility location by nearest neighbors; the peak is that of the whole process"
    )
    if out["peak_gigabytes"] > options.limit:
        print(f"{out['peak_gigabytes']:.2f} GB is more than {options.limit} GB", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
