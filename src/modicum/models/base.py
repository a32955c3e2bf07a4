"""What every architecture shares: a representation, and one linear layer on it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from modicum.errors import ModicumError, TrainingError

__all__ = ["Network", "features", "instance_norm", "positive"]


class Network(nn.Module):
    """A network whose output is `head(features(x))`; `head` is its last linear layer."""

    head: nn.Linear

    def features(self, x: Tensor) -> Tensor:
        """(n, d) the representation that the last linear layer reads."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(n, outputs) logits, or predictions of a regression."""
        out: Tensor = self.head(self.features(x))
        return out


def features(model: nn.Module, x: Tensor) -> Tensor:
    """The representation before the last linear layer, of any module.

    A `Network` gives it directly. Of any other module it is the input of the `nn.Linear` that runs last, caught by a
    hook; gradients flow through it.

    Args:
        model: A `Network`, or any module with at least one `nn.Linear`.
        x: (n, *shape) inputs as the model wants them.

    Returns:
        (n, d) features.

    Raises:
        TrainingError: No `nn.Linear` ran.

    Example:
        >>> import torch
        >>> features(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.rand(5, 4)).shape
        torch.Size([5, 3])
    """
    if isinstance(model, Network):
        return model.features(x)
    last: list[Tensor] = []

    def catch(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        last[:] = inputs[:1]

    handles = [m.register_forward_pre_hook(catch) for m in model.modules() if isinstance(m, nn.Linear)]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    if not last:
        raise TrainingError(
            f"model {type(model).__name__} runs no nn.Linear, so it has no features before its last linear layer; "
            "end it with an nn.Linear"
        )
    return last[0].flatten(1)


def instance_norm(channels: int) -> nn.GroupNorm:
    """Every channel of every image standardized by itself: no statistics to keep, so training and use agree."""
    return nn.GroupNorm(channels, channels)


def positive(**options: int) -> None:
    """Check that options of an architecture are integers of at least one.

    Raises:
        ModicumError: One is not; its name, value and what was expected.
    """
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModicumError(f"model option {name}={value!r}; expected an integer >= 1")
