"""Influence by EK-FAC of a perceptron against kronfluence, which lives in an environment of its own.

    python bench/valuation/influence_ekfac.py --peer-python PYTHON --data mnist.npz

Both get the same float32 weights and arrays, make the factors of the empirical Fisher matrix (the only labels that both
take without drawing any) and all scores of training samples and queries, damped by a tenth of a layer's mean eigenvalue;
the answers are compared before any time is reported. The peer's times are those that are best for it of a few batch
sizes; they include writing its factors to disk, which it always does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import summary, write

from modicum.measurement.kronecker import kronecker_factors
from modicum.measurement.kronecker_scores import kronecker_scores

WIDTHS = (256, 128)


def problem(path: Path | None, n: int, m: int) -> list[Tensor]:
    """Training and query images and labels of an .npz such as MNIST, or points of ten Gaussian classes."""
    if path is not None:
        with np.load(path) as arrays:
            x, v = (arrays[f"{s}_images"][:k].reshape(k, -1) / 255 for s, k in (("train", n), ("test", m)))
            y, w = arrays["train_labels"][:n], arrays["test_labels"][:m]
    else:
        draw = np.random.default_rng(0)
        labels = draw.integers(0, 10, n + m)
        points = draw.normal(size=(10, 784))[labels] + 3 * draw.normal(size=(n + m, 784))
        x, v, y, w = points[:n], points[n:], labels[:n], labels[n:]
    return [torch.from_numpy(a.astype(t)) for a, t in ((x, "f4"), (y, "i8"), (v, "f4"), (w, "i8"))]


def trained(x: Tensor, y: Tensor) -> nn.Module:
    """A perceptron after five epochs of AdamW, the same each time."""
    torch.manual_seed(0)
    widths = (x.shape[1], *WIDTHS)
    hidden = [m for a, b in pairwise(widths) for m in (nn.Linear(a, b), nn.ReLU())]
    model = nn.Sequential(*hidden, nn.Linear(widths[-1], 10))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-2)
    for _ in range(5):
        for at in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[at]), y[at]).backward()
            optimizer.step()
    return model.eval()


def main() -> int:
    """Compare the answers, then the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    here = Path(__file__).resolve().parents[2]
    peer_python, data = here / ".venv-peers" / "bin" / "python", here.parent / "shared" / "data" / "mnist.npz"
    parser.add_argument("--peer-python", default=str(peer_python), help="python of an environment with kronfluence")
    parser.add_argument("--data", type=Path, default=data if data.is_file() else None, help=".npz such as MNIST")
    parser.add_argument("--train", type=int, default=4000, help="training samples")
    parser.add_argument("--queries", type=int, default=200, help="queries")
    parser.add_argument("--repeats", type=int, default=3, help="pairs")
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 512, 2000], help="batch sizes of the peer")
    options = parser.parse_args()
    x, y, v, w = problem(options.data, options.train, options.queries)
    model = trained(x, y)
    versions: dict[str, Any] = {}
    answers: dict[str, Any] = {}

    def ours() -> dict[str, float]:
        started = time.perf_counter()
        factors = kronecker_factors(model, x, y, labels="data")
        middle = time.perf_counter()
        answers["ours"] = kronecker_scores(factors, model, (x, y), (v, w)).numpy()
        return {"factors": middle - started, "scores": time.perf_counter() - middle}

    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder, "problem.npz"), Path(folder, "answer.npy")
        weights = {f"p{i}": p.detach().numpy() for i, p in enumerate(model.parameters())}
        np.savez(given, x=x.numpy(), y=y.numpy(), v=v.numpy(), w=w.numpy(), **weights)

        def peer(batch: int) -> dict[str, float]:
            script = Path(__file__).resolve().parents[1] / "peers" / "kronfluence_scores.py"
            command = [options.peer_python, str(script), str(given), str(answer), str(batch)]
            out = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            )
            answers["peer"] = np.load(answer)
            versions.update({name: out[name] for name in ("kronfluence", "torch")})
            return {name: out[name] for name in ("factors", "scores")}

        ours()
        tried = {batch: sum(peer(batch).values()) for batch in options.batches}
        best = min(tried, key=lambda batch: tried[batch])
        a, b = answers["ours"].astype(np.float64), answers["peer"].astype(np.float64)
        pearson = float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
        if pearson < 0.999:
            print(f"the answers correlate by {pearson:.6f} only; no time is reported", file=sys.stderr)
            return 1
        pairs = [(ours(), peer(best)) for _ in range(options.repeats)]
    size = f"{options.train} x {options.queries}, {x.shape[1]}-{'-'.join(map(str, WIDTHS))}-10"
    same = {"pearson": round(pearson, 6), "relative_difference": float(np.abs(a - b).max() / np.abs(a).max())}
    rows = []
    for name, parts in (("factors", ("factors",)), ("scores", ("scores",)), ("both", ("factors", "scores"))):
        times = [[sum(side[p] for p in parts) for side in sides] for sides in zip(*pairs)]
        rows.append({"step": name, "size": size, "peer_batch": best, **summary(*times), **same})
    what = f"influence by EK-FAC, {'MNIST' if options.data else 'ten Gaussian classes'}; training samples x queries"
    write("valuation_influence_ekfac", rows, what=what, peer=versions, threads=torch.get_num_threads())
    return 0


if __name__ == "__main__":
    sys.exit(main())
