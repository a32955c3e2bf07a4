"""Augmentations that move pixels: shifts, mirrors, holes, crops of any size, and blur."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.data.operation import check, is_number, is_share

__all__ = ["Blur", "Crop", "Cutout", "Flip", "ResizedCrop"]

ATTEMPTS = 10  # at a crop that fits, before the largest one in the middle is taken


@dataclass(frozen=True)
class Crop:
    """Pad with zeros and cut the original size out at a random place, the same as a shift.

    Args:
        padding: Largest shift in px, each way.
    """

    padding: int = 4
    name: ClassVar[str] = "crop"

    def __post_init__(self) -> None:
        check(self.name, "padding", self.padding, isinstance(self.padding, int) and self.padding >= 1, "px >= 1")

    def draw(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """(n, 2) top and left of the cut in the padded image, 0 to 2 padding."""
        return torch.randint(2 * self.padding + 1, (n, 2), generator=generator)

    def apply(self, x: Tensor, parameters: Tensor) -> Tensor:
        """The cuts."""
        n, c, h, w = x.shape
        p = self.padding
        flat = F.pad(x, (p, p, p, p)).reshape(-1)
        hp, wp = h + 2 * p, w + 2 * p
        top, left = parameters[:, 0, None, None], parameters[:, 1, None, None]
        first = torch.arange(n * c, device=x.device).reshape(n, c, 1) * (hp * wp)
        rows = first + (top + torch.arange(h, device=x.device)) * wp + left
        # whole rows are copied: a view in which every w neighbors are a row makes this one index_select
        every = flat.as_strided((flat.numel() - w + 1, w), (1, 1))
        return every.index_select(0, rows.reshape(-1)).reshape(n, c, h, w)


@dataclass(frozen=True)
class Flip:
    """Mirror left and right, every other image on average."""

    name: ClassVar[str] = "flip"

    def draw(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """(n, 1) whether."""
        return torch.rand((n, 1), generator=generator) < 0.5

    def apply(self, x: Tensor, parameters: Tensor) -> Tensor:
        """The images, some mirrored."""
        mirrored = parameters[:, :, None, None]
        return (x * ~mirrored).addcmul(x.flip(3), mirrored.to(x.dtype))  # exact, and faster than a broadcast where


@dataclass(frozen=True)
class Cutout:
    """Set a square around a random pixel to zero, clipped at the border.

    Args:
        size: Side of the square in px; half the smaller side of the image when None.

    Reference:
        DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017,
        arXiv 1708.04552.
    """

    size: int | None = None
    name: ClassVar[str] = "cutout"

    def __post_init__(self) -> None:
        good = self.size is None or (isinstance(self.size, int) and self.size >= 1)
        check(self.name, "size", self.size, good, "px >= 1")

    def draw(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """(n, 2) row and column of the center."""
        sides = torch.tensor(shape[1:])
        return (torch.rand((n, 2), generator=generator) * sides).long().minimum(sides - 1)

    def apply(self, x: Tensor, parameters: Tensor) -> Tensor:
        """The images with a hole."""
        size = self.size or max(1, min(x.shape[2:]) // 2)
        inside = []
        for axis in (0, 1):
            low = parameters[:, axis, None] - size // 2
            at = torch.arange(x.shape[2 + axis], device=x.device)
            inside.append((at >= low) & (at < low + size))
        outside = ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])
        return x * outside.to(x.dtype)  # ten times as fast on the CPU as a broadcast masked_fill


@dataclass(frozen=True)
class ResizedCrop:
    """Cut out a part of random area and shape, and resize it to the size of the image.

    The share of the area is uniform in `scale`, the logarithm of width over height uniform in that of `ratio`; both
    are drawn up to ten times until the part fits into the image, else the largest part of an allowed shape is cut from
    the middle. The resizing is bilinear within the part; a part is never larger than the image, so that there is
    nothing to smooth before.

    Args:
        scale: Least and largest share of the area.
        ratio: Least and largest width over height.

    Reference:
        Szegedy et al., Going Deeper with Convolutions, 2014, arXiv 1409.4842.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    name: ClassVar[str] = "resized_crop"

    def __post_init__(self) -> None:
        for option, high, expected in (
            ("scale", 1.0, "(least, largest) share of the area in (0, 1]"),
            ("ratio", math.inf, "(least, largest) width over height, > 0"),
        ):
            value = getattr(self, option)
            good = isinstance(value, (tuple, list)) and len(value) == 2 and all(is_number(v, 0.0, high) for v in value)
            check(self.name, option, value, good and 0 < value[0] <= value[1], expected)

    def draw(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """(n, 4) top, left, height and width of the part in px."""
        h, w = shape[1:]
        u = torch.rand((n, ATTEMPTS, 2), generator=generator, dtype=torch.float64)
        place = torch.rand((n, 2), generator=generator, dtype=torch.float64)
        area = h * w * (self.scale[0] + u[..., 0] * (self.scale[1] - self.scale[0]))
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = (low + u[..., 1] * (high - low)).exp()
        sides = torch.stack(((area / ratio).sqrt(), (area * ratio).sqrt()), -1).round()
        room = torch.tensor([h, w])
        fits = ((sides >= 1) & (sides <= room)).all(-1)
        sides = sides.gather(1, fits.int().argmax(1)[:, None, None].expand(n, 1, 2))[:, 0]
        corner = (place * (room - sides + 1)).floor()
        fallback = torch.tensor(self._middle(h, w), dtype=torch.float64)
        return torch.where(fits.any(1, keepdim=True), torch.cat((corner, sides), 1), fallback).float()

    def _middle(self, h: int, w: int) -> tuple[int, int, int, int]:
        height = min(h, max(1, round(w / self.ratio[0]))) if w / h < self.ratio[0] else h
        width = min(w, max(1, round(h * self.ratio[1]))) if w / h > self.ratio[1] else w
        return (h - height) // 2, (w - width) // 2, height, width

    def apply(self, x: Tensor, parameters: Tensor) -> Tensor:
        """The parts in the size of the image."""
        h, w = x.shape[2:]
        exact = x if x.dtype in (torch.float32, torch.float64) else x.float()
        top, left, height, width = parameters.to(exact.dtype).T[:, :, None]
        rows, columns = _sources(top, height, h), _sources(left, width, w)
        at = torch.stack((columns[:, None, :].expand(-1, h, -1), rows[:, :, None].expand(-1, -1, w)), -1)
        # one fused pass: three to twenty times as fast on the CPU as interpolation matrices or gathers
        return F.grid_sample(exact, at, padding_mode="border", align_corners=False).to(x.dtype)


def _sources(first: Tensor, length: Tensor, size: int) -> Tensor:
    """(n, size) where the pixels of the result come from, as `grid_sample` counts: the image is [-1, 1]."""
    to = torch.arange(size, dtype=first.dtype, device=first.device)
    inside = ((to + 0.5) * (length / size) - 0.5).clamp(min=0).minimum(length - 1)
    return (2 * (first + inside) + 1) / size - 1


@dataclass(frozen=True)
class Blur:
    """Gaussian blur of some images, each with its own width; borders are mirrored.

    The kernel reaches a twentieth of the smaller side each way, at least 1 px: 3 px wide in all for images of 32 px,
    23 px for 224 px.

    Args:
        p: Share of the images.
        sigma: Least and largest standard deviation in px.

    Reference:
        Chen, Kornblith, Norouzi and Hinton, A Simple Framework for Contrastive Learning of Visual Representations,
        2020, arXiv 2002.05709.
    """

    p: float = 0.5
    sigma: tuple[float, float] = (0.1, 2.0)
    name: ClassVar[str] = "blur"

    def __post_init__(self) -> None:
        check(self.name, "p", self.p, is_share(self.p), "a share in [0, 1]")
        value = self.sigma
        good = isinstance(value, (tuple, list)) and len(value) == 2 and all(is_number(v) for v in value)
        check(self.name, "sigma", value, good and 0 < value[0] <= value[1], "(least, largest) px, > 0")

    def draw(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """(n, 2) whether, and the standard deviation."""
        u = torch.rand((n, 2), generator=generator)
        low, high = self.sigma
        return torch.stack(((u[:, 0] < self.p).float(), low + u[:, 1] * (high - low)), 1)

    def apply(self, x: Tensor, parameters: Tensor) -> Tensor:
        """The blurred images."""
        reach = max(1, min(x.shape[2:]) // 20)
        sigma = parameters[:, 1:].double()
        kernel = torch.exp(-0.5 * (torch.arange(reach + 1) / sigma) ** 2)
        kernel = (kernel / (2 * kernel.sum(1, keepdim=True) - 1)).to(x.device, x.dtype)[:, :, None, None, None]
        for axis in (2, 3):
            size = x.shape[axis]
            if size == 1:
                continue
            ends = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
            padded = F.pad(x, ends, mode="reflect")
            x = x * kernel[:, 0]
            for i in range(1, reach + 1):  # taps, not a convolution: each image has its own kernel
                pair = padded.narrow(axis, reach - i, size) + padded.narrow(axis, reach + i, size)
                x.addcmul_(pair, kernel[:, i])
        return x
