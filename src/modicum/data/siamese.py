"""Differentiable siamese augmentation: real and synthetic images of a class go through the same random transform."""

from __future__ import annotations

import difflib
import math
import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.data.geometry import Crop, Flip
from modicum.data.operation import check
from modicum.data.pixels import Color
from modicum.dataset import Dataset
from modicum.errors import DataError, ModicumError, TrainingError

__all__ = ["DSA", "FAMILIES", "Transforms", "apply_dsa", "draw_dsa", "parse_strategy", "strategy_for"]

FAMILIES = ("color", "crop", "cutout", "flip", "scale", "rotate")


@dataclass(frozen=True)
class Transforms:
    """Random transforms, one a group of images.

    Args:
        names: Families that may be drawn; none is no transform.
        family: (g,) index into `names`.
        numbers: (g, 3) uniform in [0, 1); a family reads as many as it needs.
    """

    names: tuple[str, ...]
    family: Tensor
    numbers: Tensor

    def __len__(self) -> int:
        return len(self.family)


@dataclass(frozen=True)
class DSA:
    """The augmentation of training on synthetic images: one family a batch, with parameters of each image.

    Args:
        strategy: Families, such as `color_crop_cutout_flip_scale_rotate`.
        one_family: Whether all images of a batch share the family, as published.

    Raises:
        ModicumError: A family is unknown.
    """

    strategy: str = "color_crop_cutout_flip_scale_rotate"
    one_family: bool = True

    name: ClassVar[str] = "dsa"

    def __post_init__(self) -> None:
        check(self.name, "strategy", self.strategy, isinstance(self.strategy, str), "a text such as 'color_crop'")
        parse_strategy(self.strategy)

    def draw(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """(n, 4) the family of each image and its three numbers."""
        drawn = draw_dsa(parse_strategy(self.strategy), n, generator, one_family=self.one_family)
        return torch.cat([drawn.family[:, None].float(), drawn.numbers], 1)

    def apply(self, x: Tensor, parameters: Tensor) -> Tensor:
        """Each image by its own numbers."""
        drawn = Transforms(parse_strategy(self.strategy), parameters[:, 0].long().cpu(), parameters[:, 1:])
        return apply_dsa(x, drawn)


def parse_strategy(strategy: str) -> tuple[str, ...]:
    """The families of a strategy such as `color_crop_cutout_flip_scale_rotate`; `none` has none.

    Raises:
        ModicumError: A family is unknown or comes twice.

    Example:
        >>> parse_strategy("color_crop"), parse_strategy("none")
        (('color', 'crop'), ())
    """
    names = () if strategy in ("none", "") else tuple(strategy.split("_"))
    for name in names:
        if name not in FAMILIES:
            near = difflib.get_close_matches(name, FAMILIES, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ModicumError(
                f"augment={strategy!r}: family {name!r} is unknown; {hint}expected 'none' or some of "
                f"{'_'.join(FAMILIES)}"
            )
    if len(set(names)) < len(names):
        raise ModicumError(f"augment={strategy!r} names a family twice")
    return names


def strategy_for(key: str, augment: str, train: Dataset) -> tuple[str, ...]:
    """The families of a siamese augmentation; `auto` is the published strategy, without flip where classes are digits,
    and nothing on data without pixels.

    Raises:
        DataError: An augmentation of images was asked for, and the data have no pixels.
    """
    image, digits = train.info.modality == "image", set(train.info.classes) <= set("0123456789")
    if augment == "auto":
        return parse_strategy(f"color_crop_cutout_{'' if digits else 'flip_'}scale_rotate") if image else ()
    names = parse_strategy(augment)
    if names and not image:
        raise DataError(
            f"{key} augment={augment!r} is for images, but this data set is {train.info.modality}; use none"
        )
    if digits and "flip" in names:
        warnings.warn(f"{key} augment flips images of digits, which makes them others; leave flip out", stacklevel=4)
    return names


def draw_dsa(
    names: tuple[str, ...], groups: int, generator: torch.Generator, *, one_family: bool = False
) -> Transforms:
    """Draw a transform for each of so many groups.

    Args:
        names: Families, each drawn with equal probability.
        groups: Number of draws: of classes when matching, of images when training on synthetic data.
        generator: On the CPU.
        one_family: Whether all groups share the family and differ in its parameters only, as a batch does when a
            network is trained on synthetic data.

    Returns:
        The draws.

    Example:
        >>> draw = draw_dsa(("crop", "flip"), 10, torch.Generator().manual_seed(0))
        >>> len(draw), tuple(draw.numbers.shape)
        (10, (10, 3))
    """
    family = torch.randint(max(1, len(names)), (1 if one_family else groups,), generator=generator).expand(groups)
    return Transforms(names, family, torch.rand((groups, 3), generator=generator))


def apply_dsa(images: Tensor, draw: Transforms, groups: Tensor | None = None) -> Tensor:
    """Transform every image by the draw of its group; differentiable in the pixels.

    With u the numbers of the group:

    - color: `x + u_0 - 1/2`, then `2 u_1 (x - m) + m` with m the mean over channels of each pixel, then
      `(u_2 + 1/2)(x - m) + m` with m the mean of the image.
    - crop: a shift of at most `int(side / 8 + 1/2)` px each way, zeros outside.
    - cutout: a square of side `int(side / 2 + 1/2)` around a random place, clipped at the border, is set to zero.
    - flip: left and right, when `u_0 < 1/2`.
    - scale: both axes divided by factors in [1/1.2, 1.2], bilinear, zeros outside.
    - rotate: by an angle in [-15, 15] degrees, bilinear, zeros outside.

    Args:
        images: (n, channels, height, width) standardized: zero is the mean.
        draw: For g groups.
        groups: (n,) index of the group of each image; its row when None.

    Returns:
        (n, channels, height, width) images.

    Raises:
        TrainingError: Images have another shape, or there are no groups for them.

    Example:
        >>> x, g = torch.rand(4, 1, 8, 8), torch.Generator().manual_seed(0)
        >>> draw = draw_dsa(FAMILIES, 2, g)
        >>> bool((apply_dsa(x, draw, torch.tensor([0, 0, 1, 1]))[2:] == apply_dsa(x[2:], draw, torch.tensor([1, 1]))).all())
        True

    Reference:
        Zhao and Bilen, Dataset Condensation with Differentiable Siamese Augmentation, 2021, arXiv 2102.08259.
    """
    if images.ndim != 4:
        raise TrainingError(f"images must have shape (n, channels, height, width), got {tuple(images.shape)}")
    if groups is None and len(draw) != len(images):
        raise TrainingError(f"{len(images)} images need as many draws, got {len(draw)}; or give groups")
    if not draw.names:
        return images
    groups = torch.arange(len(images)) if groups is None else groups.cpu()
    family, numbers = draw.family[groups], draw.numbers[groups].to(images)
    if bool((family == family[:1]).all()):
        return _TRANSFORMS[draw.names[int(family[0])]](images, numbers) if len(images) else images
    # each family transforms only its own images, and they go back to their places
    order = family.argsort(stable=True)
    counts = torch.bincount(family, minlength=len(draw.names)).tolist()
    there = order.to(images.device)
    parts = zip(draw.names, torch.split(images[there], counts), torch.split(numbers[there], counts), strict=True)
    done = torch.cat([_TRANSFORMS[name](part, u) for name, part, u in parts if len(part)])
    return done[order.argsort().to(images.device)]


def _color(x: Tensor, u: Tensor) -> Tensor:
    return Color().apply(x, torch.stack([u[:, 0] - 0.5, 2 * u[:, 1], u[:, 2] + 0.5], 1))


def _crop(x: Tensor, u: Tensor) -> Tensor:
    most = [int(0.125 * side + 0.5) for side in x.shape[2:]]
    shift = torch.stack([_integer(u[:, i], 2 * k + 1) - k for i, k in enumerate(most)], 1)
    padding = max(1, *most)
    return Crop(padding).apply(x, shift + padding)


def _cutout(x: Tensor, u: Tensor) -> Tensor:
    height, width = x.shape[2:]
    keep = []
    for i, side in enumerate((height, width)):
        size = int(0.5 * side + 0.5)
        low = _integer(u[:, i], side + 1 - size % 2) - size // 2
        at = torch.arange(side, device=x.device)
        keep.append((at >= low[:, None]) & (at < low[:, None] + size))
    return x * (~(keep[0][:, None, :, None] & keep[1][:, None, None, :])).to(x.dtype)


def _flip(x: Tensor, u: Tensor) -> Tensor:
    return Flip().apply(x, u[:, :1] < 0.5)


def _scale(x: Tensor, u: Tensor) -> Tensor:
    low, high = 1 / 1.2, 1.2
    factor = u[:, :2] * (high - low) + low
    zero = torch.zeros_like(factor[:, 0])
    return _warp(x, factor[:, 0], zero, zero, factor[:, 1])


def _rotate(x: Tensor, u: Tensor) -> Tensor:
    angle = (u[:, 0] - 0.5) * (2 * 15 / 180 * math.pi)
    return _warp(x, angle.cos(), -angle.sin(), angle.sin(), angle.cos())


def _warp(x: Tensor, xx: Tensor, xy: Tensor, yx: Tensor, yy: Tensor) -> Tensor:
    """Read the image at `A (column, row)`, in coordinates from -1 to 1 at the outer edges of the border pixels."""
    row, column = ((torch.arange(n, device=x.device, dtype=x.dtype) * 2 + 1) / n - 1 for n in x.shape[2:])
    row, column = row[:, None], column[None, :]
    a, b, c, d = (t[:, None, None] for t in (xx, xy, yx, yy))
    grid = torch.stack([a * column + b * row, c * column + d * row], -1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _integer(u: Tensor, n: int) -> Tensor:
    """Uniform in [0, 1) to uniform in 0..n-1; rounding in low precision must not give n."""
    return (u * n).long().clamp(max=n - 1)


_TRANSFORMS = {"color": _color, "crop": _crop, "cutout": _cutout, "flip": _flip, "scale": _scale, "rotate": _rotate}
