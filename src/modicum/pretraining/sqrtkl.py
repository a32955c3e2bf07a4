"""SqrtKL: instance discrimination with a bank that starts and moves right, and a loss that spreads predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.data import cutmix
from modicum.data.views import Views, make_views
from modicum.dataset import Dataset
from modicum.errors import ModicumError
from modicum.losses.instance_discrimination import check_rows
from modicum.losses.sqrt_kl import SqrtKL as Divergence
from modicum.methods import Card
from modicum.options import check_options
from modicum.pretraining.bank import (
    INITS,
    BankLearner,
    check_distinct,
    corrected_bank_update,
    draw_others,
)
from modicum.pretraining.learner import Backbone, Learner, Plan
from modicum.training.recipe import Recipe

__all__ = ["SqrtKL"]

PARTS = ("both", "entropy", "cross", "plain", "none")


class _Learner(BankLearner):
    def __init__(self, backbone: Backbone, views: Views | None, plan: Plan, n: int, method: SqrtKL) -> None:
        super().__init__(
            backbone,
            views,
            plan,
            n,
            hidden=method.hidden,
            dimension=method.dimension,
            bank_init=method.bank_init,
            momentum=method.momentum,
        )
        self.method = method
        self.divergence = Divergence(method.kl_temperature, reduction="none")

    def forward(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        check_distinct(indices)
        check_rows("indices", indices, self.bank)
        (x,) = self.views(inputs, 1)
        pair, lam = None, 1.0
        if self.method.cutmix:
            x, pair, lam = cutmix(x, self.method.cutmix, self.draw)
        v = self.embed(x)
        rows, own = self.candidates(indices)
        with torch.autocast(v.device.type, enabled=False):
            cosines = v @ (self.bank if rows is None else self.bank[rows]).T
            log_p = (cosines / self.method.temperature).log_softmax(1)
            losses = F.nll_loss(log_p, own, reduction="none")
            if pair is not None:
                losses = lam * losses + (1 - lam) * F.nll_loss(log_p, own[pair], reduction="none")
            if self.method.coefficient and self.method.parts != "none":
                losses = losses + self.spread(cosines)
        self.pending = (indices, v.detach(), rows, own, log_p.detach())
        return losses, v

    def candidates(self, indices: Tensor) -> tuple[Tensor | None, Tensor]:
        """Rows that a step compares with, the batch first, or None for all of them; and the column of each sample."""
        n, b = len(self.bank), len(indices)
        if b + self.method.negatives >= n:
            return None, indices
        others = draw_others(n, indices, self.method.negatives, self.draw)
        return torch.cat([indices, others]), torch.arange(b, device=indices.device)

    def spread(self, cosines: Tensor) -> Tensor:
        """(b,) the part of the loss that makes predictions more uniform."""
        weight = self.method.coefficient
        negentropy, cross = self.divergence.parts(cosines)
        if self.method.parts == "both":
            return weight * (negentropy + cross)
        return {"entropy": weight * negentropy, "cross": weight * cross, "plain": weight / 2 * negentropy}[
            self.method.parts
        ]

    def write(self, indices: Tensor, v: Tensor, *more: Any) -> None:
        """Move the rows of the batch, or those of all candidates."""
        if self.method.bank_update == "ema":
            return super().write(indices, v)
        rows, own, log_p = more
        p, at = log_p.exp(), own
        if self.method.rows == "batch":
            rows, p, at = indices, p[:, own], torch.arange(len(indices), device=own.device)
        old = self.bank if rows is None else self.bank[rows]
        new = corrected_bank_update(old, v, at, p, (1 - self.momentum) / self.momentum)
        if rows is None:
            self.bank.copy_(new)
        else:
            self.bank[rows] = new
        return None


@dataclass(frozen=True)
class SqrtKL:
    """Instance discrimination in one branch: one view and one pass an image, no second network.

    The loss of an image is the cross-entropy of its own row among the candidates, at `temperature`, plus `coefficient`
    times SqrtKL of its cosines with them. The bank starts with the untrained network's features, and moves along the
    whole gradient of the cross-entropy, with a step of (1 - m) / m. As released, SqrtKL has the gradient of the
    negative entropy with half the coefficient: `plain` is that control.

    The bank takes 4 n d bytes, a step about 20 b k bytes with k candidates.

    Args:
        temperature: Of the cross-entropy.
        kl_temperature: Of SqrtKL.
        coefficient: Weight of SqrtKL.
        parts: Of SqrtKL: `both`, `entropy` (L1), `cross` (L2), `none`, or `plain` for half the coefficient times the
            negative entropy.
        bank_init: `features` of the untrained network, `random` unit vectors, or `uniform` entries.
        bank_update: `grad`, or `ema` for the moving average of the sample's own row, as in the published code.
        rows: That `grad` writes: all `candidates`, or those of the `batch`.
        momentum: m of both updates.
        negatives: Other rows that are candidates in a step; all of them where there are no more.
        cutmix: alpha of CutMix; 0 for none. The row moves towards the embedding of the mixed image.
        hidden: Width of two hidden layers of the head; 0 for a linear head.
        dimension: Of the embeddings; 2048 as published, where the bank takes 8 KB a sample.
        augment: Set of augmentations, see `modicum.data.VIEWS`, or their names.

    Raises:
        ModicumError: An option is out of range.

    Reference:
        Cao and Wu, On Improving the Algorithm-, Model-, and Data- Efficiency of Self-Supervised Learning, 2024,
        arXiv 2404.19289.
    """

    temperature: float = 0.2
    kl_temperature: float = 1.0
    coefficient: float = 20.0
    parts: str = "both"
    bank_init: str = "features"
    bank_update: str = "grad"
    rows: str = "candidates"
    momentum: float = 0.5
    negatives: int = 10_000
    cutmix: float = 0.5
    hidden: int = 2048
    dimension: int = 128
    augment: str | tuple[str, ...] = "sqrtkl"

    card: ClassVar[Card] = Card(
        key="sqrtkl",
        title="One view an image against a bank that starts and moves right",
        paper="Cao and Wu, On Improving the Algorithm-, Model-, and Data- Efficiency of Self-Supervised Learning, 2024, "
        "arXiv 2404.19289",
        saves=("labels", "compute", "memory"),
        tasks=("classification", "regression", "unlabeled"),
        modalities=("image",),
    )
    published: ClassVar[Recipe] = Recipe("resnet18", epochs=200, batch_size=512, lr=1.0, weight_decay=1e-4)

    def __post_init__(self) -> None:
        check_options(
            self,
            positive=("temperature", "kl_temperature", "dimension"),
            not_negative=("coefficient", "negatives", "cutmix", "hidden"),
            below_one=("momentum",),
            choices={
                "parts": PARTS,
                "bank_init": INITS,
                "bank_update": ("grad", "ema"),
                "rows": ("candidates", "batch"),
            },
        )
        if self.bank_update == "grad" and not self.momentum > 0:
            raise ModicumError(
                f"method 'sqrtkl' option momentum={self.momentum!r} with bank_update='grad', whose step is (1 - m) / m; expected m > 0"
            )

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def learner(self, data: Dataset, backbone: Backbone, plan: Plan) -> Learner:
        """What is trained."""
        return _Learner(backbone, make_views(self.augment, data), plan, len(data), self)
