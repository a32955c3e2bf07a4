"""Networks on flattened inputs: one linear layer, and the multilayer perceptron."""

from __future__ import annotations

from itertools import pairwise
from math import prod

from torch import Tensor, nn

from modicum.models.base import Network, positive

__all__ = ["MLP", "Linear"]


class Linear(Network):
    """Softmax or linear regression: W x + b on the flattened input.

    Args:
        shape: Of one input.
        outputs: Number of classes, 1 for regression.

    Example:
        >>> sum(p.numel() for p in Linear((64,), 10).parameters())
        650
    """

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(prod(shape), outputs)

    def features(self, x: Tensor) -> Tensor:
        """(n, d) the flattened input."""
        return x.flatten(1)


class MLP(Network):
    """Multilayer perceptron: hidden layers with ReLU, then the linear head.

    Args:
        shape: Of one input; it is flattened.
        outputs: Number of classes, 1 for regression.
        hidden: Width of every hidden layer.
        layers: Number of hidden layers.

    Raises:
        ModicumError: An option is not an integer >= 1.

    Example:
        >>> sum(p.numel() for p in MLP((64,), 10, hidden=32, layers=1).parameters())
        2410
    """

    def __init__(self, shape: tuple[int, ...], outputs: int, *, hidden: int = 128, layers: int = 2) -> None:
        super().__init__()
        positive(hidden=hidden, layers=layers)
        widths = [prod(shape), *[hidden] * layers]
        self.body = nn.Sequential(*(m for a, b in pairwise(widths) for m in (nn.Linear(a, b), nn.ReLU())))
        self.head = nn.Linear(hidden, outputs)

    def features(self, x: Tensor) -> Tensor:
        """(n, hidden) the last hidden layer."""
        out: Tensor = self.body(x.flatten(1))
        return out
