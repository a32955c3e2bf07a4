"""NPID: every image is a class of its own, and a memory bank holds the classes' weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from modicum.data.views import Views, make_views
from modicum.dataset import Dataset
from modicum.losses.instance_discrimination import InstanceDiscrimination, NoiseContrastive
from modicum.methods import Card
from modicum.options import check_options
from modicum.pretraining.bank import INITS, BankLearner, check_distinct
from modicum.pretraining.learner import Backbone, Learner, Plan
from modicum.training.recipe import Recipe

__all__ = ["NPID"]


class _Learner(BankLearner):
    loss: InstanceDiscrimination | NoiseContrastive

    def __init__(
        self,
        backbone: Backbone,
        views: Views | None,
        plan: Plan,
        n: int,
        *,
        temperature: float,
        negatives: int,
        proximal: float,
        **options: Any,
    ) -> None:
        super().__init__(backbone, views, plan, n, **options)
        self.negatives, self.proximal = negatives, proximal
        kind = NoiseContrastive if negatives else InstanceDiscrimination
        self.loss = kind(temperature, reduction="none")

    def forward(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        check_distinct(indices)
        v = self.embed(self.views(inputs, 1)[0])
        with torch.autocast(v.device.type, enabled=False):
            if self.negatives:
                noise = torch.randint(len(self.bank), (self.negatives,), generator=self.draw).to(v.device)
                losses: Tensor = self.loss(v, self.bank, indices, noise)
            else:
                losses = self.loss(v, self.bank, indices)
        if self.proximal:
            losses = losses + self.proximal * (v - self.bank[indices]).square().sum(1)
        self.pending = (indices, v.detach())
        return losses, v


@dataclass(frozen=True)
class NPID:
    """Instance discrimination with a memory bank: one view, one pass, all other images as negatives.

    The bank takes 4 n d bytes.

    Args:
        temperature: Of the softmax over the bank.
        momentum: m of `w <- normalize(m w + (1 - m) v)`, the update of a sample's row.
        negatives: Noise rows a step for noise-contrastive estimation, the same for the whole batch; 0 for the full
            softmax.
        proximal: Weight of the squared distance from the sample's row; 30 in the paper's ablation, 0 in its code.
        hidden: Width of two hidden layers of the head; 0 for the linear one of the paper.
        dimension: Of the embeddings.
        bank_init: `uniform` entries as published, `random` unit vectors, or `features` of the untrained network.
        augment: Set of augmentations, see `modicum.data.VIEWS`, or their names.

    Raises:
        ModicumError: An option is out of range.

    Reference:
        Wu, Xiong, Yu and Lin, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018,
        arXiv 1805.01978.
    """

    temperature: float = 0.1
    momentum: float = 0.5
    negatives: int = 0
    proximal: float = 0.0
    hidden: int = 0
    dimension: int = 128
    bank_init: str = "uniform"
    augment: str | tuple[str, ...] = "npid"

    card: ClassVar[Card] = Card(
        key="npid",
        title="Every image against all others, through a memory bank",
        paper="Wu, Xiong, Yu and Lin, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018, "
        "arXiv 1805.01978",
        saves=("labels",),
        tasks=("classification", "regression", "unlabeled"),
        modalities=("image",),
    )
    # published: the rate falls by 10 at epochs 120 and 160
    published: ClassVar[Recipe] = Recipe("resnet18", epochs=200, batch_size=128, lr=0.03, weight_decay=5e-4)

    def __post_init__(self) -> None:
        check_options(
            self,
            positive=("temperature", "dimension"),
            not_negative=("negatives", "proximal", "hidden"),
            below_one=("momentum",),
            choices={"bank_init": INITS},
        )

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def learner(self, data: Dataset, backbone: Backbone, plan: Plan) -> Learner:
        """What is trained."""
        return _Learner(
            backbone,
            make_views(self.augment, data),
            plan,
            len(data),
            temperature=self.temperature,
            negatives=self.negatives,
            proximal=self.proximal,
            hidden=self.hidden,
            dimension=self.dimension,
            bank_init=self.bank_init,
            momentum=self.momentum,
        )
