"""DINO: a student predicts what its slow average says about another view."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modicum.errors import TrainingError
from modicum.losses.check import check_temperature, check_views
from modicum.losses.precision import full_precision

__all__ = ["DINO"]


class DINO(nn.Module):
    """Cross-entropy of a student with a centered, sharpened teacher.

    P = softmax((g - c) / t') of the teacher's logits g, without gradient, and Q = softmax(h / t) of the student's h. The
    loss of an image is the mean of -sum_k P_k log Q_k over all pairs of a teacher view and another student view. The
    center follows the teacher, c = m c + (1 - m) mean(g): without it one prototype takes all images, without a low t'
    every output becomes uniform.

    State: the center, saved with the module; call `update_center` after each step.

    Args:
        prototypes: K, the number of logits.
        temperature: t > 0 of the student.
        teacher_temperature: t' > 0; a warm-up gives it with the call.
        momentum: m in [0, 1] of the center; 1 keeps it at 0.
        reduction: `mean`, or `none` for a number an image.

    Raises:
        TrainingError: A number is out of range, views differ in shape, or there are fewer than two student views.

    Example:
        >>> loss = DINO(4)
        >>> flat = [torch.zeros(3, 4)] * 2
        >>> round(float(loss(flat, flat)), 6)  # log K
        1.386294

    Reference:
        Caron, Touvron, Misra, Jegou, Mairal, Bojanowski and Joulin, Emerging Properties in Self-Supervised Vision
        Transformers, 2021, arXiv 2104.14294.
    """

    center: Tensor

    def __init__(
        self,
        prototypes: int,
        temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        momentum: float = 0.9,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        check_temperature(teacher_temperature, "teacher_temperature")
        if prototypes < 2:
            raise TrainingError(f"prototypes={prototypes!r}; expected an integer >= 2")
        if not 0 <= momentum <= 1:
            raise TrainingError(f"momentum={momentum!r}; expected a share in [0, 1]")
        if reduction not in ("mean", "none"):
            raise TrainingError(f"reduction={reduction!r}; expected 'mean' or 'none'")
        self.temperature, self.teacher_temperature = temperature, teacher_temperature
        self.momentum, self.reduction = momentum, reduction
        self.register_buffer("center", torch.zeros(prototypes))

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], teacher_temperature: float | None = None
    ) -> Tensor:
        """The loss.

        Args:
            student: Logits (b, K) of each view, those that the teacher sees first.
            teacher: Logits (b, K) of the first views; no gradient reaches them.
            teacher_temperature: Instead of the one given at the beginning.
        """
        check_views(*student, *teacher, least=1)
        if not 1 <= len(teacher) <= len(student) or len(student) < 2:
            raise TrainingError(
                f"there are {len(student)} views of the student and {len(teacher)} of the teacher; expected two or more "
                "of the student, and the teacher on the first of them"
            )
        if student[0].shape[1] != len(self.center):
            raise TrainingError(f"logits have {student[0].shape[1]} columns; expected {len(self.center)} prototypes")
        warm = self.teacher_temperature if teacher_temperature is None else teacher_temperature
        check_temperature(warm, "teacher_temperature")
        with full_precision(*student, *teacher) as logits:
            seen, told = logits[: len(student)], logits[len(student) :]
            targets = [((g.detach() - self.center) / warm).softmax(1) for g in told]
            losses = torch.zeros(len(targets[0]), dtype=targets[0].dtype, device=targets[0].device)
            pairs = 0
            for i, h in enumerate(seen):
                others = [p for j, p in enumerate(targets) if j != i]
                if others:
                    losses = losses - (sum(others[1:], others[0]) * (h / self.temperature).log_softmax(1)).sum(1)
                    pairs += len(others)
        losses = losses / pairs
        return losses.mean() if self.reduction == "mean" else losses

    @torch.no_grad()
    def update_center(self, teacher: Sequence[Tensor]) -> None:
        """Follow the teacher's logits (b, K) of all its views by one step."""
        mean = torch.cat(list(teacher)).float().mean(0)
        self.center.lerp_(mean.to(self.center.dtype), 1 - self.momentum)
