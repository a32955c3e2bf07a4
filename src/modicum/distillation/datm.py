"""DATM: trajectory matching in the epochs whose difficulty suits the size of the set, with learned soft labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.distillation.initial import averaged_logits, expert_logits, known_samples
from modicum.distillation.trajectory import TrajectoryMatching, TrajectoryOptions
from modicum.errors import ModicumError
from modicum.measurement.experts import Experts
from modicum.methods import Card
from modicum.options import check_options

if TYPE_CHECKING:
    from modicum.dataset import Dataset
    from modicum.training.recipe import Recipe

__all__ = ["DATM", "upper_epoch"]

SURE = 30.0  # logit of the own class, of labels as good as hard


def upper_epoch(iteration: int, first: int, last: int, expand: int) -> int:
    """The end of the window of start epochs in an iteration: it opens slowly, from easy patterns to hard ones.

    `U(i) = min(T_0 + floor((T_+ - T_0) i / expand), T_+)`.

    Args:
        iteration: i, from 0.
        first: T_0, the end at first.
        last: T_+, the end from iteration `expand` on; start epochs are below it.
        expand: Iterations until it is reached; 0 is at once.

    Returns:
        U(i), the epoch after the last at which a student may start.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> [upper_epoch(i, 10, 20, 1000) for i in (0, 99, 100, 999, 1000, 5000)]
        [10, 10, 11, 19, 20, 20]

    Reference:
        Guo et al., Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching, 2024,
        arXiv 2310.05773.
    """
    if not 0 < first <= last or expand < 0 or iteration < 0:
        raise ModicumError(
            f"first={first}, last={last}, expand={expand}, iteration={iteration}; expected 0 < first <= last, and "
            "numbers >= 0"
        )
    return last if iteration >= expand else first + (last - first) * iteration // expand


class _Run(TrajectoryMatching):
    """With a window that opens, and labels that are learned."""

    method: DATM

    def start(self, init: str) -> Tensor:
        """(m, *shape) real samples that an expert knows, where asked for."""
        return self.real(self.known()).cpu() if init == "real" and self.method.known else super().start(init)

    def begin(self, inputs: Tensor) -> None:
        """Register what is learned, the logits too."""
        super().begin(inputs)
        method = self.method
        if method.labels == "hard":
            logits = SURE * F.one_hot(self.labels, self.classes).float()
        else:
            logits = averaged_logits((expert_logits(self, e, inputs) for e in range(self.experts.count)), self.labels)
        self.learn("logits", logits, method.lr_y, momentum=method.momentum_y)

    def known(self) -> Tensor:
        """(m,) positions of real samples, in the order of ids, that an expert classifies right."""
        labels = self.real_labels
        told = (expert_logits(self, e, torch.arange(len(labels))) for e in range(self.experts.count))
        right = (logits.argmax(1) == labels for logits in told)
        return known_samples(self.shuffled(self.random("init")), labels, self.counts, right)

    def window(self, iteration: int) -> tuple[int, int]:
        """The window of this iteration."""
        method = self.method
        first = method.first_start or method.max_start
        return method.min_start, upper_epoch(iteration, first, method.max_start, method.expand)

    def made(self) -> tuple[Dataset, Recipe]:
        """Batches of at most 128, as published."""
        dataset, recipe = super().made()
        return dataset, replace(recipe, batch_size=min(128, len(dataset)))


@dataclass(frozen=True)
class DATM(TrajectoryOptions):
    """Difficulty-aligned trajectory matching.

    As `MTT`, with experts as of `FTD`, and:

    - the window: students start at epochs `min_start <= t < U(i)`, where `U(i)` opens from `first_start` to `max_start`
      in `expand` iterations (see `upper_epoch`). Early epochs teach easy patterns and suit small sets, late ones hard
      patterns and suit large sets;
    - the start: real samples that an expert classifies right (see `known_samples`);
    - the labels: `softmax(z)` of learned logits z, which start as the mean logits of the experts that are right (see
      `averaged_logits`);
    - segments whose loss is above the threshold are left out.

    Published for CIFAR-10, all with ZCA (0.1), by samples a class: 1: `max_start=4`, `first_start=0`, `lr_lr=1e-7`,
    `lr_y=5`, `threshold=1.1`; 10: the defaults; 50: `first_start=20`, `max_start=40`, `expand=2000`, `lr_img=1000`; 500:
    `syn_steps=40`, `min_start=40`, `max_start=60`, `first_start=0`, `batch_syn=1000`, `lr_img=50`, `lr_y=10`.

    Args:
        iterations: Segments of experts that are matched, each a step of the synthetic samples.
        syn_steps: N, steps of the student.
        expert_epochs: M, epochs of the expert that the student is to catch up with.
        max_start: T+; students start at epochs below it.
        batch_syn: Synthetic samples a step of the student; 0 for all.
        lr_img: Step size on the standardized inputs; `auto` chooses it so that the first step changes them by 1 %.
        lr_lr: Step size on the learned rate.
        lr_start: The student's rate at the beginning.
        momentum: Of these steps.
        init: Start from `real` samples or from `noise`.
        augment: Families drawn for every batch of students and experts, such as `color_crop`, or `none`; `auto` is everything,
            without flip where classes are digits, and nothing on data without pixels.
        model: The network; `auto` as for the other distillers.
        grad: `adjoint`, exact at the memory of one step; `unroll`, exact too; `tesla` (see `unrolled_gradient`).
        experts: Number of experts.
        epochs: Of each, the last of which gives the start and the labels; 0 for as many as are read.
        lr_expert: Learning rate of the experts.
        batch_real: Real samples a step of the experts.
        min_start: T-, the first epoch that students start at.
        first_start: T_0, the end of the window at first; 0 for `max_start` at once.
        expand: Iterations in which it opens.
        lr_y: Step size on the logits; 0 keeps the labels as they start.
        momentum_y: Of these steps.
        threshold: A segment with a loss above it changes nothing.
        rho: Radius of the perturbation of the experts; 0 for those of `MTT`.
        alpha: How much of the orthogonal part of their gradient is taken away.
        known: Whether the `real` samples to start from are those that an expert classifies right.
        labels: Start from what the `experts` say, or from `hard` labels.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> DATM(min_start=10, first_start=15, max_start=20).needs()[0].variant
        'gsam'

    Reference:
        Guo, Wang, Cazenavette, Li, Zhang and You, Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory
        Matching, 2024, arXiv 2310.05773.
    """

    iterations: int = 10_000
    syn_steps: int = 80
    lr_img: float | Literal["auto"] = 100.0
    epochs: int = 100
    min_start: int = 0
    first_start: int = 10
    expand: int = 1000
    lr_y: float = 2.0
    momentum_y: float = 0.9
    threshold: float = 1.0
    rho: float = 0.01
    alpha: float = 0.3
    known: bool = True
    labels: Literal["experts", "hard"] = "experts"

    runs: ClassVar[type[TrajectoryMatching]] = _Run
    card: ClassVar[Card] = Card(
        key="datm",
        title="Trajectory matching in the epochs whose difficulty suits the size of the set, with learned labels",
        paper=(
            "Guo et al., Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching, 2024, "
            "arXiv 2310.05773"
        ),
        saves=("samples",),
        modalities=("image", "tabular"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(
            self,
            positive=("threshold",),
            not_negative=("min_start", "first_start", "expand", "lr_y", "rho", "alpha"),
            below_one=("momentum_y",),
            choices={"labels": ("experts", "hard")},
        )
        for name, value, right, expected in (
            ("min_start", self.min_start, self.min_start < self.max_start, f"less than max_start={self.max_start}"),
            (
                "first_start",
                self.first_start,
                not self.first_start or self.min_start < self.first_start <= self.max_start,
                f"0, or more than min_start={self.min_start} and at most max_start={self.max_start}",
            ),
        ):
            if not right:
                raise ModicumError(f"method 'datm' option {name}={value!r}; expected {expected}")

    def needs(self) -> tuple[Experts, ...]:
        """The flat experts."""
        plain = super().needs()[0]
        return (replace(plain, variant="gsam", rho=self.rho, alpha=self.alpha) if self.rho else plain,)
