"""LARS: stochastic gradient descent whose step fits the size of each layer's weights, for large batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["LARS"]


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling with momentum.

    For a weight w of gradient g, learning rate lr, decay b and trust coefficient c: the gradient with decay g + b w is
    multiplied by c |w| / (|g| + b |w|), with `clip` at most lr times it (min(that / lr, 1)), so that no step is longer
    than one of SGD; then v <- m v + it and w <- w - lr v. Biases and scales of normalization (one-dimensional parameters)
    are neither rescaled nor decayed, nor is a weight rescaled that is all zero. Memory: one number a parameter.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate.
        momentum: m.
        weight_decay: b.
        trust: c.
        clip: Whether a step is at most as long as one of SGD.
        stacked: Whether the first dimension of every parameter counts models, each with norms of its own.

    Example:
        >>> w = torch.tensor([[3.0, 4.0]], requires_grad=True)
        >>> w.grad = torch.tensor([[0.0, 10.0]])
        >>> LARS([w], lr=1.0, trust=0.02).step()  # the step has length 0.02 * |w|
        >>> w.detach().tolist()
        [[3.0, 3.9000000953674316]]

    Reference:
        You, Gitman and Ginsburg, Large Batch Training of Convolutional Networks, 2017, arXiv 1708.03888.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.02,
        clip: bool = True,
        stacked: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "trust": trust, "clip": clip, "stacked": stacked})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; the closure, if any, is called first and its loss returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            velocities = [self._velocity(p) for p in weights]
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, [_scaled(p, p.grad, group) for p in weights])
            torch._foreach_add_(weights, velocities, alpha=-group["lr"])
        return loss

    def _velocity(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        velocity: Tensor = state["momentum_buffer"]
        return velocity


def _scaled(w: Tensor, g: Tensor, group: dict[str, Any]) -> Tensor:
    """The gradient with decay at the length that the weight's own allows; no number leaves the device."""
    first = int(group["stacked"])
    if w.ndim - first <= 1:
        return g
    dims = tuple(range(first, w.ndim))
    size = torch.linalg.vector_norm(w, dim=dims, keepdim=True)
    slope = torch.linalg.vector_norm(g, dim=dims, keepdim=True)
    factor = group["trust"] * size / (slope + group["weight_decay"] * size + 1e-8)
    if group["clip"]:
        factor = (factor / max(group["lr"], 1e-30)).clamp(max=1.0)
    factor = torch.where(size > 0, factor, 1.0)
    return torch.add(g, w, alpha=group["weight_decay"]) * factor
