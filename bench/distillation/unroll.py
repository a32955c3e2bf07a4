"""Peak memory of the exact gradient through 50 inner steps beside that of 1 step, and of the plain unroll.

    python bench/distillation/unroll.py [--width 64] [--batch 20]

The gradients of both ways are compared first. Every measurement is a process of its own; what the process holds before
the gradient is asked for is taken off.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1]))


def problem(width: int, batch: int) -> dict[str, Any]:
    """Trajectory matching of a batch of images of 32 px: the arguments of `unrolled_gradient`."""
    import torch
    import torch.nn.functional as F

    from modicum.distillation import flat_network
    from modicum.models.convnet import ConvNet

    torch.manual_seed(0)
    theta, call = flat_network(ConvNet((3, 32, 32), 10, width=width))
    target = theta + 0.01 * torch.randn_like(theta)
    images = torch.randn(batch, 3, 32, 32, requires_grad=True)
    labels = torch.arange(batch) % 10
    return {
        "loss": lambda theta, n, images: F.cross_entropy(call(theta, images), labels),
        "theta": theta,
        "leaves": [images],
        "rates": torch.tensor(0.01, requires_grad=True),
        "outer": lambda end: (end - target).square().sum() / (theta - target).square().sum(),
    }


def worker(mode: str, steps: int, width: int, batch: int, threads: int) -> None:
    """One gradient, as JSON."""
    import torch

    from modicum.distillation import unrolled_gradient
    from modicum.ledger import peak_bytes

    torch.set_num_threads(threads)
    given = problem(width, batch)
    small = problem(4, 2)
    unrolled_gradient(**small, steps=2, mode=mode)  # what is loaded on first use
    before, started = peak_bytes(), time.perf_counter()
    unrolled_gradient(**given, steps=steps, mode=mode)
    seconds = time.perf_counter() - started
    print(json.dumps({"bytes": peak_bytes() - before, "seconds": seconds}))


def measured(mode: str, steps: int, width: int, batch: int, threads: int) -> dict[str, float]:
    """What a worker printed."""
    sizes = ["--width", str(width), "--batch", str(batch), "--threads", str(threads)]
    words = [sys.executable, str(HERE), "--worker", mode, "--steps", str(steps), *sizes]
    # one pool of memory, so that what is freed is used again
    everything = {**os.environ, "OMP_NUM_THREADS": str(threads), "MALLOC_ARENA_MAX": "1"}
    out = subprocess.run(words, check=True, capture_output=True, text=True, env=everything).stdout
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


def agreement() -> float:
    """The largest relative difference between the gradients of both ways, in float32."""
    from modicum.distillation import unrolled_gradient

    given = problem(8, 4)
    exact, plain = (unrolled_gradient(**given, steps=5, mode=mode) for mode in ("adjoint", "unroll"))
    pairs = zip([*exact.leaves, exact.rates], [*plain.leaves, plain.rates])
    return max(float((a - b).norm() / b.norm()) for a, b in pairs if a is not None and b is not None)


def main() -> int:
    """Compare the gradients, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", default=None, help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.worker:
        worker(o.worker, o.steps, o.width, o.batch, o.threads)
        return 0
    from harness import write

    difference = agreement()
    if difference > 1e-4:
        print(f"the gradients differ by {difference:.2g}: not compared")
        return 1
    rows = []
    for mode, steps in (("adjoint", 1), ("adjoint", o.steps), ("unroll", 1), ("unroll", max(2, o.steps // 5))):
        found = measured(mode, steps, o.width, o.batch, o.threads)
        rows.append(
            {
                "mode": mode,
                "steps": steps,
                "peak_mb": round(found["bytes"] / 1e6),
                "seconds": round(found["seconds"], 2),
            }
        )
    print(f"{o.steps} steps need {rows[1]['peak_mb'] / rows[0]['peak_mb']:.2f} times the memory of one")
    write(
        "distillation_unroll",
        rows,
        what="Memory of the exact gradient through inner training",
        settings={"width": o.width, "batch": o.batch, "threads": o.threads},
        difference=difference,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
