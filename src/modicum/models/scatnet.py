"""ScatNet: a fixed wavelet scattering of the image, and a small residual network that adapts it."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from modicum.errors import ModicumError
from modicum.models.base import Network
from modicum.models.resnet import Block
from modicum.models.scattering import Scattering

__all__ = ["ScatNet"]

ADAPTERS = {
    8: (32, [64] * 4 + [128] * 4),
    12: (256, [128] * 4 + [64] * 4 + [128] * 4),
    16: (256, [128] * 6 + [64] * 4 + [128] * 6),
    30: (256, [128] * 30),
    45: (256, [128] * 15 + [64] * 15 + [128] * 15),
}
"""Channels of the first convolution and of the residual blocks, by their number, as published."""


class ScatNet(Network):
    """Scattering of every channel, one convolution, residual blocks of stride 1, and a 4 x 4 grid of means.

    The scattering has no weights, so that few samples are enough; with 16 angles and 30 blocks the rest has 11.0
    million, with 8 angles and 8 blocks 1.5 million.

    Args:
        shape: (channels, height, width) of an image; the sides are multiples of 2^scales.
        outputs: Number of classes, 1 for regression.
        scales: Of the wavelets; the maps are 2^scales times coarser than the image.
        angles: Of the wavelets; published 16, at four times the time of 8.
        blocks: 8, 12, 16, 30 or 45 residual blocks.
        standardize: Whether the scattering maps are batch-normalized; their orders differ in size by a factor of ten.

    Raises:
        ModicumError: An option makes no sense or does not fit the images.

    Example:
        >>> sum(p.numel() for p in ScatNet((3, 32, 32), 10).parameters())
        1486634

    Reference:
        Kinakh, Taran and Voloshynovskiy, ScatSimCLR: self-supervised contrastive learning with pretext task
        regularization for small-scale datasets, 2021, arXiv 2108.13939.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: int,
        *,
        scales: int = 2,
        angles: int = 8,
        blocks: int = 8,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        if blocks not in ADAPTERS:
            raise ModicumError(f"model option blocks={blocks!r}; expected {', '.join(map(str, ADAPTERS))}")
        channels, height, width = shape
        self.scattering = Scattering((height, width), scales=scales, angles=angles)
        maps = channels * self.scattering.maps
        first, widths = ADAPTERS[blocks]
        self.norm = nn.BatchNorm2d(maps) if standardize else nn.Identity()
        self.body = nn.Sequential(
            nn.Conv2d(maps, first, 3, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            *(Block(a, b, 1, nn.BatchNorm2d) for a, b in pairwise([first, *widths])),
            nn.AdaptiveAvgPool2d(4),
        )
        self.head = nn.Linear(16 * widths[-1], outputs)

    def features(self, x: Tensor) -> Tensor:
        """(n, 2048) the means of 128 channels on a grid of 4 x 4."""
        out: Tensor = self.body(self.norm(self.scattering(x).flatten(1, 2))).flatten(1)
        return out
