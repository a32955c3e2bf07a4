"""What every layer reads and the gradients at what it gives: all that Kronecker factors and their scores are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.errors import ModicumError
from modicum.measurement.curvature import Loss, losses_of

__all__ = ["Labels", "fits", "layers_of", "signals"]

Labels: TypeAlias = Literal["model", "expected", "data"]


def layers_of(model: nn.Module, names: Sequence[str] = ()) -> dict[str, nn.Module]:
    """The layers by name that K-FAC is made for: those asked for, or every layer with parameters.

    Raises:
        ModicumError: A layer is not linear or a plain convolution, is not there, or shares its weight; it is named.
    """
    every = dict(model.named_modules())
    unknown = sorted(set(names) - set(every))
    if unknown:
        raise ModicumError(f"layers: the model has no layer {unknown[0]!r}; it has {', '.join(n for n in every if n)}")
    chosen = {n: m for n, m in every.items() if (n in names if names else any(True for _ in m.parameters(False)))}
    seen: dict[int, str] = {}
    fitting = [name for name, layer in chosen.items() if fits(layer)]
    for name, layer in chosen.items():
        if not fits(layer):
            other = f"layers={fitting}" if fitting else "another solver"
            raise ModicumError(
                f"layer {name!r} is a {type(layer).__name__}, for which there are no Kronecker factors; expected "
                f"nn.Linear or nn.Conv2d with groups=1: leave it out with {other}, or use solver='cg'"
            )
        weight = id(layer.weight)
        if weight in seen:
            raise ModicumError(f"layers {seen[weight]!r} and {name!r} share one weight; use solver='cg'")
        seen[weight] = name
    if not chosen:
        raise ModicumError(f"model {type(model).__name__} has no layer with parameters")
    return chosen


def fits(layer: nn.Module) -> bool:
    """Whether there are Kronecker factors for this kind of layer."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def signals(
    model: nn.Module, layers: dict[str, nn.Module], loss: Loss, x: Tensor, y: Tensor | None, *, labels: Labels = "data",
    draw: torch.Generator | None = None,
) -> tuple[list[Tensor], Iterator[list[Tensor]]]:  # fmt: skip
    """What every layer read, and the gradients at what it gave, from one forward pass.

    Args:
        model: In evaluation mode.
        layers: By name.
        loss: Of the data, or of the model's own distribution.
        x: (b, *shape).
        y: (b, ...) for the labels of the data.
        labels: `data`: the gradient of the loss; `model`: that at one label drawn from the model; `expected`: as many
            as the outputs have columns, whose outer products add up to the expectation over labels.
        draw: For `model`.

    Returns:
        (b, i), or (b, t, i) where a layer is applied t times to a sample, for each layer; and an iterator that gives,
        once for each backward pass, (b, o) or (b, t, o) for each layer.
    """
    read: dict[str, list[Tensor]] = {name: [] for name in layers}
    gave: dict[str, list[Tensor]] = {name: [] for name in layers}

    def hook(name: str) -> Any:
        def catch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            output = output if output.requires_grad else output.detach().requires_grad_()
            read[name].append(inputs[0].detach())
            gave[name].append(output)
            return output.clone()  # what follows may write in place

        return catch

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        with torch.enable_grad():
            outputs = model(x)
            own = losses_of(loss, outputs, y).sum() if labels == "data" and y is not None else None
    finally:
        for handle in handles:
            handle.remove()
    for name in layers:
        if not read[name]:
            raise ModicumError(f"layer {name!r} takes no part in the forward pass; leave it out of layers")
    tensors = [tensor for name in layers for tensor in gave[name]]
    starts: list[Any] = [None] if own is not None else _pseudo(loss, outputs.detach(), labels, draw)

    def backward() -> Iterator[list[Tensor]]:
        for at, start in enumerate(starts):
            target = outputs if own is None else own
            more = at + 1 < len(starts)
            found = iter(torch.autograd.grad(target, tensors, start, retain_graph=more))
            yield [_joined([_signal(layer, next(found)) for _ in gave[n]]) for n, layer in layers.items()]

    return [_joined([_augmented(layer, a) for a in read[name]]) for name, layer in layers.items()], backward()


def _pseudo(loss: Loss, outputs: Tensor, labels: Labels, draw: torch.Generator | None) -> list[Tensor]:
    """Gradients at the outputs whose mean outer product is the Fisher matrix of the model's own distribution."""
    if loss not in ("cross-entropy", "squared") or labels not in ("model", "expected"):
        raise ModicumError(
            f"labels={labels!r} with loss={loss!r}: expected 'data', or 'model' or 'expected' with a loss that is a "
            "distribution, 'cross-entropy' or 'squared'"
        )
    c = outputs.shape[-1]
    eye = torch.eye(c, dtype=outputs.dtype, device=outputs.device)
    if loss == "squared":
        if labels == "model":
            return [torch.randn(outputs.shape, generator=draw, dtype=outputs.dtype).to(outputs.device)]
        return [row.expand(outputs.shape) for row in eye]
    p = outputs.softmax(-1)
    if labels == "model":
        drawn = torch.multinomial(p.reshape(-1, c).cpu(), 1, generator=draw).to(p.device)
        return [p - F.one_hot(drawn.reshape(p.shape[:-1]), c)]
    # diag(p) - p p^T = B B^T with the columns sqrt(p_k) (e_k - p)
    return [p[..., k : k + 1].sqrt() * (eye[k] - p) for k in range(c)]


def _augmented(layer: nn.Module, a: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        sides: Any = layer._reversed_padding_repeated_twice
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        a = F.unfold(F.pad(a, sides, mode=mode), layer.kernel_size, layer.dilation, stride=layer.stride).mT
    elif a.ndim > 2:
        a = a.flatten(1, -2)
    return F.pad(a, (0, 1), value=1.0) if layer.bias is not None else a


def _signal(layer: nn.Module, s: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        return s.flatten(2).mT
    return s.flatten(1, -2) if s.ndim > 2 else s


def _joined(parts: list[Tensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0]  # a layer that is used again is one that is applied to more positions
    return torch.cat([part if part.ndim == 3 else part[:, None] for part in parts], 1)
