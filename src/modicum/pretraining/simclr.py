"""SimCLR: two views of an image must be alike, and unlike all others of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from modicum.data.views import Views, make_views
from modicum.dataset import Dataset
from modicum.losses import NTXent
from modicum.methods import Card
from modicum.options import check_options
from modicum.pretraining.heads import projector
from modicum.pretraining.learner import Backbone, Learner, Plan
from modicum.training.recipe import Recipe

__all__ = ["SimCLR"]


class _Learner(Learner):
    def __init__(self, backbone: Backbone, views: Views, hidden: int, dimension: int, temperature: float) -> None:
        super().__init__(backbone, views)
        self.head = projector((backbone.width, hidden, dimension))
        self.loss = NTXent(temperature, reduction="none")

    def forward(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        z: Tensor = self.head(self.backbone(torch.cat(self.views(inputs, 2))))
        a, b = z.chunk(2)
        losses: Tensor = self.loss(a, b)
        return losses, a


@dataclass(frozen=True)
class SimCLR:
    """Contrast of two views within the batch.

    The loss of a batch of b images is NT-Xent over its 2b embeddings; both views pass the network together.

    Args:
        temperature: Of the softmax; larger is smoother.
        hidden: Width of the projector.
        dimension: Of the embeddings.
        augment: Set of augmentations, see `modicum.data.VIEWS`, or their names.

    Raises:
        ModicumError: An option makes no sense.

    Reference:
        Chen, Kornblith, Norouzi and Hinton, A Simple Framework for Contrastive Learning of Visual Representations,
        2020, arXiv 2002.05709.
    """

    temperature: float = 0.5
    hidden: int = 2048
    dimension: int = 128
    augment: str | tuple[str, ...] = "symmetric"

    card: ClassVar[Card] = Card(
        key="simclr",
        title="Two views of an image against the rest of the batch",
        paper="Chen, Kornblith, Norouzi and Hinton, A Simple Framework for Contrastive Learning of Visual "
        "Representations, 2020, arXiv 2002.05709",
        saves=("labels",),
        tasks=("classification", "regression", "unlabeled"),
        modalities=("image",),
    )
    published: ClassVar[Recipe] = Recipe("resnet18", epochs=1000, batch_size=256, lr=0.4, weight_decay=1e-4)

    def __post_init__(self) -> None:
        check_options(self, positive=("temperature", "hidden", "dimension"))

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def learner(self, data: Dataset, backbone: Backbone, plan: Plan) -> Learner:
        """What is trained."""
        return _Learner(backbone, make_views(self.augment, data), self.hidden, self.dimension, self.temperature)
