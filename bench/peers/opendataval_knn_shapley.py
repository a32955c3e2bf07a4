"""The algorithm of OpenDataVal's kNN-Shapley, written anew from its description because its exact pins (torch 2.2, NumPy
1.26) cannot be installed beside a current torch: reads a problem, writes its values, prints seconds.

As there: distances by `cdist` over pairs of batches from two data loaders, a dense n x m matrix of them, one stable argsort,
and a Python loop over the n ranks that works on all m validation points at once and indexes a dense n x m matrix of scores.
Unlike there, labels are class indices instead of one-hot rows (ten times less to gather), and no progress is shown: both
are in its favor.
"""

import json
import sys
import time

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader


def knn_shapley(x: Tensor, y: Tensor, valid_x: Tensor, valid_y: Tensor, k: int, batch_size: int) -> Tensor:
    """(n,) values."""
    n, m = len(x), len(valid_x)
    rows = (
        torch.cat([torch.cdist(some, others) for others in DataLoader(valid_x, batch_size)], dim=1)
        for some in DataLoader(x, batch_size)
    )
    distances = torch.cat(list(rows), dim=0)
    ranking = torch.argsort(distances, dim=0, stable=True)
    labels = y[ranking]
    scores = torch.zeros_like(distances)

    def match(rank: int) -> Tensor:
        return (labels[rank] == valid_y).to(scores.dtype)

    scores[ranking[n - 1], range(m)] = match(n - 1) / n
    for i in range(n - 2, -1, -1):
        scores[ranking[i], range(m)] = scores[ranking[i + 1], range(m)] + min(k, i + 1) / (k * (i + 1)) * (
            match(i) - match(i + 1)
        )
    return scores.mean(dim=1)


if __name__ == "__main__":
    problem, answer, neighbors, batch, dtype = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    with np.load(problem) as arrays:
        names = ("train_features", "train_targets", "valid_features", "valid_targets")
        given = [torch.from_numpy(arrays[name]) for name in names]
    given = [a.to(getattr(torch, dtype)) if a.is_floating_point() else a for a in given]
    started = time.perf_counter()
    values = knn_shapley(*given, neighbors, batch)
    seconds = time.perf_counter() - started
    np.save(answer, values.numpy())
    print(json.dumps({"seconds": seconds}))
