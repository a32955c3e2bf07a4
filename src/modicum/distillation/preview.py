"""What a synthetic set looks like: its samples in the units of the data they stand for, and all of them on one sheet."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from modicum.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from modicum.dataset import Dataset
    from modicum.distillation.distilled import Distilled

__all__ = ["contact_sheet", "natural", "natural_span", "pixels"]

SIDE = 64  # of a picture on the sheet, at least; small images are enlarged by a whole number
ACROSS = 20
GAP = 2


def natural(made: Distilled) -> Dataset:
    """The samples in the units of the data that were distilled: whitening is undone.

    Example:
        >>> from modicum.dataset import Dataset
        >>> from modicum.distillation.distilled import Distilled
        >>> from modicum.training.recipe import Recipe
        >>> data = Dataset(torch.rand(2, 4), torch.tensor([0, 1]))
        >>> bool((natural(Distilled(data, Recipe(), "dm")).inputs == data.inputs).all())
        True
    """
    data = made.dataset
    if made.whitening is None:
        return data
    return data.replace(inputs=made.whitening.undo(data.inputs), info=replace(data.info, mean=(), std=()))


def natural_span(data: Dataset) -> tuple[float, float]:
    """The stored values that are black and white: 0 and 255 of integers, the extremes of some samples of floats.

    Example:
        >>> from modicum.dataset import Dataset
        >>> natural_span(Dataset(torch.tensor([[3, 200]], dtype=torch.uint8)))
        (0.0, 255.0)
    """
    if not data.inputs.is_floating_point():
        return 0.0, 255.0
    few = data.inputs[:: max(1, len(data) // 1000)].float()
    low, high = float(few.min()), float(few.max())
    return low, high if high > low else low + 1.0


def pixels(inputs: Tensor, span: tuple[float, float]) -> Tensor:
    """Images as whole numbers from 0 to 255; what is darker than black or brighter than white is clipped.

    Args:
        inputs: (n, channels, height, width).
        span: The values that are black and white.

    Returns:
        The same shape, uint8.

    Raises:
        DataError: The span is empty.

    Example:
        >>> pixels(torch.tensor([-1.0, 0.5, 2.0]), (0.0, 1.0)).tolist()
        [0, 128, 255]
    """
    low, high = span
    if not high > low:
        raise DataError(f"span={span!r} is empty; expected the value of black below that of white")
    unit = (inputs.float().nan_to_num(nan=low) - low) / (high - low)
    return (unit.clamp(0, 1) * 255).round().to(torch.uint8)


def contact_sheet(made: Distilled, span: tuple[float, float] | None = None) -> bytes:
    """All images of a set on one sheet, class after class, each class in rows of its own.

    Args:
        made: A set of images with one channel or three.
        span: The values that are black and white; those of the samples themselves when None.

    Returns:
        The bytes of a PNG file.

    Raises:
        DataError: The set holds no such images.

    Example:
        >>> from modicum.dataset import Dataset, Info
        >>> from modicum.distillation.distilled import Distilled
        >>> from modicum.training.recipe import Recipe
        >>> data = Dataset(torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), info=Info(modality="image", classes=("a", "b")))
        >>> contact_sheet(Distilled(data, Recipe(), "dm"))[1:4]
        b'PNG'
    """
    from PIL import Image

    shown = natural(made)
    if shown.info.modality != "image" or shown.inputs.ndim != 4 or shown.inputs.shape[1] not in (1, 3):
        raise DataError(
            f"inputs are {shown.info.modality} of shape {tuple(shown.inputs.shape[1:])}; expected images with 1 or 3 channels"
        )
    colored = pixels(shown.inputs, span or natural_span(shown)).expand(-1, 3, -1, -1)
    times = max(1, math.ceil(SIDE / max(colored.shape[2:])))
    colored = colored.repeat_interleave(times, 2).repeat_interleave(times, 3)
    groups = [colored[shown.labels == c] for c in sorted({*shown.labels.tolist()})]
    rows = [part for group in groups for part in torch.split(group, ACROSS)]
    high, wide = colored.shape[2] + GAP, colored.shape[3] + GAP
    sheet = torch.full((GAP + high * len(rows), GAP + wide * max(map(len, rows)), 3), 255, dtype=torch.uint8)
    for r, row in enumerate(rows):
        strip = torch.nn.functional.pad(row, (0, GAP, 0, GAP), value=255).permute(2, 0, 3, 1).flatten(1, 2)
        sheet[GAP + r * high : GAP + (r + 1) * high, GAP : GAP + strip.shape[1]] = strip
    buffer = io.BytesIO()
    Image.fromarray(sheet.numpy()).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
