"""SmallToLarge: a small model's loss curves say which samples are alike; a large one trains on some of each kind."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch

from modicum.arrays import Array, NumPy, back, class_indices, distinct, to_numpy
from modicum.errors import DataError
from modicum.methods import Card
from modicum.options import check_options
from modicum.reading import by_id, recorded
from modicum.scores import Budget, Selection, as_budget

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.traces import Traces

__all__ = ["S2L", "s2l"]

ITERATIONS = 20  # of k-means
SPARE = 2  # clusters of so many samples or fewer are drawn from last


class Chosen(NamedTuple):
    """Positions that were picked, and for every sample the number and the size of its cluster."""

    picks: NumPy
    cluster: NumPy
    size: NumPy


def level(sizes: NumPy, budget: int) -> NumPy:
    """How many are taken of each part: as equal as can be, from the smallest part to the largest.

    Of J parts with n left to take, the j-th smallest gives `floor(n / (J - j))` or all it has. Ties go to the earlier.

    Args:
        sizes: (J,) samples of each part.
        budget: How many in all.

    Example:
        >>> level(np.array([100, 5, 20]), 30).tolist()
        [13, 5, 12]
    """
    given, left = np.zeros(len(sizes), dtype=np.int64), budget
    for rank, part in enumerate(np.argsort(sizes, kind="stable")):
        given[part] = min(int(sizes[part]), left // (len(sizes) - rank))
        left -= int(given[part])
    return given


def s2l(
    trajectories: Array,
    budget: Budget | float | int | str,
    clusters: int = 100,
    groups: Array | None = None,
    *,
    generator: torch.Generator,
) -> Array:
    """Samples of every kind of loss curve, as equally many of each as there are.

    The rows are clustered by k-means (20 iterations, k-means++). From the smallest cluster to the largest, the j-th of J
    gives `floor(left / (J - j))` samples drawn at random, or all it has, so that what a small cluster cannot give
    goes to the larger ones. Clusters of one or two samples are drawn from only if the others do not suffice. With
    groups, the budget is first divided over them by the same rule, and each is clustered by itself.

    Time is that of k-means, 40 n c C operations for C checkpoints and c clusters; memory 8 n (C + 4) bytes.

    Args:
        trajectories: (n, C) loss of every sample at C moments of the training of a small model; NaN counts as 0.
        budget: How much.
        clusters: Of the rows; there are fewer where a group has fewer different rows.
        groups: (n,) number of the source of each sample; all of one source when None.
        generator: A CPU generator.

    Returns:
        (k,) sorted positions.

    Raises:
        BudgetError: More than n, or nothing.
        DataError: A wrong shape, an infinite loss, a moment without any loss, or clusters out of range.

    Example:
        >>> rows = torch.cat([torch.zeros(5, 3), torch.ones(20, 3), torch.full((100, 3), 2.0)])
        >>> kept = s2l(rows, 30, clusters=3, generator=torch.Generator().manual_seed(0))
        >>> torch.bincount(rows[kept, 0].long()).tolist()
        [5, 12, 13]

    Reference:
        Yang, Mishra, Chiang and Mirzasoleiman, SmallToLarge (S2L): Scalable Data Selection for Fine-tuning Large Language
        Models by Summarizing Training Trajectories of Small Models, 2024, arXiv 2403.07384.
    """
    chosen = _chosen(trajectories, as_budget(budget), clusters, groups, generator)
    return back(np.sort(chosen.picks), trajectories, floating=False)


def _chosen(trajectories: Any, budget: Budget, clusters: int, groups: Any, generator: torch.Generator) -> Chosen:
    rows = _checked(trajectories)
    n = len(rows)
    k = budget.count(n)
    if not (isinstance(clusters, int) and 1 <= clusters <= n):
        raise DataError(f"clusters={clusters!r}; expected an integer from 1 to the {n} samples")
    of = (
        np.zeros(n, dtype=np.int64)
        if groups is None
        else np.unique(class_indices("groups", groups, n), return_inverse=True)[1]
    )
    chance = torch.randperm(n, generator=generator).numpy()
    seeds = torch.randint(2**31 - 1, (int(of.max()) + 1,), generator=generator).tolist()
    cluster, size = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    picks = []
    for group, share in enumerate(level(np.bincount(of), k)):
        members = np.flatnonzero(of == group)
        labels = _kmeans(rows[members], clusters, seeds[group])
        sizes = np.bincount(labels)
        cluster[members], size[members] = labels, sizes[labels]
        given = level(np.where(sizes > SPARE, sizes, 0), int(share))
        in_chance = members[np.argsort(chance[members])]
        ordered = in_chance[np.argsort(cluster[in_chance], kind="stable")]
        rank = np.arange(len(members)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        first = rank < given[cluster[ordered]]
        spare = ordered[~first][np.argsort(chance[ordered[~first]])]
        picks += [ordered[first], spare[: int(share) - int(first.sum())]]
    return Chosen(np.concatenate(picks), cluster, size)


def _checked(trajectories: Any) -> NumPy:
    rows = to_numpy("trajectories", trajectories)
    if rows.ndim != 2 or not rows.size:
        raise DataError(f"trajectories has shape {rows.shape}; expected (n, C), a row of C losses for each sample")
    rows = rows.astype(np.float64 if rows.dtype == np.float64 else np.float32)
    missing = np.isnan(rows)
    for name, bad in (("is nan for every sample", missing.all(0)), ("is infinite for a sample", np.isinf(rows).any(0))):
        if bad.any():
            raise DataError(f"trajectories[:, {int(np.argmax(bad))}] {name}; leave that checkpoint out")
    if rows.shape[1] == 1:
        warnings.warn("trajectories has one checkpoint: samples are told apart by one loss only", stacklevel=4)
    return np.where(missing, rows.dtype.type(0), rows) if missing.any() else rows


def _kmeans(rows: NumPy, clusters: int, seed: int) -> NumPy:
    """(n,) numbers of clusters, none of them empty."""
    from sklearn.cluster import KMeans

    different = len(rows) - len(distinct(rows)[0])
    found = KMeans(min(clusters, different), n_init=1, max_iter=ITERATIONS, random_state=seed).fit_predict(rows)
    labels: NumPy = np.unique(found, return_inverse=True)[1].astype(np.int64)
    return labels


@dataclass(frozen=True)
class S2L:
    """Samples of every kind of loss curve of a small model, the sources of a mixture balanced.

    The curve of a sample is its loss in every epoch when it was presented in a minibatch, which costs nothing beyond the
    training of the small model; the paper evaluates checkpoints instead. Train the large model on the kept samples for the
    number of steps that your budget allows: the selection does not shorten it by itself.

    Args:
        clusters: Of the curves.
        model: The small one (see `modicum.measurement.Traces`).
        until: Share of the recipe's schedule that it is trained for.
    """

    clusters: int = 100
    model: str = "small"
    until: float = 1.0

    card: ClassVar[Card] = Card(
        key="s2l",
        title="Some samples of every kind of loss curve of a small model",
        paper="Yang et al., SmallToLarge (S2L): Scalable Data Selection for Fine-tuning Large Language Models by "
        "Summarizing Training Trajectories of Small Models, 2024, arXiv 2403.07384",
        saves=("samples", "compute"),
    )

    def __post_init__(self) -> None:
        check_options(self, positive=("clusters", "until"), shares=("until",))

    def needs(self) -> tuple[Traces]:
        """Traces of a small model on the training samples."""
        from modicum.measurement.traces import Traces

        return (Traces(1, self.until, self.model),)

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection:
        """As `s2l`, in the order of the ids; sources are groups."""
        order = by_id(data.train)
        losses = recorded("loss", measured[0].loss, data.train, epochs=True)
        n, sources = len(order), data.train.sources
        with ctx.ledger.clock("choose", self.card.key, labels=n):
            rows = losses.flatten(0, 1).T[order].numpy()
            groups = None if sources is None else sources[order].numpy()
            count = Budget(keep=budget.count(n, len(np.unique(data.train.labels.numpy()))))
            chosen = _chosen(rows, count, min(self.clusters, n), groups, ctx.generator(self.card.key))
        text = [f"cluster of {size}" for size in range(int(chosen.size.max()) + 1)]
        return Selection.made(order, chosen.picks, reasons=np.array(text, dtype=object)[chosen.size])
