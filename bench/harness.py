"""What every benchmark shares: paired timing, a description of the machine, and where results go."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modicum.evidence import environment

__all__ = ["RESULTS", "compare", "seconds_of", "summary", "write"]

RESULTS = Path(__file__).parent / "results"


def processor() -> str:
    """The name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def seconds_of(function: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def compare(ours: Callable[[], float], peer: Callable[[], float], repeats: int) -> dict[str, Any]:
    """Time both in turn, so that whatever else the machine does falls on both.

    Args:
        ours: Runs once and gives its seconds.
        peer: The same.
        repeats: Pairs.
    """
    pairs = [(ours(), peer()) for _ in range(repeats)]
    return summary([a for a, _ in pairs], [b for _, b in pairs])


def summary(ours: list[float], peer: list[float]) -> dict[str, Any]:
    """Median seconds of both, and the median, least and greatest ratio of the pairs (above one: ours is faster)."""
    ratios = [b / a for a, b in zip(ours, peer)]
    return {
        "ours_seconds": round(statistics.median(ours), 4),
        "peer_seconds": round(statistics.median(peer), 4),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_least": round(min(ratios), 2),
        "ratio_greatest": round(max(ratios), 2),
        "pairs": len(ratios),
    }


def write(name: str, rows: list[dict[str, Any]], **about: Any) -> Path:
    """Write `results/NAME.json` with versions and hardware, and print its rows."""
    packages = {p: importlib.metadata.version(p) for p in ("modicum", "scikit-learn")}
    where = {**environment(), **packages, "processor": processor()}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"benchmark": name, **about, "environment": where, "rows": rows}, indent=2) + "\n")
    for row in rows:
        print("  ".join(f"{key}={value}" for key, value in row.items()))
    print(path)
    return path
