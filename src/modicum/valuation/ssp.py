"""Self-supervised prototypes: how far a sample is from the center of its own cluster."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from modicum.arrays import BLOCK, Array, NumPy, back, features, unit_rows
from modicum.errors import DataError
from modicum.methods import Card
from modicum.reading import by_id, labels_of, rows_of
from modicum.scores import Scores

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import Features

__all__ = ["Ssp", "ssp"]

LARGE = 100_000  # samples above which clusters start from minibatches


def ssp(embeddings: Array, clusters: int, seed: int = 0) -> Array:
    """The cosine distance of each sample to the prototype of its own cluster.

    `1 - <z_i, mu> / (||z_i|| ||mu||)` with the prototypes `mu` of spherical k-means: each sample belongs to the prototype
    of the largest cosine, each prototype is the direction of the sum of its samples' directions.

    Time is `n clusters d` an iteration, memory that of the embeddings and 32 MB.

    Args:
        embeddings: (n, d), of a self-supervised encoder; no row all zero. Their lengths do not matter.
        clusters: Number of prototypes, at most n; the number of classes is a good one.
        seed: Of the initial prototypes.

    Returns:
        (n,) difficulties from 0 (prototypical) to 2.

    Raises:
        DataError: Another shape, not finite, a row all zero, or clusters outside 1..n.

    Example:
        >>> z = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
        >>> bool(np.allclose(ssp(z, clusters=2), 0))
        True

    Reference:
        Sorscher et al., Beyond neural scaling laws: beating power law scaling via data pruning, 2022, arXiv 2206.14486.
    """
    distances, _ = _distances(features("embeddings", embeddings), clusters, seed)
    return back(distances, embeddings)


def _distances(embeddings: NumPy, clusters: int, seed: int) -> tuple[NumPy, int]:
    """The distances, and how many times every sample was compared with every prototype."""
    directions = unit_rows("embeddings", embeddings)
    n = len(directions)
    if isinstance(clusters, bool) or not isinstance(clusters, (int, np.integer)) or not 1 <= clusters <= n:
        raise DataError(f"clusters={clusters!r}; expected an integer from 1 to the number of samples, {n}")
    prototypes, passes = _initial(directions, int(clusters), seed)
    own, cosine = _nearest(directions, prototypes)
    for _ in range(100):
        prototypes = _directions_of_sums(directions, own, prototypes)
        before = own
        own, cosine = _nearest(directions, prototypes)
        passes += 1
        empty = np.setdiff1d(np.arange(clusters), own)
        if len(empty):
            far = np.argsort(cosine, kind="stable")[: len(empty)]
            prototypes[empty] = directions[far]
            own, cosine = _nearest(directions, prototypes)
        elif np.array_equal(own, before):
            break
    return np.clip(1 - cosine, 0, 2), passes + 1


def _initial(directions: NumPy, clusters: int, seed: int) -> tuple[NumPy, int]:
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    large = len(directions) > LARGE
    if large:
        found = MiniBatchKMeans(clusters, n_init=3, batch_size=max(4096, 8 * clusters), random_state=seed)
    else:
        found = KMeans(clusters, n_init=10, max_iter=100, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct samples than clusters: re-seeded later
        centers = found.fit(directions).cluster_centers_
    passes = int(found.n_iter_) * (1 if large else 10)  # restarts counted as long as the best of them
    lengths = np.linalg.norm(centers, axis=1, keepdims=True)
    start: NumPy = np.where(lengths > 0, centers / np.maximum(lengths, 1e-30), directions[:clusters])
    return start.astype(directions.dtype), passes


def _nearest(directions: NumPy, prototypes: NumPy) -> tuple[NumPy, NumPy]:
    own, cosine = np.empty(len(directions), dtype=np.int64), np.empty(len(directions), dtype=directions.dtype)
    rows = max(1, BLOCK // len(prototypes))
    for start in range(0, len(directions), rows):
        part = slice(start, start + rows)
        cosines = directions[part] @ prototypes.T
        own[part] = cosines.argmax(1)
        cosine[part] = cosines[np.arange(len(cosines)), own[part]]
    return own, cosine


def _directions_of_sums(directions: NumPy, own: NumPy, before: NumPy) -> NumPy:
    sums = torch.zeros(before.shape, dtype=torch.float64)
    sums.index_add_(0, torch.from_numpy(own), torch.from_numpy(directions).double())
    lengths = sums.norm(dim=1, keepdim=True).numpy()
    after: NumPy = np.where(lengths > 0, sums.numpy() / np.maximum(lengths, 1e-30), before)
    return after.astype(before.dtype)


@dataclass(frozen=True)
class Ssp:
    """Hard samples are far from every prototype; no label is read except to count classes.

    Args:
        clusters: Number of prototypes; the number of classes when None.
        encoder: Whose features (see `modicum.measurement.Features`).
    """

    clusters: int | None = None
    encoder: str = "inputs"

    card: ClassVar[Card] = Card(
        key="ssp",
        title="Distance to self-supervised prototypes",
        paper="Sorscher et al., Beyond neural scaling laws: beating power law scaling via data pruning, 2022, "
        "arXiv 2206.14486",
        saves=("samples", "labels", "compute"),
    )

    def needs(self) -> tuple[Features]:
        """Features of the training samples."""
        from modicum.measurement.features import Features

        return (Features(self.encoder),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Cosine distances; charged with 2 clusters d operations a sample for every pass of k-means."""
        labels = labels_of("train", data.train, classes=2)
        rows = rows_of("train features", measured[0].train, data.train)
        order = by_id(data.train)
        clusters = self.clusters or len(np.unique(labels))
        seed = int(torch.randint(2**31, (1,), generator=ctx.generator(self.card.key)))
        with ctx.ledger.clock("choose", self.card.key) as counts:
            values = np.empty(len(rows))
            plain = features("train features", rows[order])
            values[:] = 1.0  # a sample whose features are all zero, such as a text of unknown words, has no direction
            some = plain.any(axis=1)
            values[order.numpy()[some]], passes = _distances(plain[some], clusters, seed)
            counts["extra_flops"] = 2 * rows.numel() * clusters * passes
        return Scores(values, data.train.ids, self.card.key, "difficulty", "cosine distance", labels.numpy())
