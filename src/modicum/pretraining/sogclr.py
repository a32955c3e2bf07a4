"""SogCLR: contrast with every image of the data, at small batches."""

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

__all__ = ["SogCLR"]


@dataclass(frozen=True)
class SogCLR:
    """Contrast of two views, its normalization estimated over all data, see `modicum.losses.SogCLR`.

    It keeps one number a sample, by position in the data. Head and augmentations are those of SimCLR, so that the two
    differ in the loss alone.

    Args:
        temperature: Of the softmax; larger is smoother.
        gamma: Weight of the batch in the running estimate.
        hidden: Width of the projector.
        dimension: Of the embeddings.
        augment: Set of augmentations, see `modicum.data.VIEWS`, or their names.

    Reference:
        Yuan, Wu, Qiu, Du, Zhang, Zhou and Yang, Provable Stochastic Optimization for Global Contrastive Learning: Small
        Batch Does Not Harm Performance, 2022, arXiv 2202.12387.
    """

    temperature: float = 0.1
    gamma: float = 0.8
    hidden: int = 2048
    dimension: int = 128
    augment: str | tuple[str, ...] = "symmetric"

    card: ClassVar[Card] = Card(
        key="sogclr",
        title="Contrast with all images of the data at small batches",
        paper="Yuan, Wu, Qiu, Du, Zhang, Zhou and Yang, Provable Stochastic Optimization for Global Contrastive "
        "Learning: Small Batch Does Not Harm Performance, 2022, arXiv 2202.12387",
        saves=("labels", "memory"),
        tasks=("classification", "regression", "unlabeled"),
        modalities=("image",),
    )
    published: ClassVar[Recipe] = Recipe(
        "resnet18", epochs=400, batch_size=128, lr=0.8, weight_decay=1e-4, warmup=0.025
    )

    def __post_init__(self) -> None:
        check_options(self, positive=("temperature", "gamma", "hidden", "dimension"), shares=("gamma",))

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def learner(self, data: Dataset, backbone: Backbone, plan: Plan) -> Learner:
        """What is trained."""
        head = projector((backbone.width, self.hidden, self.dimension))
        loss = losses.SogCLR(len(data), self.temperature, self.gamma, reduction="none")
        return TwoViews(backbone, make_views(self.augment, data), head, loss, indexed=True)
