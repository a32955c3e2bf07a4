"""Nearest-neighbor values of a million training points: seconds and peak memory, each in a process of its own.

    python bench/valuation/knn_million.py

There is no peer: a dense matrix of distances, as the others make it, would take 8 GB in double precision. Before any time
is reported, the values of a part of the points are compared with the recursion written out point by point.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import write

from modicum import valuation

K, CLASSES, EPS = 5, 10, 0.01
METHODS: dict[str, dict[str, Any]] = {
    "knn_shapley": {"k": K},
    "knn_shapley, soft": {"k": K, "utility": "soft"},
    "knn_shapley, truncate=0.01": {"k": K, "truncate": EPS},
    "knn_banzhaf": {"k": K},
    "knn_loo": {"k": K},
    "knn_shapley_regression": {"k": K},
    "threshold_knn_shapley": {"radius": 9.0},
}


def problem(n: int, m: int, d: int) -> tuple[Any, Any, Any, Any]:
    """Points of ten overlapping Gaussian classes; made in single precision throughout."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, CLASSES, n + m)
    points = draw.standard_normal((n + m, d), dtype=np.float32)
    points += draw.standard_normal((CLASSES, d), dtype=np.float32)[labels] / 2
    return points[:n], labels[:n], points[n:], labels[n:]


def one(name: str, n: int, m: int, d: int) -> None:
    """Print seconds and bytes of one method."""
    x, y, valid_x, valid_y = problem(n, m, d)
    if name == "knn_shapley_regression":
        y, valid_y = y - y.mean(), valid_y - y.mean()
    started = time.perf_counter()
    values = getattr(valuation, name.partition(",")[0])(x, y, valid_x, valid_y, **METHODS[name])
    seconds = time.perf_counter() - started
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps({"seconds": round(seconds, 2), "peak_gigabytes": round(peak / 1e9, 3), "sum": float(values.sum())})
    )


def agrees(d: int) -> bool:
    """Whether values of few points are those of the recursion, and truncated ones within their bound."""
    x, y, valid_x, valid_y = problem(2000, 20, d)
    expected = np.zeros(len(x))
    for query, label in zip(valid_x.astype(np.float64), valid_y):
        order = np.argsort(((x - query) ** 2).sum(1), kind="stable")
        match = np.append(y[order] == label, False).astype(float)
        value = 0.0
        for rank in range(len(x), 0, -1):
            value += (match[rank - 1] - match[rank]) / max(K, rank)
            expected[order[rank - 1]] += value / len(valid_x)
    exact = valuation.knn_shapley(x.astype(np.float64), y, valid_x, valid_y, k=K)
    near = valuation.knn_shapley(x.astype(np.float64), y, valid_x, valid_y, k=K, truncate=EPS)
    return float(np.abs(exact - expected).max()) < 1e-12 and float(np.abs(near - expected).max()) <= EPS


def main() -> int:
    """Compare the answers, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=1_000_000)
    parser.add_argument("--valid", type=int, default=1000)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--limit", type=float, default=4.0, help="gigabytes that no method may exceed")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    n, m, d = options.train, options.valid, options.columns
    if options.one:
        one(options.one, n, m, d)
        return 0
    if not agrees(d):
        print("the values differ from the recursion; no time is reported", file=sys.stderr)
        return 1
    rows, worst = [], 0.0
    for name in options.methods:
        command = [sys.executable, __file__, "--one", name, "--train", str(n), "--valid", str(m), "--columns", str(d)]
        out = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        worst = max(worst, out["peak_gigabytes"])
        del out["sum"]
        rows.append({"method": name, "size": f"{n} x {m} x {d}", **out})
    write(
        "valuation_knn_million",
        rows,
        what="Nearest-neighbor values; training x validation x columns; the peak is that of the whole process",
    )
    if worst > options.limit:
        print(f"{worst:.2f} GB is more than {options.limit} GB", file=sys.stderr)
    return int(worst > options.limit)


if __name__ == "__main__":
    sys.exit(main())
