"""A teacher that labels every augmented view while a model is trained on a synthetic set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.errors import ModicumError

__all__ = ["Teacher", "TeacherLoss"]


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained network whose answers are the targets.

    Args:
        model: The network; it is put into evaluation mode and never trained.
        description: The text it was built from, such as `resnet9(width=16)`, so that a file can hold it.
        temperature: Both distributions are softened by it.
        loss: `kl`, the divergence of the student from the teacher, without the factor of the squared temperature; or `mse`
            between logits.

    Raises:
        ModicumError: The temperature is not positive, or the loss is unknown.
    """

    model: nn.Module
    description: str
    temperature: float = 20.0
    loss: Literal["kl", "mse"] = "kl"

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ModicumError(f"teacher temperature={self.temperature!r}; expected a number > 0")
        if self.loss not in ("kl", "mse"):
            raise ModicumError(f"teacher loss={self.loss!r}; expected 'kl' or 'mse'")

    def logits(self, inputs: Tensor) -> Tensor:
        """(b, c) what the teacher says of standardized inputs, without gradient."""
        self.model.eval()
        with torch.no_grad():
            out: Tensor = self.model.to(inputs.device)(inputs)
        return out

    def objective(self) -> TeacherLoss:
        """For `modicum.training.fit`."""
        return TeacherLoss(self)


class TeacherLoss:
    """The objective: targets are what the teacher says of the very views that the student sees.

    `sum_k softmax(t / T)_k (log softmax(t / T)_k - log softmax(s / T)_k)` of teacher t and student s at temperature T, or
    the mean squared difference of logits.

    Args:
        teacher: Its answers are the targets.

    Example:
        >>> loss = TeacherLoss(Teacher(nn.Linear(2, 3), "linear"))
        >>> losses, outputs = loss(nn.Linear(2, 3), torch.rand(4, 2), torch.zeros(4), torch.arange(4))
        >>> losses.shape, outputs.shape
        (torch.Size([4]), torch.Size([4, 3]))

    Reference:
        Yin, Xing and Shen, Squeeze, Recover and Relabel, 2023, arXiv 2306.13092.
    """

    labels = False

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.description = f"teacher {teacher.description} T={teacher.temperature} {teacher.loss}"

    def __call__(self, model: nn.Module, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(b,) losses and (b, c) outputs."""
        told, outputs = self.teacher.logits(inputs), model(inputs)
        if self.teacher.loss == "mse":
            return (outputs - told).square().mean(1), outputs
        t = self.teacher.temperature
        losses = F.kl_div((outputs / t).log_softmax(1), (told / t).log_softmax(1), reduction="none", log_target=True)
        return losses.sum(1), outputs
