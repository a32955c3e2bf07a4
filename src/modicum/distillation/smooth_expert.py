"""Smooth experts: trajectory matching to good experts that move evenly, in a way that forgives them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from modicum.distillation.initial import expert_logits, representative_samples
from modicum.distillation.trajectory import TrajectoryMatching, TrajectoryOptions, trajectory_distance
from modicum.errors import ModicumError
from modicum.measurement.experts import Experts
from modicum.methods import Card
from modicum.options import check_options

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Dataset
    from modicum.measurement.experts import ExpertTable
    from modicum.scores import Budget
    from modicum.training.recipe import Recipe

__all__ = ["SmoothExpert", "balance_weight", "intermediate_steps", "perturbed"]


def balance_weight(start: int, end: int) -> float:
    """What the student's loss is multiplied by, so that segments from early and late epochs weigh alike.

    With `h = T // 2`: `log_5(t - h + 8)` when t >= h, and `1 / log_5(h - t + 8)` before.

    Args:
        start: t, the epoch at which the segment starts.
        end: T, the end of the window of start epochs.

    Returns:
        The factor.

    Raises:
        ModicumError: The window has fewer than two epochs, or the start is outside of it.

    Example:
        >>> [round(balance_weight(t, 20), 4) for t in (0, 9, 10, 19)]
        [0.5568, 0.7325, 1.292, 1.7604]

    Reference:
        Shen, Yang and Lam, AST: Effective Dataset Distillation through Alignment with Smooth and High-Quality Expert
        Trajectories, 2023, arXiv 2310.10541.
    """
    if end < 2:
        raise ModicumError(f"end={end!r}; expected an integer >= 2, so that there is a middle")
    if not 0 <= start < end:
        raise ModicumError(f"start={start!r}; expected an integer in 0..{end - 1}")
    middle = end // 2
    if start >= middle:
        return math.log(start - middle + 8, 5)
    return 1 / math.log(middle - start + 8, 5)


def intermediate_steps(steps: int, expert_epochs: int) -> dict[int, int]:
    """Student steps at which the student is compared with the expert before the end.

    `n_i = floor(N / M) i` for i = 1..M-1.

    Args:
        steps: N of the student.
        expert_epochs: M, the epochs of the expert that the student retraces.

    Returns:
        The epochs of the expert by student step; none where N < M.

    Raises:
        ModicumError: A number is below one.

    Example:
        >>> intermediate_steps(30, 2), intermediate_steps(40, 3), intermediate_steps(20, 1)
        ({15: 1}, {13: 1, 26: 2}, {})

    Reference:
        Shen, Yang and Lam, AST, 2023, arXiv 2310.10541.
    """
    for name, value in (("steps", steps), ("expert_epochs", expert_epochs)):
        if value < 1:
            raise ModicumError(f"{name}={value!r}; expected an integer >= 1")
    part = steps // expert_epochs
    return {part * i: i for i in range(1, expert_epochs)} if part else {}


def perturbed(theta: Tensor, shapes: Sequence[Sequence[int]], random: torch.Generator, strength: float = 1.0) -> Tensor:
    """Weights of convolutions a little beside themselves.

    `W + strength * W o d / ||d||_F` with d ~ N(0, 1) for every four-dimensional tensor; the others stay.

    Args:
        theta: (p,) all parameters in one vector.
        shapes: Of each parameter, in order.
        random: On the CPU.
        strength: Of the perturbation.

    Returns:
        (p,) parameters.

    Raises:
        ModicumError: The shapes hold another number of parameters.

    Example:
        >>> theta = torch.ones(22)
        >>> moved = perturbed(theta, [(2, 1, 3, 3), (4,)], torch.Generator().manual_seed(0))
        >>> round(float((moved - theta).norm()), 4), bool((moved[18:] == 1).all())
        (1.0, True)

    Reference:
        Shen, Yang and Lam, AST, 2023, arXiv 2310.10541.
    """
    sizes = [math.prod(shape) for shape in shapes]
    if theta.ndim != 1 or sum(sizes) != len(theta):
        raise ModicumError(f"theta is {tuple(theta.shape)} and shapes hold {sum(sizes)} numbers; expected as many")
    parts = []
    for part, shape in zip(torch.split(theta, sizes), shapes, strict=True):
        if len(shape) == 4:
            direction = torch.randn(len(part), generator=random).to(part)
            part = part + strength * part * direction / direction.norm()
        parts.append(part)
    return torch.cat(parts)


class _Run(TrajectoryMatching):
    """With all parts that belong to the matching."""

    method: SmoothExpert

    def __init__(
        self, method: SmoothExpert, train: Dataset, budget: Budget, recipe: Recipe, ctx: Context, experts: ExpertTable
    ) -> None:
        super().__init__(method, train, budget, recipe, ctx, experts)
        self.shapes = [tuple(shape) for _, shape in experts.manifest["parameters"]]
        self.meetings = intermediate_steps(method.syn_steps, method.expert_epochs)
        if method.intermediate != "none" and method.syn_steps % method.expert_epochs:
            warnings.warn(
                f"{self.key} syn_steps={method.syn_steps} is no multiple of expert_epochs={method.expert_epochs}; students "
                f"meet the experts after steps {sorted(self.meetings)}",
                stacklevel=3,
            )

    def start(self, init: str) -> Tensor:
        """(m, *shape) representative real samples, where asked for."""
        if init != "real" or not self.method.representative:
            return super().start(init)
        random = self.random("init")
        expert, seed = (int(torch.randint(most, (1,), generator=random)) for most in (self.experts.count, 2**31))
        logits = expert_logits(self, expert, torch.arange(len(self.real_labels)))
        chosen = representative_samples(logits, self.real_labels, self.counts, seed, self.method.clusters)
        return self.real(chosen).cpu()

    def weight(self, epoch: int) -> float:
        """More for later segments."""
        return balance_weight(epoch, self.method.max_start) if self.method.balance else 1.0

    def perturbed(self, start: Tensor, random: torch.Generator) -> Tensor:
        """(p,) a little beside the expert."""
        strength = self.method.perturbation
        return perturbed(start, self.shapes, random, strength) if strength else start

    def between(self, expert: int, epoch: int, start: Tensor) -> dict[int, Callable[[Tensor], Tensor]]:
        """The distances on the way."""
        kind, last = self.method.intermediate, self.method.expert_epochs
        if kind == "none":
            return {}

        def distance(i: int) -> Callable[[Tensor], Tensor]:
            target = self.experts.at(expert, epoch + i, self.device)
            factor = i / last if kind == "adaptive" else 1.0
            return lambda theta: factor * trajectory_distance(theta, start, target)

        return {step: distance(i) for step, i in self.meetings.items()}


@dataclass(frozen=True)
class SmoothExpert(TrajectoryOptions):
    """Matching the trajectories of good experts that were made smooth.

    Experts with momentum and weight decay are better than those of `MTT`, but move too fast at first to be followed.
    Seven parts mend that, each of which can be switched off:

    1. experts are trained with momentum and weight decay, and one decay of the learning rate (`momentum_expert`,
       `weight_decay`, `decay`);
    2. their loss has a ramp in the first ten epochs (`ramp`, see `clip_ramp`);
    3. and a penalty on the slope of the outputs in the inputs (`penalty`, `norm`, see `gradient_penalty`);
    4. the set starts from real samples near the centers of clusters (`representative`, see `representative_samples`);
    5. the loss of students is larger for later segments (`balance`, see `balance_weight`);
    6. students have momentum (`inner_momentum`);
    7. students are compared with the expert on the way too (`intermediate`, see `intermediate_steps`), and start a little
       beside it (`perturbation`, see `perturbed`; of convolutions alone).

    With all of them off, and `lr_expert=0.01`, this is `MTT` to the bit.

    Published for CIFAR-10 with 10 samples a class: the defaults, with ZCA (0.1); for CIFAR-100 with 1 and 10:
    `syn_steps` 40 and 20, `expert_epochs` 3 and 2, `max_start` 20 and 30, `lr_img` 1000, `batch_syn` 0 and 128.

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
        epochs: Of each; 0 for as many as are read.
        lr_expert: Learning rate of the experts.
        batch_real: Real samples a step of the experts.
        momentum_expert: Of the experts.
        weight_decay: Of the experts.
        decay: What their learning rate is multiplied by after epoch `epochs // 2 + 1`; 1 is off.
        ramp: Whether their loss has the ramp.
        penalty: Factor of the penalty; 0 is off.
        norm: Of the slope over the `channel`s of each pixel, or over the whole `sample`.
        representative: Whether the `real` samples to start from are near the centers of clusters.
        clusters: Of a class, at most.
        balance: Whether later segments have a larger loss.
        inner_momentum: Of students, a heavy ball.
        intermediate: Distances on the way count as much as the last one (`equal`), by their share of it (`adaptive`), or
            not (`none`).
        perturbation: Strength of the perturbation of the start; 0 is off.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> SmoothExpert().needs()[0].variant, SmoothExpert(ramp=False, penalty=0, decay=1).needs()[0].variant
        ('smooth', 'sgd')

    Reference:
        Shen, Yang and Lam, AST: Effective Dataset Distillation through Alignment with Smooth and High-Quality Expert
        Trajectories, 2023, arXiv 2310.10541.
    """

    lr_img: float | Literal["auto"] = 100.0
    epochs: int = 50
    lr_expert: float = 0.003
    momentum_expert: float = 0.9
    weight_decay: float = 1e-3
    decay: float = 0.6
    ramp: bool = True
    penalty: float = 2.0
    norm: Literal["channel", "sample"] = "channel"
    representative: bool = True
    clusters: int = 10
    balance: bool = True
    inner_momentum: float = 0.9
    intermediate: Literal["equal", "adaptive", "none"] = "equal"
    perturbation: float = 1.0

    runs: ClassVar[type[TrajectoryMatching]] = _Run
    card: ClassVar[Card] = Card(
        key="smooth-expert",
        title="Trajectory matching to good experts that were made smooth",
        paper=(
            "Shen, Yang and Lam, AST: Effective Dataset Distillation through Alignment with Smooth and High-Quality Expert "
            "Trajectories, 2023, arXiv 2310.10541"
        ),
        saves=("samples",),
        modalities=("image", "tabular"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(
            self,
            positive=("clusters", "decay"),
            not_negative=("weight_decay", "penalty", "perturbation"),
            shares=("decay",),
            below_one=("momentum_expert", "inner_momentum"),
            choices={"norm": ("channel", "sample"), "intermediate": ("equal", "adaptive", "none")},
        )
        if self.balance and self.max_start < 2:
            raise ModicumError(
                f"method 'smooth-expert' option max_start={self.max_start}; expected an integer >= 2, so that the window has "
                "a middle, or balance=False"
            )
        if self.intermediate != "none" and self.syn_steps < self.expert_epochs:
            raise ModicumError(
                f"method 'smooth-expert' option syn_steps={self.syn_steps}; expected at least "
                f"expert_epochs={self.expert_epochs}, so that students meet the experts on the way, or intermediate='none'"
            )

    def needs(self) -> tuple[Experts, ...]:
        """The smooth experts."""
        common = super().needs()[0]
        common = replace(common, momentum=self.momentum_expert, weight_decay=self.weight_decay)
        if not self.ramp and not self.penalty and self.decay == 1:
            return (common,)
        smooth = replace(
            common, variant="smooth", ramp=self.ramp, penalty=self.penalty, norm=self.norm, decay=self.decay
        )
        return (smooth,)
