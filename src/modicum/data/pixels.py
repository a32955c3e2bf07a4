"""Augmentations of colors: one on standardized images, the others on pixels from black at 0 to white at 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from modicum.data.operation import check, is_number, is_share
from modicum.dataset import Dataset

__all__ = ["Color", "Gray", "Jitter", "Pixels", "Solarize"]

LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue, as BT.601 and everybody's gray images


@dataclass(frozen=True)
class Pixels:
    """Between standardized inputs x and pixels: pixel = (x std + mean) / white.

    Args:
        mean: What was subtracted from the stored inputs, per channel; empty when nothing was.
        std: What they were divided by.
        white: The stored value of white.
        bounded: Whether all pixels lie in [0, 1], so that what is beyond after a change of color is clamped.

    Example:
        >>> pixels = Pixels(mean=(127.5,), std=(63.75,), white=255.0, bounded=True)
        >>> pixels.enter(torch.tensor([[[[-2.0, 0.0, 2.0]]]])).tolist()
        [[[[0.0, 0.5, 1.0]]]]
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    white: float = 1.0
    bounded: bool = False

    @classmethod
    def of(cls, data: Dataset) -> Pixels:
        """How a data set stores pixels.

        White is 255 where images are stored as uint8. Of floating images white is 1: nothing is guessed from their
        range, but where a stored value is below 0 or above 1 nothing is clamped.
        """
        if data.inputs.dtype == torch.uint8:
            return cls(data.info.mean, data.info.std, 255.0, True)
        bounded = bool(data.inputs.numel()) and bool(data.inputs.min() >= 0) and bool(data.inputs.max() <= 1)
        return cls(data.info.mean, data.info.std, 1.0, bounded)

    def _line(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.tensor(self.mean or (0.0,), dtype=torch.float64) / self.white
        std = torch.tensor(self.std or (1.0,), dtype=torch.float64) / self.white
        return std.reshape(-1, 1, 1), mean.reshape(-1, 1, 1)

    def enter(self, x: Tensor) -> Tensor:
        """Pixels of standardized inputs (n, c, h, w)."""
        slope, start = self._line(x)
        return torch.addcmul(start.to(x), x, slope.to(x))

    def leave(self, x: Tensor) -> Tensor:
        """Standardized inputs of pixels (n, c, h, w)."""
        slope, start = self._line(x)
        return torch.addcmul((-start / slope).to(x), x, (1 / slope).to(x))


@dataclass(frozen=True)
class Color:
    """Random brightness, then saturation, then contrast of standardized images.

    x + b; then (x - m) s + m with m the mean over the channels of a pixel; then (x - m) c + m with m the mean over
    the image.

    Args:
        brightness: b is uniform in [-brightness, brightness], in standard deviations of the data.
        contrast: c is uniform in [1 - contrast, 1 + contrast].
        saturation: s is uniform in [1 - saturation, 1 + saturation].
    """

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    name: ClassVar[str] = "color"

    def __post_init__(self) -> None:
        for option in ("brightness", "contrast", "saturation"):
            value = getattr(self, option)
            check(self.name, option, value, isinstance(value, (int, float)) and value >= 0, "a number >= 0")

    def draw(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """(n, 3) brightness, saturation and contrast."""
        amounts = torch.tensor([self.brightness, self.saturation, self.contrast])
        return (2 * torch.rand((n, 3), generator=generator) - 1) * amounts + torch.tensor([0.0, 1.0, 1.0])

    def apply(self, x: Tensor, parameters: Tensor) -> Tensor:
        """The images in other colors."""
        brightness, saturation, contrast = parameters.to(x.dtype).T[:, :, None, None, None]
        x = x + brightness
        mean = x.mean(1, keepdim=True)
        x = (x - mean) * saturation + mean
        mean = x.mean((1, 2, 3), keepdim=True)
        out: Tensor = (x - mean) * contrast + mean
        return out


@dataclass(frozen=True)
class Jitter:
    """Random brightness, contrast, saturation and hue of some images, one after the other, as torchvision has them.

    Brightness: f x. Contrast: f x + (1 - f) m with m the mean gray of the image. Saturation: f x + (1 - f) g with g
    the gray of the pixel. Hue: turned by a share of the color circle, at the same least and greatest channel of each
    pixel. Results are clamped to [0, 1] after each. The order is random, one for the batch; everything else is drawn
    for each image. Saturation and hue leave images alone that do not have 3 channels.

    Args:
        brightness: f is uniform in [max(0, 1 - brightness), 1 + brightness].
        contrast: The same.
        saturation: The same.
        hue: The share of the circle is uniform in [-hue, hue], at most half.
        p: Share of the images.
        bounded: Clamp to [0, 1].
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    p: float = 0.8
    bounded: bool = True
    name: ClassVar[str] = "jitter"

    def __post_init__(self) -> None:
        for option in ("brightness", "contrast", "saturation"):
            value = getattr(self, option)
            check(self.name, option, value, is_number(value), "a number >= 0")
        check(self.name, "hue", self.hue, is_number(self.hue, 0.0, 0.5), "a number in [0, 0.5]")
        check(self.name, "p", self.p, is_share(self.p), "a share in [0, 1]")

    def draw(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """(n, 9) whether; the place in the order of each of the four changes; their amounts."""
        u = torch.rand((n, 5), generator=generator)
        order = torch.randperm(4, generator=generator).float().expand(n, 4)
        widest = torch.tensor([self.brightness, self.contrast, self.saturation, self.hue])
        low = torch.tensor([max(0.0, 1 - self.brightness), max(0.0, 1 - self.contrast), max(0.0, 1 - self.saturation)])
        low = torch.cat((low, -widest[3:]))
        high = widest + torch.tensor([1.0, 1.0, 1.0, 0.0])
        return torch.cat(((u[:, :1] < self.p).float(), order, low + u[:, 1:] * (high - low)), 1)

    def apply(self, x: Tensor, parameters: Tensor) -> Tensor:
        """The images in other colors."""
        amounts = parameters[:, 5:].to(x.device, x.dtype).T[:, :, None, None, None]
        for change in parameters[0, 1:5].argsort().tolist():
            if not (self.brightness, self.contrast, self.saturation, self.hue)[change]:
                continue
            if change >= 2 and x.shape[1] != 3:
                continue
            x = (_brighten, _contrast, _saturate, _turn)[change](x, amounts[change])
            if self.bounded and change != 3:  # a hue is as light as before
                x = x.clamp_(0, 1)
        return x


def _brighten(x: Tensor, by: Tensor) -> Tensor:
    return x * by


def _contrast(x: Tensor, by: Tensor) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    mean = _gray(mean) if x.shape[1] == 3 else mean.mean(1, keepdim=True)
    return torch.addcmul(mean * (1 - by), x, by)


def _saturate(x: Tensor, by: Tensor) -> Tensor:
    return torch.addcmul(_gray(x) * (1 - by), x, by)


def _turn(x: Tensor, by: Tensor) -> Tensor:
    """Turn hues h, of which red is 0, green 2 and blue 4 of 6, at the same greatest and least channel of each pixel."""
    red, green, blue = x[:, 0], x[:, 1], x[:, 2]
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    extent = high - low
    per = 1 / extent.clamp(min=torch.finfo(x.dtype).tiny)
    # lerp by a sign of 0 or 1 is an exact choice, and ten times as fast on the CPU as torch.where
    other = torch.lerp((blue - red) * per + 2, (red - green) * per + 4, (high - green).sign_())
    hue = torch.lerp((green - blue) * per, other, (high - red).sign_()) + 6 * by[:, 0]
    hue -= (hue / 6).floor_().mul_(6)
    out = torch.empty_like(x)
    shares = ((hue - 3).abs_().sub_(1), (hue - 2).abs_().neg_().add_(2), (hue - 4).abs_().neg_().add_(2))
    for channel, share in enumerate(shares):
        torch.addcmul(low, extent, share.clamp_(0, 1), out=out[:, channel])
    return out


def _gray(x: Tensor) -> Tensor:
    """(n, 1, h, w) lightness of red, green and blue."""
    return (x[:, 0:1] * LUMA[0]).add_(x[:, 1:2], alpha=LUMA[1]).add_(x[:, 2:3], alpha=LUMA[2])


@dataclass(frozen=True)
class Gray:
    """Make some images gray: 0.2989 red + 0.587 green + 0.114 blue; images that do not have 3 channels stay.

    Args:
        p: Share of the images.
    """

    p: float = 0.2
    name: ClassVar[str] = "gray"

    def __post_init__(self) -> None:
        check(self.name, "p", self.p, is_share(self.p), "a share in [0, 1]")

    def draw(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """(n, 1) whether."""
        return (torch.rand((n, 1), generator=generator) < self.p).float()

    def apply(self, x: Tensor, parameters: Tensor) -> Tensor:
        """The images without colors."""
        return _gray(x).expand_as(x).clone() if x.shape[1] == 3 else x


@dataclass(frozen=True)
class Solarize:
    """Turn light pixels of some images into their negatives: 1 - x where x is at least the threshold.

    Args:
        p: Share of the images.
        threshold: Lightness from which on pixels are turned.
    """

    p: float = 0.2
    threshold: float = 0.5
    name: ClassVar[str] = "solarize"

    def __post_init__(self) -> None:
        check(self.name, "p", self.p, is_share(self.p), "a share in [0, 1]")
        check(self.name, "threshold", self.threshold, is_share(self.threshold), "a number in [0, 1]")

    def draw(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """(n, 1) whether."""
        return (torch.rand((n, 1), generator=generator) < self.p).float()

    def apply(self, x: Tensor, parameters: Tensor) -> Tensor:
        """The images, light pixels turned."""
        return torch.where(x >= self.threshold, 1 - x, x)
