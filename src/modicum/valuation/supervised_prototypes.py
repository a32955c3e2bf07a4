"""Supervised prototypes: how far a sample is from the mean of its class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from modicum.arrays import Array, NumPy, back, class_indices, features, unit_rows
from modicum.methods import Card
from modicum.reading import by_id, labels_of, rows_of
from modicum.scores import Scores

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import Features

__all__ = ["SupervisedPrototypes", "supervised_prototypes"]


def supervised_prototypes(embeddings: Array, targets: Array) -> Array:
    """The cosine distance of each sample to the prototype of its class.

    `1 - <z_i, mu> / (||z_i|| ||mu||)` with `mu` the direction of the sum of the directions of the samples of the class:
    the metric of self-supervised prototypes with classes in place of clusters. A class whose directions cancel has no
    prototype, and its samples have distance 1. Time is 4 n d operations, memory that of the embeddings.

    Args:
        embeddings: (n, d); no row all zero. Their lengths do not matter.
        targets: (n,) class indices.

    Returns:
        (n,) difficulties from 0 (prototypical) to 2.

    Raises:
        DataError: Another shape, not finite, a row all zero, or labels that are no class indices.

    Example:
        >>> z = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
        >>> supervised_prototypes(z, np.array([0, 0, 1, 1])).tolist()
        [0.0, 0.0, 0.0, 0.0]

    Reference:
        Sorscher et al., Beyond neural scaling laws: beating power law scaling via data pruning, 2022, arXiv 2206.14486.
    """
    rows = features("embeddings", embeddings)
    return back(_distances(unit_rows("embeddings", rows), class_indices("targets", targets, len(rows))), embeddings)


def _distances(directions: NumPy, labels: NumPy) -> NumPy:
    sums = torch.zeros(int(labels.max()) + 1, directions.shape[1], dtype=torch.float64)
    at = torch.from_numpy(labels)
    sums.index_add_(0, at, torch.from_numpy(directions).double())
    lengths = sums.norm(dim=1, keepdim=True)
    least = 1e-9 * torch.bincount(at)[:, None]  # below this a sum is the rounding of directions that cancel
    prototypes = torch.where(lengths > least, sums / lengths.clamp_min(1e-30), 0.0).numpy().astype(directions.dtype)
    cosines = np.einsum("ij,ij->i", directions, prototypes[labels], dtype=np.float64)
    distances: NumPy = np.clip(1 - cosines, 0, 2)
    return distances


@dataclass(frozen=True)
class SupervisedPrototypes:
    """Hard samples are far from the mean of their class.

    Args:
        encoder: Whose features (see `modicum.measurement.Features`).
    """

    encoder: str = "inputs"

    card: ClassVar[Card] = Card(
        key="supervised-prototypes",
        title="Distance to the mean of the class",
        paper="Sorscher et al., Beyond neural scaling laws: beating power law scaling via data pruning, 2022, "
        "arXiv 2206.14486",
        saves=("samples", "compute"),
    )

    def needs(self) -> tuple[Features]:
        """Features of the training samples."""
        from modicum.measurement.features import Features

        return (Features(self.encoder),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Cosine distances, in the order of the ids; charged with 4 n d operations."""
        labels = labels_of("train", data.train, classes=2)
        rows = rows_of("train features", measured[0].train, data.train)
        order = by_id(data.train).numpy()
        with ctx.ledger.clock("choose", self.card.key, extra_flops=4 * rows.numel()):
            plain = features("train features", rows[order])
            values = np.ones(len(rows))  # a sample whose features are all zero, such as unknown words, has no direction
            some = plain.any(axis=1)
            if some.any():
                directions = unit_rows("train features", plain[some])
                values[order[some]] = _distances(directions, labels.numpy()[order[some]])
        return Scores(values, data.train.ids, self.card.key, "difficulty", "cosine distance", labels.numpy())
