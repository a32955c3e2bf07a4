"""Facility location against apricot, submodlib, and gains computed anew for every pick.

    python bench/selection/facility_location.py --peer-python PYTHON

All get the same float32 matrix of similarities, `(1 + cosine) / 2` of Gaussian clusters. The peers live in an environment
of their own (`pip install apricot-select submodlib-py`) and run their lazy optimizers; their clocks run from the matrix in
memory to the picks. Before any time is reported, the value that our picks reach is compared with that of theirs.
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
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import compare, seconds_of, write

from modicum.selection import facility_location
from modicum.selection.kernels import kernel_of

SCRIPT = Path(__file__).resolve().parents[1] / "peers" / "facility_location_greedy.py"


def similarities(n: int) -> np.ndarray[Any, Any]:
    """Of samples in 64 columns around 50 centers."""
    draw = torch.Generator().manual_seed(0)
    centers, at = torch.randn(50, 64, generator=draw), torch.randint(50, (n,), generator=draw)
    features = centers[at] + torch.randn(n, 64, generator=draw) / 2
    return kernel_of("features", features, "cosine").whole().rows.numpy()


def naive(matrix: np.ndarray[Any, Any], k: int) -> np.ndarray[Any, Any]:
    """Every gain from the definition for every pick."""
    best, picks = np.zeros(len(matrix), matrix.dtype), []
    for _ in range(k):
        gains = np.concatenate([np.maximum(rows - best, 0).sum(1) for rows in np.array_split(matrix, 64)])
        gains[picks] = -1
        picks.append(int(gains.argmax()))
        best = np.maximum(best, matrix[picks[-1]])
    return np.array(picks)


def value(matrix: np.ndarray[Any, Any], picks: np.ndarray[Any, Any]) -> float:
    """`sum_i max_{j in S} K_ij`."""
    return float(matrix[picks].max(0).sum(dtype=np.float64))


def main() -> int:
    """Compare the values, then the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    peer_python = Path(__file__).resolve().parents[2] / ".venv-peers" / "bin" / "python"
    parser.add_argument("--peer-python", default=str(peer_python), help="python of an environment with both peers")
    parser.add_argument("--size", default="10000x1000", help="samples x picks, against the peers")
    parser.add_argument("--naive", default="10000x1000", help="samples x picks, one pair, against gains computed anew")
    parser.add_argument("--repeats", type=int, default=3, help="pairs")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    versions: dict[str, Any] = {}
    for peer in ("apricot", "submodlib", "naive"):
        size, repeats = (options.naive, 1) if peer == "naive" else (options.size, options.repeats)
        n, k = map(int, size.split("x"))
        matrix = similarities(n)
        ours = np.asarray(facility_location(matrix, k)[0])
        with tempfile.TemporaryDirectory() as folder:
            given, answer = Path(folder, "similarities.npy"), Path(folder, "answer.npy")
            np.save(given, matrix)

            def other(peer: str = peer, k: int = k, m: Any = matrix, g: Path = given, a: Path = answer) -> float:
                if peer == "naive":
                    return seconds_of(lambda: np.save(a, naive(m, k)))
                command = [options.peer_python, str(SCRIPT), peer, str(g), str(a), str(k)]
                out = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                versions.update(out)
                return float(versions.pop("seconds"))

            other()
            theirs = np.load(answer)
            values = value(matrix, ours), value(matrix, theirs)
            if values[0] < values[1] * (1 - 1e-6):
                print(f"our picks reach {values[0]}, those of {peer} {values[1]}; no time is reported", file=sys.stderr)
                return 1
            times = compare(lambda m=matrix, k=k: seconds_of(lambda: facility_location(m, k)), other, repeats)  # type: ignore[misc]
        reached = {"ours": round(values[0], 3), "theirs": round(values[1], 3)}
        rows.append(
            {"peer": peer, "size": size, **times, "value": reached, "same_picks": float((ours == theirs).mean())}
        )
    write(
        "selection_facility_location",
        rows,
        what="lazy greedy facility location on a dense matrix; samples x picks; value is what the picks reach",
        versions=versions,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
