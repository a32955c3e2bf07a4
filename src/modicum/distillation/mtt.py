"""MTT: synthetic samples on which a student moves in a few steps to where an expert goes in epochs on all data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from modicum.distillation.trajectory import TrajectoryOptions
from modicum.methods import Card

__all__ = ["MTT"]


@dataclass(frozen=True)
class MTT(TrajectoryOptions):
    """Matching training trajectories.

    A student starts where an expert was after t epochs and takes N steps of gradient descent on the synthetic samples,
    with a learned rate; samples and rate go down the gradient of `trajectory_distance` to where the expert was M epochs
    later. The gradient through the N steps is exact, at the memory of one. A loss below 1 means that students follow;
    it is between 0.3 and 0.8 where that works.

    Published for CIFAR-10 with 1, 10 and 50 samples a class: `syn_steps` 50, 30, 30; `max_start` 2, 20, 40; `lr_img`
    100, 100 to 1000, 1000; `lr_lr` 1e-7, 1e-5, 1e-5; ZCA (0.1) for 1 and 10. Start with `max_start=1` and raise it
    until it gets unstable.

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
        grad: `adjoint`, exact at the memory of one step; `unroll`, exact too; `tesla` (see `unrolled_gradient`).
        experts: Number of experts.
        epochs: Of each; 0 for as many as are read. Published are 50, which is the same, as the learning rate is constant.
        lr_expert: Learning rate of the experts.
        batch_real: Real samples a step of the experts.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> MTT(max_start=5).needs()[0].epochs
        6

    Reference:
        Cazenavette, Wang, Torralba, Efros and Zhu, Dataset Distillation by Matching Training Trajectories, 2022,
        arXiv 2203.11932.
    """

    card: ClassVar[Card] = Card(
        key="mtt",
        title="Synthetic samples on which a student goes in a few steps where experts go in epochs",
        paper="Cazenavette et al., Dataset Distillation by Matching Training Trajectories, 2022, arXiv 2203.11932",
        saves=("samples", "compute"),
        modalities=("image", "tabular"),
    )
