"""Losses and gradients of many multilayer perceptrons at once, each layer one batched product, without autograd."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modicum.models import MLP, Linear

__all__ = ["chain_backward", "chain_forward", "chain_of", "output_gradient"]


def chain_of(model: nn.Module) -> list[str]:
    """Names of the linear layers of a network that is nothing but those with a ReLU between; else none.

    Example:
        >>> chain_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
        ['1', '3']
    """
    if type(model) is Linear:
        return ["head"]
    if type(model) is MLP:
        return [*(f"body.{i}" for i in range(0, len(model.body), 2)), "head"]
    layers = list(model) if type(model) is nn.Sequential else []
    first = 1 if layers and type(layers[0]) is nn.Flatten and layers[0].start_dim == 1 else 0
    kinds = [type(layer) for layer in layers[first:]]
    linear = layers[first::2]
    if kinds != [nn.Linear, *[nn.ReLU, nn.Linear] * (len(kinds) // 2)] or any(layer.bias is None for layer in linear):
        return []
    return [str(i) for i in range(first, len(layers), 2)]


def chain_forward(layers: list[str], parameters: Mapping[str, Tensor], inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    """h_0 = x, h_l = relu(W_l h_{l-1} + b_l), and o = W_L h_{L-1} + b_L.

    The outputs have the classes before the samples: with the long dimension last, products and softmax over few
    classes take a fifth of the time.

    Args:
        layers: From `chain_of`.
        parameters: (m, *shape) weights and biases of m models.
        inputs: (m, b, *shape).

    Returns:
        (m, c, b) outputs, and the (m, b, d) input of every layer.
    """
    h = inputs.flatten(2)
    hidden = [h]
    for layer in layers[:-1]:
        h = torch.baddbmm(parameters[f"{layer}.bias"][:, None], h, parameters[f"{layer}.weight"].mT).relu_()
        hidden.append(h)
    weight, bias = parameters[f"{layers[-1]}.weight"], parameters[f"{layers[-1]}.bias"]
    return torch.baddbmm(bias[:, :, None], weight, h.mT), hidden


def output_gradient(logs: Tensor, targets: Tensor, gain: Tensor | float, smoothing: float) -> Tensor:
    """The gradient of cross-entropy toward the outputs: (softmax - target) times the weight of the sample.

    Args:
        logs: (m, c, b) log-softmax of the outputs.
        targets: (m, b) class indices or (m, b, c) soft labels.
        gain: (m, b) weights of the samples, or one for all.
        smoothing: Probability mass spread over all classes.

    Returns:
        (m, c, b).
    """
    gradient, share = logs.exp(), smoothing / logs.shape[1]
    if targets.is_floating_point():
        mixed = targets.mT * (1 - smoothing) + share * targets.sum(-1)[:, None] if smoothing else targets.mT
        gradient = gradient * targets.sum(-1)[:, None] - mixed
    else:
        one = torch.full((1, 1, 1), smoothing - 1, dtype=logs.dtype, device=logs.device)
        gradient.scatter_add_(1, targets[:, None], one.expand(len(targets), 1, targets.shape[1]))
        if smoothing:
            gradient -= share
    return gradient.mul_(gain if isinstance(gain, float) else gain[:, None])


def chain_backward(
    layers: list[str], parameters: Mapping[str, Tensor], hidden: list[Tensor], gradient: Tensor
) -> dict[str, Tensor]:
    """Gradients of all parameters, contiguous.

    Args:
        layers: From `chain_of`.
        parameters: As in `chain_forward`.
        hidden: From `chain_forward`.
        gradient: (m, c, b) of the outputs.

    Returns:
        (m, *shape) by name.
    """
    found: dict[str, Tensor] = {}
    turned = gradient  # (m, d, b)
    for depth in range(len(layers) - 1, -1, -1):
        layer = layers[depth]
        found[f"{layer}.weight"] = torch.bmm(turned, hidden[depth])
        found[f"{layer}.bias"] = turned.sum(2)
        if depth:
            back = torch.bmm(turned.mT, parameters[f"{layer}.weight"])
            turned = torch.ops.aten.threshold_backward(back, hidden[depth], 0).mT
    return found
