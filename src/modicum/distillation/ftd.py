"""FTD: matching the trajectories of flat experts, so that small errors along the way do not add up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import Tensor

from modicum.distillation.trajectory import TrajectoryMatching, TrajectoryOptions
from modicum.measurement.experts import Experts
from modicum.methods import Card
from modicum.options import check_options

__all__ = ["FTD"]


class _Run(TrajectoryMatching):
    """With a moving average of the inputs."""

    def begin(self, inputs: Tensor) -> None:
        """Register what is learned, and the average of it."""
        super().begin(inputs)
        self.learn("mean", inputs, 0.0)


@dataclass(frozen=True)
class FTD(TrajectoryOptions):
    """Flat trajectory distillation.

    A network that is trained on the synthetic samples does not start from an expert, as students do, so the errors of
    the segments add up; in flat regions they do no harm. Two things differ from `MTT`: experts are trained by
    surrogate-gap sharpness-aware minimization (`GSAM`), and the set is a moving average of the inputs,
    `X' <- d X' + (1 - d) X` after every iteration.

    Published for CIFAR-10 with 10 samples a class: the defaults, with ZCA (0.1).

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
        rho: Radius of the perturbation of the experts; 0 for those of `MTT`.
        alpha: How much of the orthogonal part of their gradient is taken away.
        ema: d, in [0, 1); 0 gives the last inputs.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> FTD().needs()[0].variant
        'gsam'

    Reference:
        Du, Jiang, Tan, Zhou and Li, Minimizing the Accumulated Trajectory Error to Improve Dataset Distillation, 2023,
        arXiv 2211.11004.
    """

    lr_img: float | Literal["auto"] = 100.0
    lr_start: float = 0.001
    rho: float = 0.01
    alpha: float = 0.4
    ema: float = 0.9995

    runs: ClassVar[type[TrajectoryMatching]] = _Run
    card: ClassVar[Card] = Card(
        key="ftd",
        title="Trajectory matching to experts in flat regions, and an average of the synthetic samples",
        paper=(
            "Du et al., Minimizing the Accumulated Trajectory Error to Improve Dataset Distillation, 2023, "
            "arXiv 2211.11004"
        ),
        saves=("samples",),
        modalities=("image", "tabular"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self, not_negative=("rho", "alpha"), below_one=("ema",))

    def needs(self) -> tuple[Experts, ...]:
        """The flat experts."""
        return (replace(super().needs()[0], variant="gsam", rho=self.rho, alpha=self.alpha),)
