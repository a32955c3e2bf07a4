"""VICReg: views are near, and the dimensions of an embedding spread and uncorrelated."""

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

__all__ = ["VICReg"]


@dataclass(frozen=True)
class VICReg:
    """Invariance of two views, with a floor under each dimension's spread, see `modicum.losses.VICReg`.

    Embeddings are not normalized, and the two views share nothing but the first term.

    Args:
        invariance: Coefficient of the distance of the views.
        variance: Of standard deviations below 1.
        covariance: Of covariances between dimensions.
        hidden: Width of the two hidden layers of the projector.
        dimension: Of the embeddings.
        augment: Set of augmentations, see `modicum.data.VIEWS`, or their names.

    Reference:
        Bardes, Ponce and LeCun, VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning,
        2022, arXiv 2105.04906.
    """

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    hidden: int = 2048
    dimension: int = 2048
    augment: str | tuple[str, ...] = "vicreg"

    card: ClassVar[Card] = Card(
        key="vicreg",
        title="Near views, spread and uncorrelated dimensions",
        paper="Bardes, Ponce and LeCun, VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised "
        "Learning, 2022, arXiv 2105.04906",
        saves=("labels",),
        tasks=("classification", "regression", "unlabeled"),
        modalities=("image",),
    )
    published: ClassVar[Recipe] = Recipe(
        "resnet18", epochs=1000, batch_size=256, optimizer="lars", lr=0.3, weight_decay=1e-4, warmup=0.01
    )

    def __post_init__(self) -> None:
        check_options(self, positive=("hidden", "dimension"), not_negative=("invariance", "variance", "covariance"))

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def learner(self, data: Dataset, backbone: Backbone, plan: Plan) -> Learner:
        """What is trained."""
        head = projector((backbone.width, self.hidden, self.hidden, self.dimension), last_bias=False)
        loss = losses.VICReg(self.invariance, self.variance, self.covariance)
        return TwoViews(backbone, make_views(self.augment, data), head, loss)
