"""A map of samples: places on a plane by what an encoder makes of them, and all their pictures in one."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from torch import Tensor

from modicum.arrays import NumPy
from modicum.errors import DataError

__all__ = ["plane", "sprite"]

FEWEST = 50  # samples for which neighborhoods are drawn; fewer are projected
DIMENSIONS = 50
TILES = 40  # pictures in a row


def plane(features: Tensor, seed: int = 0) -> tuple[NumPy, str]:
    """Places in the unit square: t-SNE of the directions of the features, or their principal components when few.

    Args:
        features: (n, d) finite numbers; only their directions are looked at, as nearest neighbors do.
        seed: Of t-SNE.

    Returns:
        (n, 2) within [0, 1], and what they are: `t-SNE` or `principal components`.

    Raises:
        DataError: There are no samples.

    Example:
        >>> import torch
        >>> places, kind = plane(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        >>> places.shape, kind
        ((3, 2), 'principal components')
    """
    if features.ndim != 2 or not len(features):
        raise DataError(f"features have shape {tuple(features.shape)}; expected (n, d) with at least one sample")
    rows = features.double().numpy()
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    rows = rows - rows.mean(0)
    left, size, _ = np.linalg.svd(rows, full_matrices=False)
    parts = (left * size)[:, :DIMENSIONS]
    parts = parts * np.where(parts[np.abs(parts).argmax(0), np.arange(parts.shape[1])] < 0, -1.0, 1.0)  # signs are free
    kind = "principal components"
    if len(rows) >= FEWEST and parts.shape[1] >= 2 and size[0] > 0:
        from sklearn.manifold import TSNE

        kind = "t-SNE"
        first = parts[:, :2] / max(float(parts[:, 0].std()), 1e-12) * 1e-4
        perplexity = min(30.0, (len(rows) - 1) / 3)
        parts = TSNE(init=first, perplexity=perplexity, random_state=seed).fit_transform(parts)
    places = np.zeros((len(rows), 2))
    places[:, : parts.shape[1]] = parts[:, :2]
    low, high = places.min(0), places.max(0)
    return (places - low) / np.maximum(high - low, 1e-12), kind


def sprite(images: Tensor, low: float, high: float, side: int = 32) -> tuple[bytes, int]:
    """Many small pictures in one JPEG, row by row, 40 in a row.

    Args:
        images: (n, c, h, w) with one channel or three.
        low: The stored value that is black.
        high: The stored value that is full brightness.
        side: Longest side of a picture.

    Returns:
        The bytes of the file, and the side of a tile.

    Raises:
        DataError: The shape is not that of pictures.

    Example:
        >>> import torch
        >>> made, side = sprite(torch.rand(3, 1, 8, 8), 0.0, 1.0)
        >>> made[:2].hex(), side
        ('ffd8', 8)
    """
    import torch.nn.functional as F
    from PIL import Image

    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise DataError(f"images have shape {tuple(images.shape)}; expected (n, 1, h, w) or (n, 3, h, w)")
    n, channels, height, width = images.shape
    longest = max(height, width)
    pixels = ((images.float().nan_to_num(low) - low) / (high - low)).clamp(0, 1)
    if longest > side:
        shape = (max(1, round(height * side / longest)), max(1, round(width * side / longest)))
        pixels, longest = F.interpolate(pixels, shape, mode="bilinear", antialias=True), side
    above, before = (longest - pixels.shape[2]) // 2, (longest - pixels.shape[3]) // 2
    rows = math.ceil(n / TILES)
    sheet: Any = np.zeros((rows * TILES, channels, longest, longest), np.uint8)
    sheet[:n, :, above : above + pixels.shape[2], before : before + pixels.shape[3]] = (pixels * 255).round().numpy()
    sheet = sheet.reshape(rows, TILES, channels, longest, longest).transpose(0, 3, 1, 4, 2)
    sheet = sheet.reshape(rows * longest, TILES * longest, channels)
    buffer = io.BytesIO()
    Image.fromarray(sheet[..., 0] if channels == 1 else sheet).save(buffer, "JPEG", quality=80)
    return buffer.getvalue(), longest
