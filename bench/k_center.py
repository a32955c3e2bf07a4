"""k-center greedy against the pattern of DeepCore: a k x n matrix of distances and its column minimum for every pick.

    python bench/k_center.py

The pattern is written anew here from its description; both get the same features and the same first pick, and the picks
are compared before any time is reported.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import torch
from harness import compare, seconds_of, write

from modicum.selection import k_center_greedy


def deepcore(features: torch.Tensor, k: int, start: int) -> np.ndarray[Any, Any]:
    """Distances of every pick to every sample are kept, and the minimum over all picks is taken each time."""
    n = len(features)
    picked = np.zeros(n, dtype=bool)
    order = [start]
    picked[start] = True
    distances = torch.full((k, n), torch.inf)
    distances[0] = torch.cdist(features[start : start + 1], features)[0]
    for t in range(1, k):
        nearest = distances[:t].min(dim=0).values
        nearest[torch.from_numpy(picked)] = -1
        at = int(nearest.argmax())
        order.append(at)
        picked[at] = True
        distances[t] = torch.cdist(features[at : at + 1], features)[0]
    return np.array(order)


def main() -> int:
    """Compare the answers, then the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=["5000x64x250", "20000x128x1000", "20000x64x2000"],
        help="samples x columns x picks",
    )
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rows = []
    for size in options.sizes:
        n, d, k = map(int, size.split("x"))
        features = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
        ours, peer = k_center_greedy(features, k, start=0).numpy(), deepcore(features, k, 0)
        if not np.array_equal(ours, peer):
            at = int(np.argmax(ours != peer))
            print(f"the picks differ from number {at} on at {size}; no time is reported", file=sys.stderr)
            return 1
        times = compare(
            lambda f=features, k=k: seconds_of(lambda: k_center_greedy(f, k, start=0)),  # type: ignore[misc]
            lambda f=features, k=k: seconds_of(lambda: deepcore(f, k, 0)),  # type: ignore[misc]
            options.repeats,
        )
        rows.append({"size": size, **times})
    write(
        "k_center",
        rows,
        what="k-center greedy, Gaussian features; samples x columns x picks",
        peer="DeepCore's pattern",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
