"""BYOL: predict what a slow copy of the network makes of another view; nothing is pushed apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modicum.data.views import Views, make_views
from modicum.dataset import Dataset
from modicum.losses.negative_cosine import NegativeCosine
from modicum.methods import Card
from modicum.options import check_options
from modicum.pretraining.heads import projector
from modicum.pretraining.learner import Backbone, Learner, Plan
from modicum.pretraining.teacher import Teacher, cosine_momentum
from modicum.training.recipe import Recipe

__all__ = ["BYOL"]


class _Learner(Learner):
    step: Tensor

    def __init__(self, backbone: Backbone, views: Views, method: BYOL, steps: int) -> None:
        super().__init__(backbone, views)
        self.head = projector((backbone.width, method.hidden, method.dimension))
        self.predictor = projector((method.dimension, method.hidden, method.dimension))
        self.teacher = Teacher(nn.Sequential(backbone, self.head))
        self.loss = NegativeCosine(reduction="none")
        self.momentum, self.final, self.steps = method.momentum, method.final_momentum, steps
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.views(inputs, 2)
        z_a, z_b = self.head(self.backbone(a)), self.head(self.backbone(b))  # BatchNorm: statistics of each view
        ab, ba = self.loss(self.predictor(z_a), self.teacher(b)), self.loss(self.predictor(z_b), self.teacher(a))
        return 4 + 2 * (ab + ba), z_a

    def after(self) -> None:
        """The slow copy follows."""
        share = cosine_momentum(0.0, int(self.step), self.steps)
        momentum = self.momentum if self.final is None else self.momentum + (self.final - self.momentum) * share
        self.teacher.update(nn.Sequential(self.backbone, self.head), momentum)
        self.step += 1


@dataclass(frozen=True)
class BYOL:
    """A prediction of what a slow copy of the network makes of the other view.

    With p = predictor(head(f(x_a))) and the copy's embedding z of x_b, through which no gradient flows, the loss is
    2 - 2 cos(p, z) plus the same with the views exchanged, in [0, 8]. After each update of the weights the copy follows,
    t <- m t + (1 - m) s, with m from `momentum` to `final_momentum` by half a cosine. Each view passes the network on its
    own, so that BatchNorm sees one view at a time.

    Nothing pushes images apart; what keeps all embeddings from becoming equal is the predictor. Four forward passes and
    two backward passes a step, and the memory of two networks.

    Args:
        momentum: m, the share of the slow copy that stays in each step.
        final_momentum: m at the end of the run; None keeps it constant.
        hidden: Width of the projector and of the predictor.
        dimension: Of the embeddings.
        augment: Set of augmentations, see `modicum.data.VIEWS`, or their names.

    Raises:
        ModicumError: An option makes no sense.

    Reference:
        Grill et al., Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning, 2020, arXiv 2006.07733.
    """

    momentum: float = 0.99
    final_momentum: float | None = 1.0
    hidden: int = 4096
    dimension: int = 256
    augment: str | tuple[str, ...] = "asymmetric"

    card: ClassVar[Card] = Card(
        key="byol",
        title="Predict what a slow copy of the network makes of another view",
        paper="Grill et al., Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning, 2020, "
        "arXiv 2006.07733",
        saves=("labels",),
        tasks=("classification", "regression", "unlabeled"),
        modalities=("image",),
    )
    published: ClassVar[Recipe] = Recipe(
        "resnet18", epochs=1000, batch_size=256, optimizer="lars", lr=1.0, weight_decay=1e-5, warmup=0.01
    )

    def __post_init__(self) -> None:
        shares = ("momentum",) if self.final_momentum is None else ("momentum", "final_momentum")
        check_options(self, positive=("hidden", "dimension"), shares=shares)

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def learner(self, data: Dataset, backbone: Backbone, plan: Plan) -> Learner:
        """What is trained."""
        return _Learner(backbone, make_views(self.augment, data), self, plan.steps)
