"""Support vectors: the same machine from a fraction of the samples."""

from __future__ import annotations

import statistics
import time

import numpy as np
from protocol import claim

from modicum.evidence import Claim
from modicum.selection import support_vectors

KERNELS = (("linear", 1.0), ("rbf", 1.0), ("rbf", 10.0))


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split
    from sklearn.svm import SVC

    started, shares, moved, ours, random, full = time.perf_counter(), [], [], [], [], []
    images, labels = load_breast_cancer(return_X_y=True)
    for seed in range(seeds):
        x, test_x, y, test_y = train_test_split(images, labels, test_size=0.3, random_state=seed)
        center, scale = x.mean(0), x.std(0)
        x, test_x = (x - center) / scale, (test_x - center) / scale
        gamma, most, draw = 1 / x.shape[1], 0.0, np.random.default_rng(seed)
        for kernel, weight in KERNELS:
            kept = support_vectors(x, y, C=weight, kernel=kernel, gamma=gamma)
            machine = SVC(C=weight, kernel=kernel, gamma=gamma, tol=1e-8)
            whole = machine.fit(x, y).decision_function(test_x)
            most = max(most, float(np.abs(machine.fit(x[kept], y[kept]).decision_function(test_x) - whole).max()))
            if kernel == "linear":
                full.append(100 * float(((whole > 0) == test_y).mean()))
                shares.append(100 * len(kept) / len(x))
                ours.append(100 * float(machine.score(test_x, test_y)))
                some = [draw.permutation(len(x))[: len(kept)] for _ in range(10)]
                random.append(statistics.mean(100 * machine.fit(x[s], y[s]).score(test_x, test_y) for s in some))
        moved.append(most)
    seconds = time.perf_counter() - started
    return [
        claim(
            "a linear machine keeps less than a fifth of the samples of breast-cancer",
            shares,
            100.0,
            statistics.mean(shares) < 20,
            "% of the samples",
            seconds,
        ),
        claim(
            "trained on the support vectors alone, three machines decide the same to 1e-6",
            moved,
            0.0,
            max(moved) < 1e-6,
            "largest difference of a decision",
            seconds,
        ),
        claim(
            "the accuracy is that of all samples to the last one; as many random samples give less",
            ours,
            statistics.mean(random),
            ours == full and statistics.mean(ours) > statistics.mean(random),
            "% test accuracy",
            seconds,
        ),
    ]
