"""MoCo v2: a query must find its key, made by a slow copy of the network, among the keys of earlier batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.data.views import Views, make_views
from modicum.dataset import Dataset
from modicum.losses.info_nce import InfoNCE
from modicum.methods import Card
from modicum.options import check_options
from modicum.pretraining.heads import projector
from modicum.pretraining.learner import Backbone, Learner, Plan
from modicum.pretraining.teacher import Teacher, cosine_momentum
from modicum.training.recipe import Recipe

__all__ = ["MoCoV2"]

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)  # what normalizes over the batch


class _Learner(Learner):
    queue: Tensor
    at: Tensor
    step: Tensor

    def __init__(self, backbone: Backbone, views: Views, method: MoCoV2, size: int, steps: int) -> None:
        super().__init__(backbone, views)
        self.head = projector((backbone.width, method.hidden, method.dimension), norm=False)
        self.teacher = Teacher(nn.Sequential(backbone, self.head))
        self.loss = InfoNCE(method.temperature, reduction="none")
        self.method, self.steps = method, steps
        normed = any(isinstance(layer, NORMS) for layer in backbone.modules())
        self.splits = method.splits if normed else 1
        start = torch.randn(size, method.dimension, generator=self.draw)
        self.register_buffer("queue", F.normalize(start, dim=1))
        self.register_buffer("at", torch.zeros((), dtype=torch.int64))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.made: list[Tensor] = []

    def forward(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.views(inputs, 2)
        queries, keys = self.head(self.backbone(a)), self._keys(b)
        losses: Tensor = self.loss(queries, keys, self.queue)
        self.made = [keys]
        if self.method.symmetric:
            keys = self._keys(a)
            losses = (losses + self.loss(self.head(self.backbone(b)), keys, self.queue)) / 2
            self.made.append(keys)
        return losses, queries

    def _keys(self, x: Tensor) -> Tensor:
        """(b, d) unit vectors; where layers look at the whole batch, from random parts of it, each on its own."""
        if self.splits == 1:
            return F.normalize(self.teacher(x).float(), dim=1, eps=1e-12)
        order = torch.randperm(len(x), generator=self.draw).to(x.device)
        parts = max(1, min(self.splits, len(x) // 2))
        made = torch.cat([self.teacher(part) for part in x[order].tensor_split(parts)])
        return F.normalize(made[order.argsort()].float(), dim=1, eps=1e-12)

    @torch.no_grad()
    def after(self) -> None:
        """The slow copy follows, and the keys of this step replace the oldest."""
        base, final = self.method.momentum, self.method.final_momentum
        share = cosine_momentum(0.0, int(self.step), self.steps)
        momentum = base if final is None else base + (final - base) * share
        self.teacher.update(nn.Sequential(self.backbone, self.head), momentum)
        self.step += 1
        size = len(self.queue)
        if size and self.made:
            keys = torch.cat(self.made)[-size:]
            places = (self.at + torch.arange(len(keys), device=keys.device)) % size
            self.queue[places] = keys
            self.at.add_(len(keys)).remainder_(size)
        self.made = []


@dataclass(frozen=True)
class MoCoV2:
    """Contrast with a queue of keys of earlier batches, made by a slow copy of the network.

    The query is one view through the network, its key the other one through the copy, the wrong keys are the last
    `queue` keys; the loss is InfoNCE. After each update of the weights the copy follows, t <- m t + (1 - m) s, which is
    before the next keys are made, and the keys of the step enter the queue. The queue begins with random directions.

    The loss could be cheated where layers normalize over the batch: the keys of a batch then share its statistics, which
    older keys do not. So the keys of backbones with BatchNorm are made in `splits` random parts of the batch, each with
    statistics of its own; the default backbone normalizes within an image, where there is nothing to cheat with.

    At most half as many keys are remembered as there are samples: in a longer queue an image is mostly compared with
    older keys of itself. Defaults are those of CIFAR-10; on ImageNet the paper has a queue of 65,536 and momentum 0.999.
    Memory beside that of the network: its copy, and queue x dimension numbers.

    Args:
        temperature: Of the softmax; larger is smoother.
        queue: Keys that are remembered; 0 compares with the other keys of the batch.
        momentum: m, the share of the slow copy that stays in each step.
        final_momentum: m at the end of the run, reached by half a cosine; None keeps it constant.
        hidden: Width of the projector.
        dimension: Of the embeddings.
        symmetric: Whether both views are queries, at twice the cost of a step.
        splits: Parts in which keys are made where the backbone has BatchNorm.
        augment: Set of augmentations, see `modicum.data.VIEWS`, or their names.

    Raises:
        ModicumError: An option makes no sense.

    Reference:
        Chen, Fan, Girshick and He, Improved Baselines with Momentum Contrastive Learning, 2020, arXiv 2003.04297; He, Fan,
        Wu, Xie and Girshick, Momentum Contrast for Unsupervised Visual Representation Learning, 2019, arXiv 1911.05722.
    """

    temperature: float = 0.2
    queue: int = 4096
    momentum: float = 0.99
    final_momentum: float | None = None
    hidden: int = 2048
    dimension: int = 128
    symmetric: bool = False
    splits: int = 8
    augment: str | tuple[str, ...] = "weak"

    card: ClassVar[Card] = Card(
        key="moco-v2",
        title="One view against the keys of earlier batches, made by a slow copy of the network",
        paper="Chen, Fan, Girshick and He, Improved Baselines with Momentum Contrastive Learning, 2020, "
        "arXiv 2003.04297",
        saves=("labels", "memory"),
        tasks=("classification", "regression", "unlabeled"),
        modalities=("image",),
    )
    published: ClassVar[Recipe] = Recipe("resnet18", epochs=200, batch_size=128, lr=0.06, weight_decay=5e-4)

    def __post_init__(self) -> None:
        shares = ("momentum",) if self.final_momentum is None else ("momentum", "final_momentum")
        positive = ("temperature", "hidden", "dimension", "splits")
        check_options(self, positive=positive, not_negative=("queue",), shares=shares)

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def learner(self, data: Dataset, backbone: Backbone, plan: Plan) -> Learner:
        """What is trained."""
        return _Learner(backbone, make_views(self.augment, data), self, min(self.queue, len(data) // 2), plan.steps)
