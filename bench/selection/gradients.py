"""CRAIG and GradMatch, class by class, on the last-layer gradients of 50,000 samples; and both against the plain pattern.

    python bench/selection/gradients.py

The plain pattern multiplies the factors out, computes every gain anew for each pick (CRAIG), or solves the nonnegative
least squares of the chosen gradients from the beginning (GradMatch, by SciPy). It gets one class in float64, and what is
chosen is compared before any time is reported.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import compare, seconds_of, write

from modicum.scores import Budget
from modicum.selection import craig, gradmatch
from modicum.selection.by_class import by_class
from modicum.selection.gradient_rows import GradientRows
from modicum.selection.gradmatch import own_class

CLASSES, KEEP, L2 = 10, 0.1, 0.5


def problem(n: int, d: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, np.ndarray[Any, Any]]:
    """Factors (n, 10) and (n, d + 1) of a softmax layer that is half trained, and the labels."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % CLASSES
    means = torch.randn(CLASSES, d, generator=draw, dtype=dtype)
    inputs = (0.3 * means[labels] + torch.randn(n, d, generator=draw, dtype=dtype)).relu()
    logits = inputs @ (0.3 * means.T / d**0.5) + torch.randn(n, CLASSES, generator=draw, dtype=dtype)
    errors = logits.softmax(1) - F.one_hot(labels, CLASSES)
    return errors, F.pad(inputs, (0, 1), value=1.0), labels.numpy()


def plain_craig(gradients: np.ndarray[Any, Any], k: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Every gain anew for each pick."""
    squares = np.square(gradients).sum(1)
    far = np.sqrt(np.maximum(squares[:, None] + squares - 2 * gradients @ gradients.T, 0))
    np.fill_diagonal(far, 0)
    near = far.max() - far
    covered, picks = np.zeros(len(far)), list[int]()
    for _ in range(k):
        gains = np.maximum(near - covered[:, None], 0).sum(0)
        gains[picks] = -np.inf
        picks.append(int(gains.argmax()))
        covered = np.maximum(covered, near[:, picks[-1]])
    return np.array(picks), np.bincount(far[:, picks].argmin(1), minlength=k)


def plain_gradmatch(gradients: np.ndarray[Any, Any], k: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The refit of each pick from the beginning."""
    from scipy.optimize import nnls

    goal = gradients.sum(0)
    chosen: list[int] = []
    weights = np.zeros(0)
    while len(chosen) < k:
        products = gradients @ (goal - weights @ gradients[chosen])
        products[chosen] = -np.inf
        chosen.append(int(products.argmax()))
        stacked = np.vstack([gradients[chosen].T, L2**0.5 * np.eye(len(chosen))])
        weights, _ = nnls(stacked, np.concatenate([goal, np.zeros(len(chosen))]))
        chosen = [j for j, w in zip(chosen, weights) if w > 0]
        weights = weights[weights > 0]
    return np.array(chosen), weights


def whole_set(name: str, errors: Tensor, features: Tensor, labels: np.ndarray[Any, Any]) -> int:
    """How many samples are chosen, class by class."""
    rows = GradientRows(errors, features)
    rows = own_class(rows, labels) if name.endswith("own class") else rows

    def pick(members: np.ndarray[Any, Any], k: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        own = rows[torch.from_numpy(members)]
        assert own.right is not None
        given = own.left, own.right
        at, weights = craig(given, k) if name == "craig" else gradmatch(given, k, L2)
        return at.numpy(), weights.numpy()

    return len(by_class(labels, Budget(keep=KEEP), pick)[0])


def main() -> int:
    """Compare the answers, then the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--columns", type=int, default=512)
    parser.add_argument("--members", type=int, default=1000, help="of the class that the plain pattern gets")
    parser.add_argument("--repeats", type=int, default=3, help="pairs")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    errors, features, _ = problem(options.members * CLASSES, 128, torch.float64)
    own = errors[::CLASSES].contiguous(), features[::CLASSES].contiguous()
    whole = (own[0][:, :, None] * own[1][:, None]).flatten(1).numpy()
    k = round(KEEP * options.members)
    for name, ours, plain in (
        ("craig", lambda: craig(own, k), lambda: plain_craig(whole, k)),
        ("gradmatch", lambda: gradmatch(own, k, L2), lambda: plain_gradmatch(whole, k)),
    ):
        (at, weights), (peer_at, peer_weights) = ours(), plain()
        if at.tolist() != peer_at.tolist() or not np.allclose(weights.numpy(), peer_weights, rtol=1e-6):
            print(f"{name}: other samples or weights than the plain pattern; no time is reported", file=sys.stderr)
            return 1
        times = compare(lambda f=ours: seconds_of(f), lambda f=plain: seconds_of(f), options.repeats)  # type: ignore[misc]
        rows.append({"method": name, "size": f"{options.members} x (10 x 129), {k} picks, float64", **times})
    errors, features, labels = problem(options.samples, options.columns)
    for name in ("craig", "gradmatch, own class", "gradmatch"):
        counts: list[int] = []
        seconds = seconds_of(lambda n=name, c=counts: c.append(whole_set(n, errors, features, labels)))  # type: ignore[misc]
        size = f"{options.samples} x (10 x {options.columns + 1}) in 10 classes, {counts[0]} picks, float32"
        rows.append({"method": name, "size": size, "ours_seconds": round(seconds, 2)})
    write(
        "selection_gradients",
        rows,
        what="CRAIG and GradMatch on last-layer gradients; a tenth of each class",
        peer="every gain and every refit anew, gradients multiplied out",
        threads=options.threads,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
