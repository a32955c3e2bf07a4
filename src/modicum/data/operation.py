"""What an augmentation of images is, and the check of its options."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from modicum.errors import ModicumError

__all__ = ["Operation", "apply_to_some", "check", "is_number", "is_share"]


class Operation(Protocol):
    """One augmentation of images; its parameters are one tensor with a row an image.

    An operation with a share `p` of images has whether as its first parameter, and is applied to those images alone.
    """

    def draw(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """(n, k) parameters."""
        ...

    def apply(self, x: Tensor, parameters: Tensor) -> Tensor:
        """The augmented images, as a new tensor."""
        ...


def apply_to_some(operation: Operation, x: Tensor, parameters: Tensor) -> Tensor:
    """Apply an operation to the images that its draw says.

    Args:
        operation: Of images.
        x: (n, c, h, w) on any device; not written to.
        parameters: (n, k) on the CPU.

    Returns:
        (n, c, h, w); x itself where no image is concerned.
    """
    if not hasattr(operation, "p"):
        return operation.apply(x, parameters.to(x.device, non_blocking=True))
    at = parameters[:, 0].nonzero().flatten()  # on the CPU, so that no accelerator is waited for
    if not len(at):
        return x
    if len(at) == len(x):
        return operation.apply(x, parameters)
    there = at.to(x.device, non_blocking=True)
    return x.index_copy(0, there, operation.apply(x.index_select(0, there), parameters[at]))


def check(name: str, option: str, value: object, good: bool, expected: str) -> None:
    """Refuse an option of an augmentation.

    Raises:
        ModicumError: It is no good, or a truth value.
    """
    if isinstance(value, bool) or not good:
        raise ModicumError(f"augmentation {name!r}: {option}={value!r}; expected {expected}")


def is_number(value: object, low: float = 0.0, high: float = float("inf")) -> bool:
    """Whether it is a finite number in [low, high]."""
    return isinstance(value, (int, float)) and low <= value <= high and abs(value) != float("inf")


def is_share(value: object) -> bool:
    """Whether it is a number in [0, 1]."""
    return is_number(value, 0.0, 1.0)
