"""DINO: a network predicts its own slow average on another view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum import losses
from modicum.data.views import Views, make_views
from modicum.dataset import Dataset
from modicum.methods import Card
from modicum.options import check_options
from modicum.pretraining.learner import Backbone, Learner, Plan
from modicum.pretraining.teacher import Teacher, cosine_momentum
from modicum.training.recipe import Recipe

__all__ = ["DINO"]


class _Head(nn.Module):
    """Three layers to a bottleneck of length 1, and its cosines with the prototypes."""

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        sizes = (nn.Linear(width, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, bottleneck))
        for layer in sizes:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.layers = nn.Sequential(sizes[0], nn.GELU(), sizes[1], nn.GELU(), sizes[2])
        self.prototypes = nn.Linear(bottleneck, prototypes, bias=False)
        self.frozen = False

    def forward(self, x: Tensor) -> Tensor:
        weight = self.prototypes.weight.detach() if self.frozen else self.prototypes.weight
        return F.linear(F.normalize(self.layers(x), dim=1, eps=1e-12), F.normalize(weight, dim=1, eps=1e-12))


class _Learner(Learner):
    step: Tensor

    def __init__(self, backbone: Backbone, views: Views, method: DINO, plan: Plan) -> None:
        super().__init__(backbone, views)
        self.method, self.steps = method, plan.steps
        self.head = _Head(backbone.width, method.hidden, method.bottleneck, method.prototypes)
        self.teacher = Teacher(nn.Sequential(backbone, self.head))
        self.loss = losses.DINO(
            method.prototypes, method.temperature, method.teacher_temperature, method.center_momentum, reduction="none"
        )
        epoch = plan.steps / plan.epochs
        self.frozen, self.warm = round(method.freeze_epochs * epoch), method.warmup_epochs * epoch
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @property
    def mode(self) -> str:
        """While prototypes are frozen, a step computes no gradient for them."""
        return "frozen" if int(self.step) < self.frozen else ""

    def forward(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        step = int(self.step)
        views = self.views(inputs, 2)
        teacher = [self.teacher(view) for view in views]
        self.head.frozen = step < self.frozen
        student = [self.head(self.backbone(view)) for view in views]
        progress = min(1.0, step / self.warm) if self.warm else 1.0
        low, high = self.method.teacher_temperature, self.method.final_teacher_temperature
        found: Tensor = self.loss(student, teacher, low + (high - low) * progress)
        self.loss.update_center(teacher)
        return found, student[0]

    def after(self) -> None:
        """The teacher follows."""
        momentum = cosine_momentum(self.method.momentum, int(self.step), self.steps)
        self.teacher.update(nn.Sequential(self.backbone, self.head), momentum)
        self.step += 1


@dataclass(frozen=True)
class DINO:
    """Self-distillation with a centered, sharpened teacher, see `modicum.losses.DINO`.

    The teacher is the exponential average of the network and its head; its momentum rises from `momentum` to 1 with a
    cosine. Two global views; both pass both networks, one after the other. In short runs take a lower `momentum`, such
    as 0.99: at 0.9995 the teacher stays for thousands of steps what it was at the beginning.

    Args:
        temperature: Of the student.
        teacher_temperature: Of the teacher at the beginning.
        final_teacher_temperature: After the warm-up.
        warmup_epochs: In which the teacher's temperature moves linearly from one to the other.
        freeze_epochs: In which the prototypes do not learn.
        momentum: Of the teacher at the beginning.
        center_momentum: Of the center.
        hidden: Width of the two hidden layers of the head.
        bottleneck: Width before the prototypes.
        prototypes: Number of outputs.
        augment: Set of augmentations, see `modicum.data.VIEWS`, or their names.

    Reference:
        Caron, Touvron, Misra, Jegou, Mairal, Bojanowski and Joulin, Emerging Properties in Self-Supervised Vision
        Transformers, 2021, arXiv 2104.14294.
    """

    temperature: float = 0.1
    teacher_temperature: float = 0.04
    final_teacher_temperature: float = 0.07
    warmup_epochs: float = 30.0
    freeze_epochs: float = 1.0
    momentum: float = 0.9995
    center_momentum: float = 0.9
    hidden: int = 2048
    bottleneck: int = 256
    prototypes: int = 4096
    augment: str | tuple[str, ...] = "asymmetric"

    card: ClassVar[Card] = Card(
        key="dino",
        title="A network predicts its own slow average on another view",
        paper="Caron, Touvron, Misra, Jegou, Mairal, Bojanowski and Joulin, Emerging Properties in Self-Supervised "
        "Vision Transformers, 2021, arXiv 2104.14294",
        saves=("labels",),
        tasks=("classification", "regression", "unlabeled"),
        modalities=("image",),
    )
    published: ClassVar[Recipe] = Recipe(
        "resnet18", epochs=1000, batch_size=256, optimizer="lars", lr=0.3, weight_decay=1e-6, warmup=0.01
    )

    def __post_init__(self) -> None:
        positive = ("temperature", "teacher_temperature", "final_teacher_temperature", "hidden", "bottleneck")
        check_options(
            self,
            positive=(*positive, "prototypes"),
            not_negative=("warmup_epochs", "freeze_epochs"),
            shares=("momentum", "center_momentum"),
        )

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def learner(self, data: Dataset, backbone: Backbone, plan: Plan) -> Learner:
        """What is trained."""
        return _Learner(backbone, make_views(self.augment, data), self, plan)
