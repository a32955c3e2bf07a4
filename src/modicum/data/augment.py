"""Batched augmentation: what is random is drawn for the whole batch first, then applied in one pass over tensors."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.errors import ModicumError, TrainingError
from modicum.spec import parse_call

__all__ = ["Augment", "Color", "Crop", "Cutout", "Draw", "Flip", "Mixup", "make_augment", "mixed_loss", "mixed_targets"]


class Operation(Protocol):
    """One augmentation of images; its parameters are one tensor with a row an image."""

    def draw(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """(n, k) parameters."""
        ...

    def apply(self, x: Tensor, parameters: Tensor) -> Tensor:
        """The augmented images, as a new tensor."""
        ...


@dataclass(frozen=True)
class Crop:
    """Pad with zeros and cut the original size out at a random place, the same as a shift.

    Args:
        padding: Largest shift in px, each way.
    """

    padding: int = 4
    name: ClassVar[str] = "crop"

    def __post_init__(self) -> None:
        _check(self.name, "padding", self.padding, isinstance(self.padding, int) and self.padding >= 1, "px >= 1")

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
        _check(self.name, "size", self.size, good, "px >= 1")

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
            _check(self.name, option, value, isinstance(value, (int, float)) and value >= 0, "a number >= 0")

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
class Mixup:
    """Mix every input with another one of the batch: lam x + (1 - lam) x[pair], lam ~ Beta(alpha, alpha).

    Args:
        alpha: Of the Beta distribution; small values mix little.

    Reference:
        Zhang, Cisse, Dauphin and Lopez-Paz, mixup: Beyond Empirical Risk Minimization, 2018, arXiv 1710.09412.
    """

    alpha: float = 0.2
    name: ClassVar[str] = "mixup"

    def __post_init__(self) -> None:
        _check(self.name, "alpha", self.alpha, isinstance(self.alpha, (int, float)) and self.alpha > 0, "a number > 0")

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, float]:
        """The partner of each input, and lam, one for the batch."""
        pair = torch.randperm(n, generator=generator)
        # a Gamma(alpha) number is one of Gamma(alpha + 1) times u^(1 / alpha); its logarithm does not underflow
        gamma = torch._standard_gamma(torch.full((2,), self.alpha + 1.0, dtype=torch.float64), generator=generator)
        u = torch.rand(2, generator=generator, dtype=torch.float64)
        a, b = gamma.log() + u.log() / self.alpha
        return pair, float(torch.sigmoid(a - b))


@dataclass(frozen=True)
class Draw:
    """What was drawn for a batch.

    Args:
        parameters: Of each operation, (n, k).
        pair: (n,) position of the partner in the batch when inputs are mixed, or None.
        lam: Share of the own input in the mixture.
    """

    parameters: tuple[Tensor, ...]
    pair: Tensor | None = None
    lam: float = 1.0

    def __getitem__(self, part: slice) -> Draw:
        """The same for a part of the batch.

        Raises:
            TrainingError: Inputs are mixed, and a partner may be in another part.
        """
        if self.pair is not None:
            raise TrainingError(
                "mixup pairs inputs of the whole batch; apply the draw to the whole, then take the part"
            )
        return Draw(tuple(p[part] for p in self.parameters))


@dataclass(frozen=True)
class Augment:
    """Augmentations in order; calling it draws and applies.

    Args:
        operations: On images, in the order of application.
        shape: Of one input.
        mixup: Applied last, or None.

    Example:
        >>> augment = make_augment(("crop(padding=1)", "flip"), (3, 8, 8))
        >>> x, generator = torch.rand(5, 3, 8, 8), torch.Generator().manual_seed(0)
        >>> draw = augment.draw(5, generator)
        >>> bool((augment.apply(x, draw)[2:] == augment.apply(x[2:], draw[2:])).all())
        True
    """

    operations: tuple[Operation, ...]
    shape: tuple[int, ...]
    mixup: Mixup | None = None

    def draw(self, n: int, generator: torch.Generator) -> Draw:
        """Everything that is random about a batch of n, from a CPU generator."""
        parameters = tuple(operation.draw(n, self.shape, generator) for operation in self.operations)
        return Draw(parameters, *(self.mixup.draw(n, generator) if self.mixup else ()))

    def apply(self, x: Tensor, draw: Draw) -> Tensor:
        """The augmented batch, in the dtype and memory format of x, which is not written to.

        Args:
            x: (n, *shape) inputs on any device, standardized: zero is the mean.
            draw: For as many inputs.

        Raises:
            TrainingError: The batch does not fit the shape or the draw.
        """
        rows = [len(p) for p in (*draw.parameters, *([] if draw.pair is None else [draw.pair]))]
        if tuple(x.shape[1:]) != self.shape or any(r != len(x) for r in rows):
            raise TrainingError(
                f"a batch of shape {tuple(x.shape)} does not fit an augmentation of {self.shape} inputs"
                + (f" drawn for {rows[0]}" if rows else "")
            )
        layout = _layout(x)
        for operation, parameters in zip(self.operations, draw.parameters, strict=True):
            x = operation.apply(x, parameters.to(x.device, non_blocking=True))
        if draw.pair is not None:
            x = x.lerp(x[draw.pair.to(x.device)], 1 - draw.lam)
        return x.contiguous(memory_format=layout)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Draw for the batch and apply.

        Raises:
            TrainingError: Inputs are mixed, so that the targets must be too.
        """
        if self.mixup is not None:
            raise TrainingError("mixup changes the targets too: use draw, apply, and mixed_loss or mixed_targets")
        return self.apply(x, self.draw(len(x), generator))


