"""A short code of what an image looks like."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from modicum.data.raw import Array
from modicum.errors import DataError

__all__ = ["packed", "perceptual_hash"]

SIDE, LOW = 32, 8
BLOCK = 4096  # images


def perceptual_hash(images: Tensor) -> Tensor:
    """64 bits of each image that change little with size, brightness, contrast and compression.

    The image is averaged over its channels, resized to 32 x 32 pixels, and transformed by the two-dimensional cosine
    transform `C X C'` with C[k, i] = cos(pi k (2 i + 1) / 64); of the 8 x 8 lowest frequencies without the constant, and
    the next one of the first row in its place, each bit says whether the coefficient is above their median. Images of the
    same thing differ in a few bits, unrelated ones in about half. Small or plain images (digits) have few frequencies,
    and different ones may share a code.

    Args:
        images: (n, channels, height, width).

    Returns:
        (n, 64) booleans.

    Raises:
        DataError: Another shape.

    Example:
        >>> image = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
        >>> int((perceptual_hash(image) ^ perceptual_hash(0.5 * image + 0.2)).sum())
        0

    Reference:
        Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.
    """
    if images.ndim != 4:
        raise DataError(f"images have shape {tuple(images.shape)}; expected (n, channels, height, width)")
    place = torch.arange(SIDE, dtype=torch.float32, device=images.device)
    waves = torch.cos(math.pi / (2 * SIDE) * torch.arange(LOW + 1, device=images.device)[:, None] * (2 * place + 1))
    codes = []
    for part in torch.split(images, BLOCK):
        gray = part.float().mean(1, keepdim=True)
        small = torch.nn.functional.interpolate(gray, (SIDE, SIDE), mode="bilinear", antialias=True)[:, 0]
        found = waves @ small @ waves.T
        low = found[:, :LOW, :LOW].flatten(1).clone()
        low[:, 0] = found[:, 0, LOW]  # the constant says how bright it is
        codes.append(low > low.median(1, keepdim=True).values)
    return torch.cat(codes)


def packed(bits: Tensor) -> Array:
    """(n,) uint64 of (n, 64) bits.

    Example:
        >>> packed(torch.arange(64)[None] == torch.tensor([[0], [63]])).tolist()
        [1, 9223372036854775808]
    """
    weights = np.uint64(1) << np.arange(LOW * LOW, dtype=np.uint64)
    codes: Array = (bits.cpu().numpy().astype(np.uint64) * weights).sum(1, dtype=np.uint64)
    return codes
