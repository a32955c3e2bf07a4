"""ConvNet-D: the network by which distilled data sets are compared."""

from __future__ import annotations

from itertools import pairwise
from math import log2

from torch import Tensor, nn

from modicum.errors import ModicumError
from modicum.models.base import Network, instance_norm, positive

__all__ = ["ConvNet", "depth_for"]


class ConvNet(Network):
    """D blocks of convolution 3x3, normalization, ReLU and average pooling by 2, then one linear layer.

    Images of 28 px become 32 px by a padding of 3 in the first convolution. With width 128 and 10 classes it has
    320,010 parameters on 3 x 32 x 32 and 317,706 on 1 x 28 x 28.

    Args:
        shape: (channels, height, width) of an image.
        outputs: Number of classes, 1 for regression.
        width: Channels of the first block.
        depth: Number of blocks; by default 2 for 8 px, 3 for 28 and 32 px, 4 for 64 px, 5 for 128 px, 6 for 256 px.
        norm: `instance`, or `none`.
        growth: How many times as many channels every block has as the one before.

    Raises:
        ModicumError: A side is not divisible by 2^depth, an option is not an integer >= 1, or the norm is unknown.

    Example:
        >>> sum(p.numel() for p in ConvNet((3, 32, 32), 10).parameters())
        320010

    Reference:
        Gidaris and Komodakis, Dynamic Few-Shot Visual Learning without Forgetting, 2018, arXiv 1804.09458; as used
        by Zhao, Mopuri and Bilen, Dataset Condensation with Gradient Matching, 2021, arXiv 2006.05929.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: int,
        *,
        width: int = 128,
        depth: int | None = None,
        norm: str = "instance",
        growth: int = 1,
    ) -> None:
        super().__init__()
        if norm not in ("instance", "none"):
            raise ModicumError(f"convnet option norm={norm!r}; expected 'instance' or 'none'")
        channels, *sides = shape
        padding = 3 if sides == [28, 28] else 1
        sides = [side + 2 * (padding - 1) for side in sides]
        depth = depth_for(sides) if depth is None else depth
        positive(width=width, depth=depth, growth=growth)
        if any(side % 2**depth for side in sides):
            fits = depth_for(sides, 0)
            raise ModicumError(
                f"convnet(depth={depth}) halves the image {depth} times, but {sides[0]} x {sides[1]} px is not "
                f"divisible by {2**depth}; {f'choose depth={fits}, ' if fits else ''}resize the images, or use mlp"
            )
        blocks: list[nn.Module] = []
        widths = [channels, *(width * growth**i for i in range(depth))]
        for i, (inside, out) in enumerate(pairwise(widths)):
            blocks += [
                nn.Conv2d(inside, out, 3, padding=1 if i else padding),
                *([instance_norm(out)] if norm == "instance" else []),
                nn.ReLU(),
                nn.AvgPool2d(2),
            ]
        self.body = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1] * (sides[0] >> depth) * (sides[1] >> depth), outputs)

    def features(self, x: Tensor) -> Tensor:
        """(n, channels * height / 2^depth * width / 2^depth) the flattened map of the last block."""
        out: Tensor = self.body(x).flatten(1)
        return out


def depth_for(sides: list[int], least: int = 1) -> int:
    """Blocks that leave a map of 4 px (2 px of images below 16 px), fewer where a side is not divisible so often.

    Example:
        >>> [depth_for([side, side]) for side in (8, 16, 32, 64, 128, 256, 30)]
        [2, 2, 3, 4, 5, 6, 1]
    """
    side = min(sides)
    wanted = int(log2(side / (4 if side >= 16 else 2))) if side >= 2 else 0
    return max(least, next((d for d in range(wanted, 0, -1) if all(s % 2**d == 0 for s in sides)), 0))