def mixed_loss(loss: Callable[[Tensor], Tensor], targets: Tensor, draw: Draw) -> Tensor:
    """The loss of a mixed batch: lam loss(y) + (1 - lam) loss(y[pair]); loss(y) when nothing was mixed.

    Args:
        loss: From targets to a scalar or to a number a sample.
        targets: (n, ...) of the batch before mixing.
        draw: What was drawn.

    Example:
        >>> draw = Draw((), torch.tensor([1, 0]), 0.75)
        >>> mixed_loss(lambda y: y.float(), torch.tensor([0, 4]), draw).tolist()
        [1.0, 3.0]
    """
    if draw.pair is None:
        return loss(targets)
    return draw.lam * loss(targets) + (1 - draw.lam) * loss(targets[draw.pair.to(targets.device)])


def mixed_targets(targets: Tensor, draw: Draw, classes: int) -> Tensor:
    """Targets of a mixed batch: lam y + (1 - lam) y[pair], class indices as soft labels.

    Cross-entropy is linear in the targets, so that it gives the same loss as `mixed_loss`.

    Args:
        targets: (n,) class indices, or (n, ...) floating soft labels or regression targets.
        draw: What was drawn; targets come back as they are when nothing was mixed.
        classes: Number of classes.

    Example:
        >>> mixed_targets(torch.tensor([0, 1]), Draw((), torch.tensor([1, 0]), 0.75), 2).tolist()
        [[0.75, 0.25], [0.25, 0.75]]
    """
    if draw.pair is None:
        return targets
    soft = targets if targets.is_floating_point() else F.one_hot(targets, classes).float()
    return soft.lerp(soft[draw.pair.to(soft.device)], 1 - draw.lam)


OPERATIONS: dict[str, type[Crop | Flip | Cutout | Color | Mixup]] = {
    kind.name: kind for kind in (Crop, Flip, Cutout, Color, Mixup)
}


def make_augment(specs: tuple[str, ...], shape: tuple[int, ...]) -> Augment:
    """Augmentations from their names.

    Args:
        specs: Names with options, such as `("crop(padding=4)", "flip")`, in the order of application; mixup is last.
        shape: Of one input: (channels, height, width) of images; mixup works on any.

    Raises:
        ModicumError: A name or option is unknown, or one is for images and the inputs are none.

    Example:
        >>> make_augment(("crop(padding=4)", "mixup(alpha=0.4)"), (3, 32, 32))
        Augment(operations=(Crop(padding=4),), shape=(3, 32, 32), mixup=Mixup(alpha=0.4))
    """
    operations: list[Operation] = []
    mixup = None
    for spec in specs:
        name, options = parse_call(spec)
        if name not in OPERATIONS:
            near = difflib.get_close_matches(name, OPERATIONS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ModicumError(f"augmentation {name!r} is unknown; {hint}expected {', '.join(OPERATIONS)}")
        kind = OPERATIONS[name]
        known = [f.name for f in dataclasses.fields(kind)]
        wrong = sorted(set(options) - set(known))
        if wrong:
            raise ModicumError(
                f"augmentation {name!r} has no option {wrong[0]!r}; its options are {', '.join(known) or 'none'}"
            )
        made = kind(**options)
        if isinstance(made, Mixup):
            mixup = made
        elif len(shape) != 3:
            raise ModicumError(f"augmentation {name!r} is for images, but an input has shape {shape}; only mixup fits")
        else:
            operations.append(made)
    return Augment(tuple(operations), tuple(shape), mixup)


def _layout(x: Tensor) -> torch.memory_format:
    last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _check(name: str, option: str, value: object, good: bool, expected: str) -> None:
    if isinstance(value, bool) or not good:
        raise ModicumError(f"augmentation {name!r}: {option}={value!r}; expected {expected}")
