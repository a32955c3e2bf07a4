"""TESLA: matching trajectories at a memory that does not grow with the steps, and labels assigned by the experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from modicum.distillation.trajectory import TrajectoryMatching, TrajectoryOptions
from modicum.methods import Card

if TYPE_CHECKING:
    from modicum.dataset import Dataset
    from modicum.training.recipe import Recipe

__all__ = ["TESLA"]


class _Run(TrajectoryMatching):
    """Labels may be those that the expert gives at its target."""

    def assigned(self, target: Tensor) -> Tensor | None:
        """(m, c) probabilities of the expert at its target."""
        return self._told(target) if self.method.soft_labels else None

    def made(self) -> tuple[Dataset, Recipe]:
        """With assigned labels: the mean of what the experts say at the last target."""
        dataset, recipe = super().made()
        if not self.method.soft_labels:
            return dataset, recipe
        total = torch.zeros(len(self.own), self.classes, device=self.device)
        for expert in range(self.experts.count):
            total += self._told(self.experts.at(expert, self.method.last_epoch, self.device))
        return self.dataset(None, total / self.experts.count), recipe

    def _told(self, theta: Tensor) -> Tensor:
        with torch.no_grad(), self.flops.forward("labels"):
            told = self.call(theta, self.inputs.detach()).softmax(1)
        self.flops.charge("labels")
        self.samples += len(told)
        return told


@dataclass(frozen=True)
class TESLA(TrajectoryOptions):
    """Trajectory matching with an approximate gradient, and soft label assignment.

    As `MTT`, but each step of the student is differentiated in its own samples only, as if where it took place did not
    depend on those before. That is not the gradient of the distance, except for one step; the cosine between the two
    falls with the number of steps. `MTT` has the exact gradient at nearly the same memory; this is for comparison, and
    for assigned labels: `Y = softmax(f(X; theta*_{t+M}))` by the expert at its target, anew in every iteration.

    Published for CIFAR-10 with 1 sample a class: `syn_steps` 50, `max_start` 5, `lr_img` 1000, `lr_lr` 1e-7, no ZCA. The
    published code lacks the factor 2 of the gradient of the inputs, so `lr_img` is half of that here.

    Args:
        iterations: Segments of experts that are matched, each a step of the synthetic samples.
        syn_steps: N, steps of the student.
        expert_epochs: M, epochs of the expert that the student is to catch up with.
        max_start: T+; students start at epochs 0..T+ - 1 of an expert. Early ones suit small sets.
        batch_syn: Synthetic samples a step of the student; 0 for all.
        lr_img: Step size on the standardized inputs; `auto` chooses it so that the first step changes them by 1 %.
        lr_lr: Step size on the learned rate.
        lr_start: The student's rate at the beginning.
        momentum: Of these steps.
        init: Start from `real` samples or from `noise`.
        augment: Families drawn for every batch of students and experts, such as `color_crop`, or `none`; `auto` is
            everything, without flip where classes are digits, and nothing on data without pixels.
        model: The network; `auto` is the recipe's where it is a convnet or resnet, `convnet(width=32)` for other
            images, and the recipe's for tables.
        grad: `tesla`, or `adjoint` or `unroll`, which are exact (see `unrolled_gradient`).
        experts: Number of experts.
        epochs: Of each; 0 for as many as are read. Published are 50, which is the same, as the learning rate is constant.
        lr_expert: Learning rate of the experts.
        batch_real: Real samples a step of the experts.
        soft_labels: Whether experts assign the labels; the set then has the mean of what they say at the last target.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> TESLA(syn_steps=10).grad
        'tesla'

    Reference:
        Cui, Wang, Si and Hsieh, Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory, 2023,
        arXiv 2211.10586.
    """

    iterations: int = 10_000
    syn_steps: int = 50
    max_start: int = 5
    lr_img: float | Literal["auto"] = 500.0
    lr_lr: float = 1e-7
    grad: Literal["adjoint", "unroll", "tesla"] = "tesla"
    soft_labels: bool = False

    runs: ClassVar[type[TrajectoryMatching]] = _Run
    card: ClassVar[Card] = Card(
        key="tesla",
        title="Trajectory matching with an approximate gradient of constant memory, and labels from the experts",
        paper="Cui et al., Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory, 2023, arXiv 2211.10586",
        saves=("samples", "memory"),
        modalities=("image", "tabular"),
    )
