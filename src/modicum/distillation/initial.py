"""Where trajectory matching starts: real samples that trained experts know, and what they say of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modicum.errors import DataError, ModicumError

if TYPE_CHECKING:
    from modicum.distillation.trajectory import TrajectoryMatching

__all__ = ["averaged_logits", "expert_logits", "known_samples", "representative_samples"]

BLOCK = 512  # real samples in one forward pass


def known_samples(order: Tensor, labels: Tensor, counts: Tensor, correct: Iterable[Tensor]) -> Tensor:
    """Samples that an expert classifies right: of the first expert while there are enough, then of the next.

    Args:
        order: (n,) all positions, class after class, in random order within a class.
        labels: (n,) class indices by position.
        counts: (c,) how many samples of each class.
        correct: (n,) booleans by position, one tensor an expert; an expert is asked for only when it is needed.

    Returns:
        (m,) positions, class after class. A class that the experts do not know well enough is filled with others of its
        samples in order, and one with fewer samples than asked for gives them again.

    Raises:
        DataError: Shapes do not fit, or a class has no samples.

    Example:
        >>> right = [torch.tensor([False, True, False, True]), torch.tensor([True, True, True, True])]
        >>> known_samples(torch.arange(4), torch.tensor([0, 0, 1, 1]), torch.tensor([1, 2]), right).tolist()
        [1, 3, 2]

    Reference:
        Guo et al., Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching, 2024,
        arXiv 2310.05773.
    """
    n, classes = len(labels), len(counts)
    if labels.ndim != 1 or order.shape != labels.shape:
        raise DataError(f"order is {tuple(order.shape)} and labels {tuple(labels.shape)}; expected (n,) both")
    sizes = torch.bincount(labels, minlength=classes)
    if len(sizes) > classes or not bool(sizes.all()):
        raise DataError(f"labels hold {sizes.tolist()} samples of their classes; expected some of each of {classes}")
    # the first expert that knows a sample ranks it; those that none knows come last
    rank, found, experts = torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.bool), 0
    for right in correct:
        if right.shape != labels.shape:
            raise DataError(f"correct of expert {experts} is {tuple(right.shape)}; expected ({n},)")
        found |= right.cpu()
        rank += (~found).long()
        experts += 1
        if bool((torch.bincount(labels[found], minlength=classes) >= counts.clamp(max=sizes)).all()):
            break
    place = torch.empty(n, dtype=torch.long)
    place[order] = torch.arange(n)
    sorted_ = ((labels * (experts + 1) + rank) * n + place).argsort()
    first = sizes.cumsum(0) - sizes
    ranks = torch.cat([torch.arange(k) for k in counts.tolist()])
    own = torch.arange(classes).repeat_interleave(counts)
    return sorted_[first[own] + ranks % sizes[own]]


def averaged_logits(logits: Iterable[Tensor], labels: Tensor) -> Tensor:
    """The mean logits over the experts that classify a sample right.

    `z_j = sum_e 1[argmax z_j^e = y_j] z_j^e / sum_e 1[argmax z_j^e = y_j]`; the mean over all experts where none is right.

    Args:
        logits: (m, c) of each expert; one at a time is held in memory.
        labels: (m,) class indices.

    Returns:
        (m, c) logits.

    Raises:
        DataError: There are no experts, or shapes do not fit.

    Example:
        >>> told = [torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 0.0]])]
        >>> averaged_logits(told, torch.tensor([0])).tolist()
        [[3.0, 0.0]]

    Reference:
        Guo et al., Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching, 2024,
        arXiv 2310.05773.
    """
    every: Tensor | None = None
    for e, told in enumerate(logits):
        if told.ndim != 2 or len(told) != len(labels):
            raise DataError(f"logits of expert {e} are {tuple(told.shape)}; expected ({len(labels)}, c)")
        if every is None:
            every, right = torch.zeros_like(told), torch.zeros_like(told)
            times = torch.zeros(len(labels), 1, dtype=told.dtype, device=told.device)
        knows = (told.argmax(1) == labels.to(told.device))[:, None].to(told.dtype)
        every, right, times = every + told, right + knows * told, times + knows
    if every is None:
        raise DataError("logits of 0 experts were given; expected at least one")
    return torch.where(times > 0, right / times.clamp(min=1), every / (e + 1))


def representative_samples(points: Tensor, labels: Tensor, counts: Tensor, seed: int, clusters: int = 10) -> Tensor:
    """The samples nearest to the centers of the clusters of each class.

    k-means of the points of a class with `k = min(clusters, count)`; of every center in turn the nearest samples, by
    squared distance, that no center before has taken: `count / k` of each, the larger clusters one more where that is not
    an integer.

    Args:
        points: (n, d), such as the logits of an expert.
        labels: (n,) class indices.
        counts: (c,) how many samples of each class.
        seed: Of k-means.
        clusters: The most clusters of a class.

    Returns:
        (m,) positions, class after class. A class with fewer samples than asked for gives them again.

    Raises:
        DataError: Shapes do not fit, or a class has no samples.
        ModicumError: There are no clusters.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0]])
        >>> sorted(representative_samples(points, torch.zeros(6).long(), torch.tensor([2]), 0).tolist())
        [1, 4]

    Reference:
        Shen, Yang and Lam, AST: Effective Dataset Distillation through Alignment with Smooth and High-Quality Expert
        Trajectories, 2023, arXiv 2310.10541; Liu et al., DREAM, 2023, arXiv 2302.14416.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if points.ndim != 2 or labels.shape != points.shape[:1]:
        raise DataError(f"points are {tuple(points.shape)} and labels {tuple(labels.shape)}; expected (n, d) and (n,)")
    if clusters < 1:
        raise ModicumError(f"clusters={clusters!r}; expected an integer >= 1")
    chosen = []
    for c, count in enumerate(counts.tolist()):
        own = (labels == c).nonzero()[:, 0]
        if not len(own):
            raise DataError(f"labels hold no sample of class {c}")
        rows = points[own].double().cpu()
        wanted = min(count, len(own))
        k = min(clusters, wanted)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # samples that are the same make fewer clusters
            fitted = KMeans(k, n_init=4, random_state=seed).fit(rows.numpy())
        centers = torch.from_numpy(fitted.cluster_centers_)
        sizes = torch.bincount(torch.from_numpy(fitted.labels_).long(), minlength=k)
        share = torch.full((k,), wanted // k)
        share[sizes.argsort(descending=True, stable=True)[: wanted % k]] += 1
        distance = torch.cdist(rows, centers, compute_mode="donot_use_mm_for_euclid_dist")
        taken = []
        for center, size in enumerate(share.tolist()):
            nearest = distance[:, center].argsort(stable=True)[:size]
            distance[nearest] = torch.inf
            taken.append(nearest)
        picked = torch.cat(taken)
        chosen.append(own[picked[torch.arange(count) % wanted]])
    return torch.cat(chosen)


def expert_logits(run: TrajectoryMatching, expert: int, rows: Tensor) -> Tensor:
    """What an expert says of samples after its last epoch.

    Args:
        run: Gives the experts, the network and the real samples; the passes are charged to it.
        expert: Its number.
        rows: (k,) positions of real samples in the order of ids, or (k, *shape) standardized inputs.

    Returns:
        (k, c) logits on the CPU; memory is that of one block of samples.
    """
    theta = run.experts.at(expert, run.experts.epochs, run.device)
    told = []
    for part in torch.split(rows, BLOCK):
        x = part.to(run.device) if rows.is_floating_point() else run.real(part)
        with torch.no_grad(), run.flops.forward(f"expert {len(part)}"):
            told.append(run.call(theta, x).cpu())
        run.flops.charge(f"expert {len(part)}")
    run.samples += len(rows)
    return torch.cat(told)
