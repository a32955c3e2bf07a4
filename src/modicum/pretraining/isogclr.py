"""iSogCLR: contrast with every image of the data, each at its own temperature."""

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

__all__ = ["ISogCLR"]


@dataclass(frozen=True)
class ISogCLR:
    """SogCLR with a temperature a sample that is learned, see `modicum.losses.ISogCLR`.

    It keeps three numbers a sample, by position in the data; nothing about temperatures needs to be tuned. Head and
    augmentations are those of SimCLR, so that they differ in the loss alone.

    Args:
        temperature: Of every sample at the beginning, between `lowest` and `highest`.
        gamma: Weight of the batch in the running estimate.
        rho: Divergence of the softmax over negatives from the uniform one that is aimed at.
        eta: Step of the temperatures; 0 is SogCLR.
        beta: Weight of the newest derivative in its average.
        lowest: Smallest temperature.
        highest: Largest temperature.
        hidden: Width of the projector.
        dimension: Of the embeddings.
        augment: Set of augmentations, see `modicum.data.VIEWS`, or their names.

    Reference:
        Qiu, Hu, Yuan, Zhou, Zhang and Yang, Not All Semantics are Created Equal: Contrastive Self-supervised Learning
        with Automatic Temperature Individualization, 2023, arXiv 2305.11965.
    """

    temperature: float = 0.1
    gamma: float = 0.8
    rho: float = 0.4
    eta: float = 0.03
    beta: float = 0.5
    lowest: float = 0.05
    highest: float = 1.0
    hidden: int = 2048
    dimension: int = 128
    augment: str | tuple[str, ...] = "symmetric"

    card: ClassVar[Card] = Card(
        key="isogclr",
        title="Contrast with all images, each at a temperature it learns",
        paper="Qiu, Hu, Yuan, Zhou, Zhang and Yang, Not All Semantics are Created Equal: Contrastive Self-supervised "
        "Learning with Automatic Temperature Individualization, 2023, arXiv 2305.11965",
        saves=("labels", "memory"),
        tasks=("classification", "regression", "unlabeled"),
        modalities=("image",),
    )
    published: ClassVar[Recipe] = Recipe(
        "resnet18", epochs=400, batch_size=128, lr=0.8, weight_decay=1e-4, warmup=0.025
    )

    def __post_init__(self) -> None:
        positive = ("temperature", "gamma", "beta", "lowest", "highest", "hidden", "dimension")
        check_options(self, positive=positive, not_negative=("rho", "eta"), shares=("gamma", "beta"))

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def learner(self, data: Dataset, backbone: Backbone, plan: Plan) -> Learner:
        """What is trained."""
        head = projector((backbone.width, self.hidden, self.dimension))
        loss = losses.ISogCLR(
            len(data), self.temperature, self.gamma, self.rho, self.eta, self.beta, self.lowest, self.highest, "none"
        )
        return TwoViews(backbone, make_views(self.augment, data), head, loss, indexed=True)
