"""What every loss on embeddings refuses."""

from __future__ import annotations

import math

from torch import Tensor

from modicum.errors import TrainingError

__all__ = ["check_temperature", "check_views"]


def check_temperature(temperature: float, name: str = "temperature") -> None:
    """Refuse a temperature that is not a positive number.

    Raises:
        TrainingError: It is not.
    """
    if not 0 < temperature < math.inf:
        raise TrainingError(f"{name}={temperature!r}; expected a number > 0")


def check_views(*views: Tensor, least: int = 2) -> None:
    """Refuse embeddings that are no views of the same batch.

    Raises:
        TrainingError: Their shapes differ, they are not (b, d) floating, or there are too few rows.
    """
    shapes = [tuple(view.shape) for view in views]
    if any(view.ndim != 2 or not view.is_floating_point() for view in views) or len(set(shapes)) > 1:
        raise TrainingError(
            f"embeddings have shapes {shapes} and types {[str(v.dtype) for v in views]}; expected floating tensors of the "
            "same shape (b, d), one row a sample in the same order"
        )
    if shapes and shapes[0][0] < least:
        raise TrainingError(
            f"embeddings hold {shapes[0][0]} samples; expected at least {least}, because samples are compared"
        )
