"""Residual networks for small images: the nine-layer one of fast training, and ResNet-18 with the CIFAR stem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from modicum.errors import ModicumError
from modicum.models.base import Network, instance_norm, positive

__all__ = ["ResNet18", "ResNet9"]

Norm = Literal["batch", "instance"]


class ResNet9(Network):
    """Eight convolutions with two residual pairs, a global maximum, and a linear layer.

    Args:
        shape: (channels, height, width) of an image, at least 8 px (16 px with instance norm).
        outputs: Number of classes, 1 for regression.
        width: Channels of the first convolution; they grow to eight times that.
        norm: `batch`, or `instance` for a network without running statistics.

    Raises:
        ModicumError: The image is too small, or an option is wrong.

    Example:
        >>> sum(p.numel() for p in ResNet9((3, 32, 32), 10).parameters())
        6573130

    Reference:
        Page, How to Train Your ResNet, 2018; Coleman et al., DAWNBench, 2017.
    """

    def __init__(self, shape: tuple[int, ...], outputs: int, *, width: int = 64, norm: Norm = "batch") -> None:
        super().__init__()
        make_norm = _norm(norm)
        positive(width=width)
        _large_enough("resnet9", shape, 8 if norm == "batch" else 16, norm)
        w = width

        def conv(a: int, b: int, pool: bool = False) -> nn.Sequential:
            layers = [nn.Conv2d(a, b, 3, padding=1, bias=False), make_norm(b), nn.ReLU()]
            return nn.Sequential(*layers, nn.MaxPool2d(2)) if pool else nn.Sequential(*layers)

        self.body = nn.Sequential(
            conv(shape[0], w),
            conv(w, 2 * w, pool=True),
            _Residual(nn.Sequential(conv(2 * w, 2 * w), conv(2 * w, 2 * w))),
            conv(2 * w, 4 * w, pool=True),
            conv(4 * w, 8 * w, pool=True),
            _Residual(nn.Sequential(conv(8 * w, 8 * w), conv(8 * w, 8 * w))),
        )
        self.head = nn.Linear(8 * w, outputs)

    def features(self, x: Tensor) -> Tensor:
        """(n, 8 width) the largest value of each channel."""
        out: Tensor = self.body(x).amax((2, 3))
        return out


class ResNet18(Network):
    """ResNet-18 whose stem is one 3x3 convolution without pooling, as is usual on 32 px images.

    Args:
        shape: (channels, height, width) of an image (above 8 px with instance norm).
        outputs: Number of classes, 1 for regression.
        width: Channels of the first stage.
        norm: `batch`, or `instance` for a network without running statistics.

    Raises:
        ModicumError: The image is too small, or an option is wrong.

    Example:
        >>> sum(p.numel() for p in ResNet18((3, 32, 32), 10).parameters())
        11173962

    Reference:
        He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, 2016, arXiv 1512.03385.
    """

    def __init__(self, shape: tuple[int, ...], outputs: int, *, width: int = 64, norm: Norm = "batch") -> None:
        super().__init__()
        make_norm = _norm(norm)
        positive(width=width)
        _large_enough("resnet18", shape, 1 if norm == "batch" else 9, norm)
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        stages = [
            block
            for a, b, stride in zip(widths, widths[1:], (1, 2, 2, 2), strict=False)
            for block in (Block(a, b, stride, make_norm), Block(b, b, 1, make_norm))
        ]
        stem = [nn.Conv2d(shape[0], width, 3, padding=1, bias=False), make_norm(width), nn.ReLU()]
        self.body = nn.Sequential(*stem, *stages)
        self.head = nn.Linear(8 * width, outputs)

    def features(self, x: Tensor) -> Tensor:
        """(n, 8 width) the mean of each channel."""
        out: Tensor = self.body(x).mean((2, 3))
        return out


class _Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class Block(nn.Module):
    """Two 3x3 convolutions around which the input passes, projected where the shape changes."""

    def __init__(self, inside: int, outside: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
            norm(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
            norm(outside),
        )
        same = inside == outside and stride == 1
        projection = [] if same else [nn.Conv2d(inside, outside, 1, stride, bias=False), norm(outside)]
        self.shortcut = nn.Sequential(*projection)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.body(x) + self.shortcut(x))


def _norm(norm: str) -> Callable[[int], nn.Module]:
    if norm not in ("batch", "instance"):
        raise ModicumError(f"model option norm={norm!r}; expected 'batch' or 'instance'")
    return nn.BatchNorm2d if norm == "batch" else instance_norm


def _large_enough(name: str, shape: tuple[int, ...], least: int, norm: str) -> None:
    # instance norm of a map of one pixel is zero whatever the image is
    if min(shape[1:]) < least:
        raise ModicumError(
            f"{name}(norm={norm!r}) needs images of at least {least} px, got {shape[1]} x {shape[2]}; "
            "resize them, or use mlp or convnet"
        )
