"""What a method promises, measured: claims that run on real data, and the command that runs them."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from modicum.errors import ModicumError

__all__ = ["Claim", "environment", "run_evidence"]


@dataclass(frozen=True)
class Claim:
    """One promise and what came out.

    Args:
        claim: The promise in one sentence.
        measured: Mean of what was measured.
        deviation: Its standard deviation over the runs.
        n: Number of runs.
        baseline: The same number for what a user would do instead.
        holds: Whether the promise holds here.
        unit: Of measured, deviation and baseline.
        cost_seconds: What measuring took.
    """

    claim: str
    measured: float
    deviation: float
    n: int
    baseline: float
    holds: bool
    unit: str
    cost_seconds: float


def run_evidence(
    folder: Path, keys: Sequence[str] = (), seeds: int = 3, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Run the claims in `folder/<family>/<key>.py`.

    Args:
        folder: Of the evidence.
        keys: Methods; all that have evidence when empty.
        seeds: Number of repetitions of each claim.
        say: Is told what runs.

    Returns:
        Versions, hardware, and for each method its claims as plain values.

    Raises:
        ModicumError: The folder or the evidence of a key is missing.
    """
    files = {path.stem.replace("_", "-"): path for path in sorted(folder.glob("*/*.py"))}
    if not files:
        raise ModicumError(f"folder={str(folder)!r} holds no evidence; expected files such as valuation/el2n.py")
    missing = [key for key in keys if key not in files]
    if missing:
        raise ModicumError(f"there is no evidence for {missing[0]!r} in {folder}; there is for {', '.join(files)}")
    methods = []
    for key in keys or files:
        say(f"evidence {key} ...")
        started = time.perf_counter()
        claims = [{"method": key, **asdict(claim)} for claim in _load(files[key]).run(seeds)]
        methods.append({"method": key, "seconds": round(time.perf_counter() - started, 1), "claims": claims})
        for claim in claims:
            say(
                f"  {'holds' if claim['holds'] else 'FAILS'}: {claim['claim']} ({claim['measured']:.4g} {claim['unit']})"
            )
    return {"environment": environment(), "methods": methods}


def environment() -> dict[str, Any]:
    """Versions and hardware, for everything that is measured."""
    import numpy as np
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def _load(path: Path) -> ModuleType:
    shared = str(path.parents[1])  # claims of several methods share a protocol that lies beside the families
    if shared not in sys.path:
        sys.path.insert(0, shared)
    source = importlib.util.spec_from_file_location(f"evidence_{path.stem}", path)
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    return module
