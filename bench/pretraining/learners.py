"""Images a second and peak memory of a training step of each learner, against lightly's heads and losses.

    python bench/pretraining/learners.py [--peer-python PYTHON]

Same backbone, same given views, same optimizer; every measurement is a process of its own, ours and the peer's in turn.
Losses on the same embeddings are compared first. The last rows set one branch
(sqrtkl) beside our own MoCo-v2 with as many negatives, on given views and with making the views, which it needs half of.
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
PEER = HERE.parents[1] / "peers" / "lightly_learners.py"
LEARNERS = ("simclr", "moco-v2", "byol", "simsiam", "barlow-twins", "vicreg")


def step_of(key: str, hidden: int, dimension: int, queue: int) -> str:
    """The text of our method with the sizes of the comparison."""
    key, _, views = key.partition("+")
    sizes = f"hidden={hidden}, dimension={dimension}, augment={'sqrtkl' if views else 'none'!r}"
    more = {"moco-v2": f", queue={queue}", "sqrtkl": f", negatives={queue - 1}, bank_init='random'"}.get(key, "")
    return f"{key}({sizes}{more})"


def answer_of(key: str, dimension: int) -> float | None:
    """Our loss on the embeddings that the peer's is computed on."""
    import torch

    from modicum import losses

    a, b = torch.randn(2, 64, dimension, generator=torch.Generator().manual_seed(1))
    made = {
        "simclr": lambda: losses.NTXent(0.5),
        "byol": losses.NegativeCosine,
        "simsiam": losses.NegativeCosine,
        "barlow-twins": losses.BarlowTwins,
        "vicreg": losses.VICReg,
    }.get(key)
    return None if made is None else float(made()(a, b))


def worker(key: str, steps: int, batch: int, width: int, hidden: int, dimension: int, queue: int, threads: int) -> None:
    """Steps of ours, as JSON."""
    import torch

    from modicum.dataset import Dataset, Info
    from modicum.ledger import peak_bytes
    from modicum.methods import make
    from modicum.pretraining import Plan
    from modicum.pretraining.learner import backbone_for
    from modicum.training.recipe import Recipe

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    n = max(queue, batch)
    # of a memory bank's size; the images themselves are not looked at
    data = Dataset(torch.zeros(1, 3, 32, 32).expand(2 * n, 3, 32, 32), info=Info("unlabeled", "image"))
    learner = make(step_of(key, hidden, dimension, queue)).learner(
        data, backbone_for(Recipe(f"convnet(width={width})"), data, 0), Plan(1000, batch, 10.0)
    )
    given = list(torch.rand(2, batch, 3, 32, 32))
    if not key.endswith("+views"):
        learner.views_of = lambda inputs, count, generator: given[:count]
    parameters = [p for p in learner.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, 1e-3, weight_decay=0.01, fused=True)
    seconds = []
    for step in range(steps + 2):
        started = time.perf_counter()
        optimizer.zero_grad()
        at = (torch.arange(batch) + step * batch) % n
        learner(given[0], at, at)[0].mean().backward()
        optimizer.step()
        learner.after()
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": seconds[2:], "peak_bytes": peak_bytes(), "answer": answer_of(key, dimension)}))


def measured(words: list[str], threads: int, **environment: str) -> dict[str, Any]:
    """What a worker printed."""
    everything = {**os.environ, "OMP_NUM_THREADS": str(threads), **environment}
    out = subprocess.run(words, check=True, capture_output=True, text=True, env=everything).stdout
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def main() -> int:
    """Compare losses, then steps."""
    from statistics import median

    from harness import summary, write

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default=str(HERE.parents[2] / ".venv-peers" / "bin" / "python"))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--queue", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", default=None, help=argparse.SUPPRESS)
    o = parser.parse_args()
    sizes = (o.steps, o.batch, o.width, o.hidden, o.dimension, o.queue, o.threads)
    if o.worker:
        worker(o.worker, *sizes)
        return 0
    if not Path(o.peer_python).is_file():
        print(f"skipped: {o.peer_python} is missing; `make bench` makes it")
        return 0
    names = ("steps", "batch", "width", "hidden", "dimension", "queue", "threads")
    own = [w for name, size in zip(names, sizes) for w in (f"--{name}", str(size))]

    def ours(key: str) -> dict[str, Any]:
        return measured([sys.executable, str(HERE), "--worker", key, *own], o.threads)

    def peer(key: str) -> dict[str, Any]:
        source = str(HERE.parents[2] / "src")
        return measured([o.peer_python, str(PEER), key, *map(str, sizes)], o.threads, PYTHONPATH=source)

    rows = []
    for key in LEARNERS:
        pairs = [(ours(key), peer(key)) for _ in range(o.repeats)]
        a, b = pairs[0][0]["answer"], pairs[0][1]["answer"]
        if a is not None and abs(a - b) > 1e-3 * max(1.0, abs(b)):
            print(f"{key}: our loss is {a}, the peer's {b}: not compared")
            rows.append({"learner": key, "peer": "lightly", "answers": f"{a} and {b}"})
            continue
        rows.append(row(key, "lightly", pairs, o.batch, summary, median))
    for views in ("", "+views"):
        pairs = [(ours("sqrtkl" + views), ours("moco-v2" + views)) for _ in range(o.repeats)]
        rows.append(row("sqrtkl" + views, "our moco-v2" + views, pairs, o.batch, summary, median))
    write(
        "pretraining_learners",
        rows,
        what="A training step of self-supervised learners",
        peer={"lightly": "1.6.0, its heads and losses"},
        settings=dict(zip(names, sizes)),
    )
    return 0


def row(key: str, peer: str, pairs: list[Any], batch: int, summary: Any, median: Any) -> dict[str, Any]:
    """A line of the result."""
    times = [[median(found["seconds"]) for found in side] for side in zip(*pairs)]
    memory = [max(found["peak_bytes"] for found in side) for side in zip(*pairs)]
    return {
        "learner": key,
        "peer": peer,
        **summary(*times),
        "ours_images_per_second": round(batch / median(times[0])),
        "peer_images_per_second": round(batch / median(times[1])),
        "ours_peak_mb": round(memory[0] / 1e6),
        "peer_peak_mb": round(memory[1] / 1e6),
    }


if __name__ == "__main__":
    sys.exit(main())
