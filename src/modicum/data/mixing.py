"""Inputs mixed with others of their batch, and what that does to targets and losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.data.operation import check, is_number
from modicum.errors import ModicumError, TrainingError

__all__ = ["CutMix", "Draw", "Mixup", "cutmix", "mixed_loss", "mixed_targets", "paste"]


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
        check(self.name, "alpha", self.alpha, is_positive(self.alpha), "a number > 0")

    def draw(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, float]:
        """The partner of each input, and lam, one for the batch."""
        pair = torch.randperm(n, generator=generator)
        return pair, beta(self.alpha, generator)


@dataclass(frozen=True)
class CutMix:
    """Paste a box of another input of the batch into every one, as `cutmix` does with `majority=False`.

    Args:
        alpha: Of the Beta distribution of the share that is kept.

    Reference:
        Yun, Han, Oh, Chun, Choe and Yoo, CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
        Features, 2019, arXiv 1905.04899.
    """

    alpha: float = 1.0
    name: ClassVar[str] = "cutmix"

    def __post_init__(self) -> None:
        check(self.name, "alpha", self.alpha, is_positive(self.alpha), "a number > 0")

    def draw(
        self, n: int, shape: tuple[int, ...], generator: torch.Generator
    ) -> tuple[Tensor, float, tuple[int, int, int, int]]:
        """The partner of each input, the share that is kept, and the box."""
        pair = torch.randperm(n, generator=generator)
        box = draw_box(shape, 1 - beta(self.alpha, generator), generator)
        return pair, 1 - share_of(box, shape), box


@dataclass(frozen=True)
class Draw:
    """What was drawn for a batch.

    Args:
        parameters: Of each operation, (n, k).
        pair: (n,) position of the partner in the batch when inputs are mixed, or None.
        lam: Share of the own input in the mixture.
        box: Top, bottom, left and right of what the partner gives, or None when all of it is mixed in.
    """

    parameters: tuple[Tensor, ...]
    pair: Tensor | None = None
    lam: float = 1.0
    box: tuple[int, int, int, int] | None = None

    def __getitem__(self, part: slice) -> Draw:
        """The same for a part of the batch.

        Raises:
            TrainingError: Inputs are mixed, and a partner may be in another part.
        """
        if self.pair is not None:
            raise TrainingError(
                "mixup and cutmix pair inputs of the whole batch; apply the draw to the whole, then take the part"
            )
        return Draw(tuple(p[part] for p in self.parameters))


def cutmix(
    x: Tensor, alpha: float, generator: torch.Generator, *, majority: bool = True
) -> tuple[Tensor, Tensor, float]:
    """Paste a box of another image of the batch into every image.

    lam ~ Beta(alpha, alpha); the box has the share 1 - lam of the image, is centered at a random pixel and clipped at
    the border, and lam becomes the share of the image that is left. One lam, box and permutation serve the batch. The
    loss of a mixed image is lam loss(own target) + (1 - lam) loss(target of its pair).

    Args:
        x: (n, c, h, w) images; not written to.
        alpha: Of the Beta distribution, > 0.
        generator: On the CPU.
        majority: Use max(lam, 1 - lam), so that before clipping at most half of an image is another's.

    Returns:
        The mixed images (n, c, h, w), the position (n,) of each image's pair, on the device of x, and lam.

    Raises:
        ModicumError: alpha is not a number > 0, or x are no images.

    Example:
        >>> x = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 8, 8)
        >>> mixed, pair, lam = cutmix(x, 0.5, torch.Generator().manual_seed(0))
        >>> bool((mixed.mean((1, 2, 3)) - (lam * x[:, 0, 0, 0] + (1 - lam) * pair)).abs().max() < 1e-6)
        True

    Reference:
        Yun, Han, Oh, Chun, Choe and Yoo, CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
        Features, 2019, arXiv 1905.04899.
    """
    check("cutmix", "alpha", alpha, is_positive(alpha), "a number > 0")
    if x.ndim != 4:
        raise ModicumError(
            f"augmentation 'cutmix': x has shape {tuple(x.shape)}; expected images (n, channels, height, width)"
        )
    pair = torch.randperm(len(x), generator=generator)
    lam = beta(alpha, generator)
    box = draw_box(tuple(x.shape), 1 - (max(lam, 1 - lam) if majority else lam), generator)
    pair = pair.to(x.device)
    return paste(x, pair, box), pair, 1 - share_of(box, tuple(x.shape))


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


def paste(x: Tensor, pair: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """The images (n, c, h, w) with the box (top, bottom, left, right) of their pairs, as a new tensor."""
    top, bottom, left, right = box
    mixed = x.clone()
    mixed[:, :, top:bottom, left:right] = x[:, :, top:bottom, left:right][pair]
    return mixed


def share_of(box: tuple[int, int, int, int], shape: tuple[int, ...]) -> float:
    """Area of the box over that of the image."""
    top, bottom, left, right = box
    return (bottom - top) * (right - left) / (shape[-2] * shape[-1])


def beta(alpha: float, generator: torch.Generator) -> float:
    """One number from Beta(alpha, alpha), also where alpha is so small that the usual ratio is 0 / 0."""
    # a Gamma(alpha) number is one of Gamma(alpha + 1) times u^(1 / alpha); its logarithm does not underflow
    gamma = torch._standard_gamma(torch.full((2,), alpha + 1.0, dtype=torch.float64), generator=generator)
    u = torch.rand(2, generator=generator, dtype=torch.float64)
    a, b = gamma.log() + u.log() / alpha
    return float(torch.sigmoid(a - b))


def draw_box(shape: tuple[int, ...], share: float, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a box of this share of the image, around a random pixel, clipped at the border."""
    sides = torch.tensor(shape[-2:])
    half = (sides * max(0.0, share) ** 0.5).long() // 2
    center = (torch.rand(2, generator=generator) * sides).long().minimum(sides - 1)
    low, high = (center - half).clamp(min=0), (center + half).minimum(sides)
    return int(low[0]), int(high[0]), int(low[1]), int(high[1])


def is_positive(value: object) -> bool:
    """Whether it is a finite number above 0."""
    return is_number(value) and value != 0
