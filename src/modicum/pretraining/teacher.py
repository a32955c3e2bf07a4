"""A network that follows another one slowly."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

__all__ = ["Teacher", "cosine_momentum"]


class Teacher(nn.Module):
    """An exponential moving average of a module; no gradient reaches it, and it is saved with the learner.

    `update(m)` sets every parameter to m t + (1 - m) s, with t the teacher's and s the student's, and copies buffers
    such as the statistics of BatchNorm.

    Args:
        student: What is followed; the teacher begins as its copy.

    Example:
        >>> student = nn.Linear(2, 1)
        >>> teacher = Teacher(student)
        >>> teacher.update(student, 0.9)
        >>> bool((teacher(torch.ones(1, 2)) == student(torch.ones(1, 2))).all())
        True
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """What the averaged network gives."""
        out: Tensor = self.network(x)
        return out

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """Follow the student by one step."""
        own, other = ([p.detach() for p in module.parameters()] for module in (self.network, student))
        torch._foreach_lerp_(own, other, 1 - momentum)
        for mine, theirs in zip(self.network.buffers(), student.buffers(), strict=True):
            mine.copy_(theirs)


def cosine_momentum(base: float, step: int, steps: int) -> float:
    """m_t = 1 - (1 - m_0) (cos(pi t / T) + 1) / 2, from m_0 at the first step to 1 at the last.

    Example:
        >>> cosine_momentum(0.99, 0, 100), cosine_momentum(0.99, 100, 100)
        (0.99, 1.0)
    """
    return 1 - (1 - base) * (math.cos(math.pi * min(step, steps) / steps) + 1) / 2
