"""Wrong labels on purpose, to learn whether a method finds them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from modicum.context import generator
from modicum.dataset import Dataset
from modicum.errors import DataError

__all__ = ["corrupt_labels"]


def corrupt_labels(
    dataset: Dataset,
    rate: float | None = None,
    kind: Literal["symmetric", "pair"] = "symmetric",
    matrix: Tensor | np.ndarray | list[list[float]] | None = None,
    seed: int = 0,
) -> tuple[Dataset, Tensor]:
    """Replace some labels by wrong ones.

    With a rate, exactly round(rate n) samples, chosen uniformly, get another class: any other with equal probability
    (`symmetric`), or the next one, y + 1 mod c (`pair`). With a matrix T, every sample of class y gets class j with
    probability T[y, j] on its own, so that the number of wrong labels is random.

    Args:
        dataset: With class indices as targets.
        rate: Share of the samples to corrupt, in [0, 1]; or give `matrix`.
        kind: `symmetric` or `pair`.
        matrix: (c, c) probabilities, every row with sum 1.
        seed: The only source of randomness.

    Returns:
        The data set with new targets, and an (n,) mask of the samples whose label changed.

    Raises:
        DataError: The data have no class indices or fewer than two classes, or rate, kind or matrix make no sense.

    Example:
        >>> from modicum.dataset import Info
        >>> data = Dataset(torch.zeros(10, 1), torch.arange(10) % 2, info=Info(classes=("a", "b")))
        >>> noisy, changed = corrupt_labels(data, 0.3)
        >>> int(changed.sum()), bool(((noisy.targets != data.targets) == changed).all())
        (3, True)

    Reference:
        Patrini et al., Making Deep Neural Networks Robust to Label Noise, 2017, arXiv 1609.03683; Han et al.,
        Co-teaching, 2018, arXiv 1804.06872 (pair).
    """
    labels = _class_indices(dataset)
    n, c = len(labels), dataset.classes
    if (rate is None) == (matrix is None):
        raise DataError(
            f"give rate or matrix and not both, got rate={rate}, matrix={'None' if matrix is None else '...'}"
        )
    random = generator(seed, "noise", kind if matrix is None else "matrix")
    if matrix is not None:
        steps = _stochastic(matrix, c).cumsum(1)
        # the inverse of every row's cumulative distribution in one sorted table: row y lies in (y, y + 1]
        table = (steps / steps[:, -1:] + torch.arange(c)[:, None]).flatten()
        drawn = torch.rand(n, generator=random, dtype=torch.float64) + labels
        wrong = (torch.searchsorted(table, drawn, right=True) - labels * c).clamp(max=c - 1)
        return dataset.replace(targets=wrong), wrong != labels
    assert rate is not None
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
        raise DataError(f"rate={rate!r}; expected a share in [0, 1]")
    if kind not in ("symmetric", "pair"):
        raise DataError(f"kind={kind!r}; expected 'symmetric' or 'pair', or give a matrix")
    chosen = torch.randperm(n, generator=random)[: round(rate * n)]
    # another class, uniformly: a step of 1 to c - 1 around the circle
    step = torch.randint(1, c, (len(chosen),), generator=random) if kind == "symmetric" else torch.tensor(1)
    wrong = labels.clone()
    wrong[chosen] = (labels[chosen] + step) % c
    return dataset.replace(targets=wrong), wrong != labels


def _class_indices(dataset: Dataset) -> Tensor:
    if dataset.targets is None or dataset.info.task != "classification" or dataset.targets.is_floating_point():
        soft = dataset.targets is not None and dataset.info.task == "classification"
        raise DataError(
            f"label noise needs class indices as targets, but this data set has {'soft labels' if soft else 'none'} "
            f"(task {dataset.info.task!r})"
        )
    if dataset.classes < 2:
        raise DataError(f"label noise needs at least 2 classes in info.classes, got {dataset.classes}")
    return dataset.targets


def _stochastic(matrix: object, c: int) -> Tensor:
    t = torch.as_tensor(np.asarray(matrix), dtype=torch.float64)
    if t.shape != (c, c):
        raise DataError(f"matrix has shape {tuple(t.shape)}; expected ({c}, {c}), one row a class")
    if not bool(t.isfinite().all()) or bool((t < 0).any()) or bool(((t.sum(1) - 1).abs() > 1e-6).any()):
        row = int((((t.sum(1) - 1).abs() > 1e-6) | (t < 0).any(1) | ~t.isfinite().all(1)).nonzero()[0])
        raise DataError(
            f"matrix row {row} is {[round(float(v), 4) for v in t[row]]} with sum {float(t[row].sum()):.4g}; "
            "expected probabilities >= 0 with sum 1"
        )
    return t
