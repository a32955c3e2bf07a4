"""Stratified, deterministic parts of a data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from modicum.context import generator
from modicum.data.raw import Array
from modicum.dataset import Dataset
from modicum.errors import DataError

__all__ = ["apportion", "part_rows", "split", "stratified_rows"]


def split(dataset: Dataset, shares: Sequence[float], seed: int = 0) -> tuple[Dataset, ...]:
    """Cut a data set into parts of which each has the classes in the proportions of the whole.

    The sizes of the parts are n times their shares, rounded by the largest remainder so that they add up to n (a tie
    goes to the later part); every part but the first takes from each class its proportion, rounded the same way, and
    the first part is what remains. No class loses its last sample to a later part.

    Args:
        dataset: What to cut; without class labels the parts are plain random ones.
        shares: One positive number a part; they add up to 1.
        seed: The same seed gives the same parts.

    Returns:
        The parts; each keeps the order of the samples.

    Raises:
        DataError: The shares do not add up to 1, or a part would be empty.

    Example:
        >>> import torch
        >>> from modicum.dataset import Info
        >>> data = Dataset(torch.rand(10, 2), torch.arange(10) % 2, info=Info(classes=("a", "b")))
        >>> [part.class_counts().tolist() for part in split(data, (0.6, 0.2, 0.2))]
        [[3, 3], [1, 1], [1, 1]]
    """
    if min(shares, default=0.0) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise DataError(f"shares={tuple(shares)} must be positive and add up to 1")
    labelled = dataset.info.task == "classification" and dataset.targets is not None
    alike = dataset.labels.numpy() if labelled else None
    return tuple(dataset[rows] for rows in part_rows(alike, len(dataset), shares, seed))


def part_rows(alike: Array | None, n: int, shares: Sequence[float], seed: int) -> list[Array]:
    """The positions of each part, increasing (see `split`); a share of 0 gives an empty part."""
    sizes = apportion(n * np.asarray(shares)[::-1], n, np.full(len(shares), n))[::-1]
    for share, size in zip(shares, sizes, strict=True):
        if share > 0 and size == 0:
            raise DataError(f"{n} samples are too few for parts with the shares {tuple(shares)}; one would be empty")
    groups = np.zeros(n, np.int64) if alike is None else np.unique(alike, return_inverse=True)[1]
    order = _shuffled_groups(groups, seed, "split")
    left = np.bincount(groups, minlength=1)
    start = np.concatenate([[0], np.cumsum(left)[:-1]])
    parts: list[Array] = []
    for size in sizes[:0:-1]:
        keep_one = np.minimum(1, left)
        spare = left - keep_one if (left - keep_one).sum() >= size else left
        take = apportion(left * (size / max(1, left.sum())), int(size), spare)
        parts.append(_gather(order, start, take))
        start, left = start + take, left - take
    parts.append(_gather(order, start, left))
    return parts[::-1]


def stratified_rows(alike: Array | None, n: int, count: int, seed: int) -> Array:
    """`count` of n positions, increasing, with the groups in their proportions."""
    if count >= n:
        return np.arange(n)
    groups = np.zeros(n, np.int64) if alike is None else np.unique(alike, return_inverse=True)[1]
    sizes = np.bincount(groups, minlength=1)
    take = apportion(sizes * (count / n), count, sizes)
    start = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return _gather(_shuffled_groups(groups, seed, "limit"), start, take)


def apportion(wanted: Array, total: int, most: Array) -> Array:
    """Whole numbers near `wanted` that add up to `total`, none above `most`: the largest remainders are rounded up.

    Example:
        >>> apportion(np.array([1.5, 0.25, 0.25]), 2, np.array([9, 9, 9])).tolist()
        [2, 0, 0]
    """
    base = np.minimum(np.floor(wanted + 1e-9).astype(np.int64), most)
    while base.sum() < total:
        room = base < most
        order = np.argsort(-np.where(room, wanted - base, -np.inf), kind="stable")
        base[order[: min(int(total - base.sum()), int(room.sum()))]] += 1
    return base


def _shuffled_groups(groups: Array, seed: int, name: str) -> Array:
    shuffled = torch.randperm(len(groups), generator=generator(seed, "data", name)).numpy()
    order: Array = shuffled[np.argsort(groups[shuffled], kind="stable")]
    return order


def _gather(order: Array, start: Array, take: Array) -> Array:
    within = np.arange(int(take.sum())) - np.repeat(np.cumsum(take) - take, take)
    return np.sort(order[np.repeat(start, take) + within])
