"""Barlow Twins: two views correlate dimension by dimension, and no two dimensions say the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from modicum import losses
from modicum.data.views import make_views
from modicum.dataset import Dataset
from modicum.methods import Card
from modicum.options import check_options
from modicum.pretraining.heads import projector
from modicum.pretraining.learner import Backbone, Learner, Plan
from modicum.pretraining.two_views import TwoViews
from modicum.training.recipe import Recipe

__all__ = ["BarlowTwins"]


@dataclass(frozen=True)
class BarlowTwins:
    """The cross-correlation of two views against the identity, see `modicum.losses.BarlowTwins`.

    Nothing tells images apart, so it works with small batches, and the embedding may be wide.

    Args:
        weight: Of the correlations between different dimensions.
        scale: Of the whole loss.
        hidden: Width of the two hidden layers of the projector.
        dimension: Of the embeddings.
        augment: Set of augmentations, see `modicum.data.VIEWS`, or their names.

    Reference:
        Zbontar, Jing, Misra, LeCun and Deny, Barlow Twins: Self-Supervised Learning via Redundancy Reduction, 2021,
        arXiv 2103.03230.
    """

    weight: float = 0.0051
    scale: float = 0.1
    hidden: int = 2048
    dimension: int = 2048
    augment: str | tuple[str, ...] = "asymmetric"

    card: ClassVar[Card] = Card(
        key="barlow-twins",
        title="Views correlate dimension by dimension, dimensions with no other",
        paper="Zbontar, Jing, Misra, LeCun and Deny, Barlow Twins: Self-Supervised Learning via Redundancy Reduction, "
        "2021, arXiv 2103.03230",
        saves=("labels",),
        tasks=("classification", "regression", "unlabeled"),
        modalities=("image",),
    )
    published: ClassVar[Recipe] = Recipe(
        "resnet18", epochs=1000, batch_size=256, optimizer="lars", lr=0.3, weight_decay=1e-4, warmup=0.01
    )

    def __post_init__(self) -> None:
        check_options(self, positive=("scale", "hidden", "dimension"), not_negative=("weight",))

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def learner(self, data: Dataset, backbone: Backbone, plan: Plan) -> Learner:
        """What is trained."""
        head = projector((backbone.width, self.hidden, self.hidden, self.dimension))
        loss = losses.BarlowTwins(self.weight)
        return TwoViews(backbone, make_views(self.augment, data), head, loss, scale=self.scale)
