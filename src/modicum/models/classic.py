"""Older convolutional networks, on which synthetic sets are tested that were made with another one."""

from __future__ import annotations

from torch import Tensor, nn

from modicum.errors import ModicumError
from modicum.models.base import Network, instance_norm, positive

__all__ = ["VGG11", "AlexNet", "LeNet"]


class _Flat(Network):
    """Layers on images whose flattened result the head reads."""

    body: nn.Sequential

    def features(self, x: Tensor) -> Tensor:
        """(n, d) what the last linear layer reads."""
        out: Tensor = self.body(x).flatten(1)
        return out


class LeNet(_Flat):
    """Two convolutions 5x5 with max pooling, then linear layers of 120 and 84.

    Images below 32 px are padded by 2 in the first convolution, those below 20 px in the second too.

    Args:
        shape: (channels, height, width) of an image of at least 4 px.
        outputs: Number of classes, 1 for regression.

    Raises:
        ModicumError: The image is too small.

    Example:
        >>> sum(p.numel() for p in LeNet((1, 28, 28), 10).parameters())
        61706

    Reference:
        LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document Recognition, 1998.
    """

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        channels, *sides = _sides("lenet", shape, 4)
        first, second = 2 if min(sides) < 32 else 0, 2 if min(sides) < 20 else 0
        map_ = [((side + 2 * first - 4) // 2 + 2 * second - 4) // 2 for side in sides]
        self.body = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=first),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5, padding=second),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * map_[0] * map_[1], 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
        )
        self.head = nn.Linear(84, outputs)


class AlexNet(_Flat):
    """The small AlexNet of data set distillation: five convolutions, three max poolings, one linear layer, no norm.

    Images of one channel are padded by 4 in the first convolution, so that 28 px become 32.

    Args:
        shape: (channels, height, width) of an image of at least 8 px.
        outputs: Number of classes, 1 for regression.
        width: Channels of the first convolution; the others are 3/2, 2, 3/2 and 3/2 of it.

    Raises:
        ModicumError: The image is too small.

    Example:
        >>> sum(p.numel() for p in AlexNet((3, 32, 32), 10).parameters())
        1872202

    Reference:
        Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural Networks, 2012; as used
        by Zhao, Mopuri and Bilen, Dataset Condensation with Gradient Matching, 2021, arXiv 2006.05929.
    """

    def __init__(self, shape: tuple[int, ...], outputs: int, *, width: int = 128) -> None:
        super().__init__()
        channels, *sides = _sides("alexnet", shape, 8)
        positive(width=width)
        padding, middle = 4 if channels == 1 else 2, 3 * width // 2
        sides = [(side + 2 * padding - 4) >> 3 for side in sides]
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 5, padding=padding), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, middle, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(middle, 2 * width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(2 * width, middle, 3, padding=1), nn.ReLU(),
            nn.Conv2d(middle, middle, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.head = nn.Linear(middle * sides[0] * sides[1], outputs)


class VGG11(_Flat):
    """Eight convolutions 3x3 with norm, up to five max poolings, one linear layer.

    Images of 28 px are padded to 32. A map of 2 px is not pooled again before the last convolution, so that instance norm
    has something to standardize.

    Args:
        shape: (channels, height, width) of an image of at least 4 px.
        outputs: Number of classes, 1 for regression.
        width: Channels of the first convolution.
        norm: `instance`, or `batch`.

    Raises:
        ModicumError: The image is too small, or an option is wrong.

    Example:
        >>> sum(p.numel() for p in VGG11((3, 32, 32), 10).parameters())
        9231114

    Reference:
        Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015, arXiv 1409.1556.
    """

    def __init__(self, shape: tuple[int, ...], outputs: int, *, width: int = 64, norm: str = "instance") -> None:
        super().__init__()
        channels, *sides = _sides("vgg11", shape, 4)
        positive(width=width)
        if norm not in ("batch", "instance"):
            raise ModicumError(f"model option norm={norm!r}; expected 'batch' or 'instance'")
        padding = 3 if sides == [28, 28] else 1
        sides = [side + 2 * (padding - 1) for side in sides]
        layers: list[nn.Module] = []
        plan: tuple[tuple[int, bool], ...] = (
            (1, True), (2, True), (4, False), (4, True), (8, False), (8, True), (8, False), (8, True),
        )  # fmt: skip
        for at, (times, pooled) in enumerate(plan):
            layers += [
                nn.Conv2d(channels, times * width, 3, padding=1 if at else padding),
                nn.BatchNorm2d(times * width) if norm == "batch" else instance_norm(times * width),
                nn.ReLU(),
            ]
            channels = times * width
            if pooled and (at == len(plan) - 1 or min(sides) >= 4):
                layers.append(nn.MaxPool2d(2))
                sides = [side // 2 for side in sides]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels * sides[0] * sides[1], outputs)


def _sides(name: str, shape: tuple[int, ...], least: int) -> tuple[int, ...]:
    if min(shape[1:]) < least:
        raise ModicumError(f"{name} needs images of at least {least} px, got {shape[1]} x {shape[2]}; resize them")
    return shape
