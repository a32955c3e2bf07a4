"""SimSiam: predict one view's embedding from the other's, with one network and no negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from modicum.data.views import Views, make_views
from modicum.dataset import Dataset
from modicum.losses.negative_cosine import NegativeCosine
from modicum.methods import Card
from modicum.options import check_options
from modicum.pretraining.heads import projector
from modicum.pretraining.learner import Backbone, Learner, Plan
from modicum.training.recipe import Recipe

__all__ = ["SimSiam"]


class _Learner(Learner):
    def __init__(self, backbone: Backbone, views: Views, method: SimSiam) -> None:
        super().__init__(backbone, views)
        sizes = (backbone.width, *[method.hidden] * (method.layers - 1), method.dimension)
        self.head = projector(sizes, last_norm=True, last_bias=False)
        self.predictor = projector((method.dimension, method.bottleneck, method.dimension))
        self.loss = NegativeCosine(reduction="none")

    def forward(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.views(inputs, 2)
        z_a, z_b = self.head(self.backbone(a)), self.head(self.backbone(b))  # BatchNorm: statistics of each view
        losses: Tensor = (self.loss(self.predictor(z_a), z_b) + self.loss(self.predictor(z_b), z_a)) / 2
        return losses, z_a


@dataclass(frozen=True)
class SimSiam:
    """A prediction of the other view's embedding, through which no gradient flows.

    With z = head(f(x)) and p = predictor(z) the loss is -cos(p_a, sg(z_b)) / 2 - cos(p_b, sg(z_a)) / 2, in [-1, 1]. The
    output of the head is batch-normalized without scale and shift. Each view passes the network on its own, so that
    BatchNorm sees one view at a time. One network, two passes a step: no copy, no queue, small batches do.

    The paper keeps the learning rate of the predictor constant; here it follows the schedule of the rest, as one recipe
    has one schedule. On CIFAR-10 the paper's projector has 2 layers.

    Args:
        hidden: Width of the projector.
        dimension: Of the embeddings.
        bottleneck: Width of the predictor.
        layers: Linear layers of the projector.
        augment: Set of augmentations, see `modicum.data.VIEWS`, or their names.

    Raises:
        ModicumError: An option makes no sense.

    Reference:
        Chen and He, Exploring Simple Siamese Representation Learning, 2020, arXiv 2011.10566.
    """

    hidden: int = 2048
    dimension: int = 2048
    bottleneck: int = 512
    layers: int = 3
    augment: str | tuple[str, ...] = "weak"

    card: ClassVar[Card] = Card(
        key="simsiam",
        title="Predict one view from the other, with one network and no negatives",
        paper="Chen and He, Exploring Simple Siamese Representation Learning, 2020, arXiv 2011.10566",
        saves=("labels", "memory"),
        tasks=("classification", "regression", "unlabeled"),
        modalities=("image",),
    )
    published: ClassVar[Recipe] = Recipe("resnet18", epochs=800, batch_size=512, lr=0.06, weight_decay=5e-4)

    def __post_init__(self) -> None:
        check_options(self, positive=("hidden", "dimension", "bottleneck", "layers"))

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def learner(self, data: Dataset, backbone: Backbone, plan: Plan) -> Learner:
        """What is trained."""
        return _Learner(backbone, make_views(self.augment, data), self)
