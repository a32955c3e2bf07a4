"""Training with labels as a learner, so that better targets can come before them."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from modicum.data.views import Views, make_views
from modicum.dataset import Dataset
from modicum.errors import DataError
from modicum.pretraining.learner import Backbone, Learner, Plan

__all__ = ["Supervised"]


class _Learner(Learner):
    def __init__(self, backbone: Backbone, views: Views | None, outputs: int, regression: bool) -> None:
        super().__init__(backbone, views)
        self.head, self.regression = nn.Linear(backbone.width, outputs), regression

    def forward(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        (view,) = self.views(inputs, 1)
        outputs: Tensor = self.head(self.backbone(view))
        if self.regression:
            errors = F.mse_loss(outputs.reshape(targets.shape), targets, reduction="none")
            return errors.reshape(len(targets), -1).mean(1), outputs
        return F.cross_entropy(outputs, targets, reduction="none"), outputs


@dataclass(frozen=True)
class Supervised:
    """The labels themselves, through one linear layer: cross-entropy, or squared error for regression.

    Args:
        augment: Set of augmentations, see `modicum.data.VIEWS`, or their names.
    """

    augment: str | tuple[str, ...] = "weak"

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def learner(self, data: Dataset, backbone: Backbone, plan: Plan) -> Learner:
        """What is trained."""
        if data.targets is None or data.info.task == "unlabeled":
            raise DataError("base 'supervised' reads labels, but the data have none; use a base that learns without")
        views = make_views(self.augment, data) if data.info.modality == "image" else None
        regression = data.info.task == "regression"
        outputs = data.targets[0].numel() if regression else data.classes
        return _Learner(backbone, views, outputs, regression)
