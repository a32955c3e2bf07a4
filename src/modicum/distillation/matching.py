"""How far two gradients of a network are apart, and the gradients of all classes in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.grad import conv2d_weight

from modicum.errors import DataError, TrainingError

__all__ = ["Metric", "class_gradients", "class_loss", "gradient_distance", "set_statistics"]

Metric: TypeAlias = Literal["layers", "cos", "mse", "l1"]
TINY = 1e-6
LARGE = 2048  # numbers in a group, above which a processor gains nothing from a pass over all groups
Finish: TypeAlias = Callable[[bool], list[Tensor]]


def gradient_distance(a: Sequence[Tensor], b: Sequence[Tensor], metric: Metric = "layers") -> Tensor:
    """How far two gradients, given layer by layer, are apart.

    `layers` is one minus the cosine of each row, an output of a layer with all that leads to it, summed over rows and
    layers: `D = sum_l sum_r [1 - <a_lr, b_lr> / (||a_lr|| ||b_lr|| + 1e-6)]`. Tensors with one axis, such as biases and
    the scales of a normalization, contribute 0. The others take all numbers as one vector: `cos` is one minus its cosine,
    `mse` the squared distance and `l1` the sum of absolute differences.

    Args:
        a: Tensors of the shapes of parameters: (out, *rest).
        b: As many of the same shapes.
        metric: `layers`, `cos`, `mse` or `l1`.

    Returns:
        A scalar, differentiable in both.

    Raises:
        DataError: The shapes differ.
        TrainingError: The metric is unknown.

    Example:
        >>> a = [torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([5.0])]
        >>> b = [torch.tensor([[3.0, 0.0], [0.0, -1.0]]), torch.tensor([7.0])]
        >>> round(float(gradient_distance(a, b)), 4), float(gradient_distance(a, b, "mse"))
        (2.0, 17.0)

    Reference:
        Zhao, Mopuri and Bilen, Dataset Condensation with Gradient Matching, 2021, arXiv 2006.05929.
    """
    shapes = [[tuple(t.shape) for t in side] for side in (a, b)]
    if not a or shapes[0] != shapes[1]:
        raise DataError(f"a has shapes {shapes[0]} and b {shapes[1]}; expected the same, one a layer")
    if metric == "layers":
        terms = [_row_distance(p.flatten(1), q.flatten(1)) for p, q in zip(a, b, strict=True) if p.ndim > 1]
        return torch.stack(terms).sum() if terms else 0 * (a[0] * b[0]).sum()
    if metric not in ("cos", "mse", "l1"):
        raise TrainingError(f"metric={metric!r}; expected 'layers', 'cos', 'mse' or 'l1'")
    p, q = (torch.cat([t.flatten() for t in side]) for side in (a, b))
    if metric == "cos":
        return _row_distance(p[None], q[None])
    return (p - q).square().sum() if metric == "mse" else (p - q).abs().sum()


def _row_distance(p: Tensor, q: Tensor) -> Tensor:
    return (1 - (p * q).sum(1) / (_norm(p) * _norm(q) + TINY)).sum()


def _norm(rows: Tensor) -> Tensor:
    # a row of zeros, of a unit that is off for all samples, has no direction: its norm has the gradient 0, not NaN
    squares = rows.square().sum(1)
    return torch.where(squares > 0, squares, 1).sqrt() * (squares > 0)


def class_gradients(
    network: nn.Module, inputs: Tensor, labels: Tensor, weights: Tensor, *, least: int = 1, create_graph: bool = False
) -> list[Tensor]:
    """The gradient of the loss of each group of samples, usually a class, in one pass over all groups.

    `g_c = grad_theta sum_i w_ci l(theta; x_ci, y_ci)` with cross-entropy l. A network that treats every sample by itself
    makes one forward and one backward pass over the samples of all groups; of each convolution and linear layer that
    leaves its inputs and the gradients of its outputs, and their product within a group is the gradient of its weight.
    Other networks, and parameters of other kinds, go through `vmap(grad)`; on a processor, large groups one by one.

    Args:
        network: With batch normalization only in evaluation mode.
        inputs: (g, b, *shape) standardized samples of g groups; pad short groups with anything.
        labels: (g, b) class indices.
        weights: (g, b), such as 1 / b; 0 where a group is padded.
        least: Only parameters with so many axes: 2 leaves out biases and normalization, 4 all but convolutions.
        create_graph: Whether the result is differentiable in the inputs.

    Returns:
        (g, *shape) of each parameter, in the order of the network.

    Raises:
        DataError: Labels or weights do not fit the inputs.
        TrainingError: No parameter has so many axes.

    Example:
        >>> x, y, w = torch.rand(2, 3, 4), torch.tensor([[0, 0, 0], [1, 1, 1]]), torch.full((2, 3), 1 / 3)
        >>> [tuple(g.shape) for g in class_gradients(nn.Linear(4, 2), x, y, w)]
        [(2, 2, 4), (2, 2)]
    """
    return class_loss(network, inputs, labels, weights, least=least)(create_graph)


def class_loss(network: nn.Module, inputs: Tensor, labels: Tensor, weights: Tensor, *, least: int = 1) -> Finish:
    """The forward half of `class_gradients`, so that both can be counted.

    Returns:
        The backward half: it takes `create_graph` and gives the gradients.
    """
    if labels.shape != inputs.shape[:2] or weights.shape != inputs.shape[:2]:
        raise DataError(
            f"labels is {tuple(labels.shape)} and weights {tuple(weights.shape)}; expected {tuple(inputs.shape[:2])}, one "
            "a sample"
        )
    names = {name: p for name, p in network.named_parameters() if p.ndim >= least}
    if not names:
        raise TrainingError(f"the network has no parameter with {least} axes; use another network, such as convnet")
    if len(inputs) == 1:
        return _plain(network, names, inputs[0], labels[0], weights[0])
    if inputs.device.type == "cpu" and inputs[0].numel() > LARGE:
        groups = [class_loss(network, x, y, w, least=least) for x, y, w in _one_by_one(inputs, labels, weights)]
        return lambda create_graph: [
            torch.cat(t) for t in zip(*(finish(create_graph) for finish in groups), strict=True)
        ]
    layers = _layers(network, names)
    if layers is not None and not any(getattr(module, "inplace", False) for module in network.modules()):
        caught = _catch(network, layers, inputs.flatten(0, 1))
        if caught is not None:
            return lambda create_graph: _products(*caught, inputs.shape[:2], labels, weights, create_graph)
    return lambda create_graph: _by_vmap(network, names, inputs, labels, weights, create_graph)


def _one_by_one(*columns: Tensor) -> list[tuple[Tensor, ...]]:
    return list(zip(*(torch.split(column, 1) for column in columns), strict=True))


def _plain(network: nn.Module, names: dict[str, nn.Parameter], x: Tensor, labels: Tensor, weights: Tensor) -> Finish:
    """One group: automatic differentiation as it is."""
    moving = {name: p.detach().requires_grad_() for name, p in names.items()}
    with torch.enable_grad():
        losses = F.cross_entropy(functional_call(network, moving, (x,)), labels, reduction="none")
        loss = (losses * weights.to(losses)).sum()

    def finish(create_graph: bool) -> list[Tensor]:
        return [g[None] for g in torch.autograd.grad(loss, list(moving.values()), create_graph=create_graph)]

    return finish


def _layers(network: nn.Module, names: dict[str, nn.Parameter]) -> list[Any] | None:
    """The layers that have these parameters as their weights, when they all are plain ones."""
    layers = []
    for name in names:
        module_name, _, what = name.rpartition(".")
        module = network.get_submodule(module_name)
        plain = isinstance(module, nn.Linear) or (
            isinstance(module, nn.Conv2d)
            and module.groups == 1
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        )
        if what != "weight" or not plain:
            return None
        layers.append(module)
    return layers


def _catch(network: nn.Module, layers: list[Any], x: Tensor) -> tuple[Tensor, list[Any]] | None:
    """The outputs for all samples, and (layer, its input, its output) of each layer; None when one ran not just once."""
    caught: dict[nn.Module, list[tuple[Any, Tensor, Tensor]]] = {layer: [] for layer in layers}

    def catch(layer: nn.Module, given: tuple[Any, ...], out: Tensor) -> None:
        if not out.requires_grad:
            out.requires_grad_()
        caught[layer].append((layer, given[0], out))

    # the weights themselves stand still: only what flows through the samples is differentiated
    asked = [p for p in network.parameters() if p.requires_grad]
    handles = [layer.register_forward_hook(catch) for layer in caught]
    try:
        for p in asked:
            p.requires_grad_(False)
        with torch.enable_grad():
            out = network(x)
    finally:
        for handle in handles:
            handle.remove()
        for p in asked:
            p.requires_grad_(True)
    fits = all(
        len(rows) == 1
        and len(rows[0][2]) == len(x)
        and (rows[0][2].ndim == 2 or isinstance(layer, nn.Conv2d))
        # what was written over is not the output of the layer any more
        and not rows[0][2]._version
        for layer, rows in caught.items()
    )
    return (out, [caught[layer][0] for layer in layers]) if fits else None


def _products(
    out: Tensor, caught: list[Any], sizes: Sequence[int], labels: Tensor, weights: Tensor, create_graph: bool
) -> list[Tensor]:
    losses = F.cross_entropy(out, labels.flatten(), reduction="none")
    loss = (losses * weights.flatten().to(losses)).sum()
    slopes = torch.autograd.grad(loss, [row[2] for row in caught], create_graph=create_graph)
    with torch.set_grad_enabled(create_graph):
        return [
            (_linear if isinstance(layer, nn.Linear) else _conv)(layer, given, slope, *sizes)
            for (layer, given, _), slope in zip(caught, slopes, strict=True)
        ]


def _linear(layer: nn.Linear, given: Tensor, slope: Tensor, groups: int, size: int) -> Tensor:
    return slope.reshape(groups, size, -1).transpose(1, 2) @ given.reshape(groups, size, -1)


def _conv(layer: nn.Conv2d, given: Tensor, slope: Tensor, groups: int, size: int) -> Tensor:
    if not slope.requires_grad and slope.device.type == "cpu":
        # the library's own kernel, group by group, is 1.4 to 3 times faster than products of unfolded images
        parts = zip(torch.split(given.detach(), size), torch.split(slope, size), strict=True)
        how = (layer.stride, layer.padding, layer.dilation)
        return torch.stack([conv2d_weight(x, layer.weight.shape, s, *how) for x, s in parts])  # type: ignore[no-untyped-call]
    columns = F.unfold(given, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
    rows, columns = (
        t.reshape(groups, size, t.shape[1], -1).transpose(1, 2).flatten(2) for t in (slope.flatten(2), columns)
    )
    return (rows @ columns.transpose(1, 2)).reshape(groups, *layer.weight.shape)


def _by_vmap(
    network: nn.Module,
    names: dict[str, nn.Parameter],
    inputs: Tensor,
    labels: Tensor,
    weights: Tensor,
    create_graph: bool,
) -> list[Tensor]:
    still = {name: p.detach() for name, p in network.named_parameters() if name not in names}
    state = {**still, **dict(network.named_buffers())}

    def loss(moving: dict[str, Tensor], x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        losses = F.cross_entropy(functional_call(network, {**state, **moving}, (x,)), y, reduction="none")
        return (losses * w.to(losses)).sum()

    moving = {name: p.detach() for name, p in names.items()}
    with torch.set_grad_enabled(create_graph):
        made: dict[str, Tensor] = vmap(grad(loss), (None, 0, 0, 0))(moving, inputs, labels, weights)
    return [made[name] for name in names]


def set_statistics(network: nn.Module, inputs: Tensor) -> None:
    """Give batch normalization the statistics of some samples and freeze them; other networks are left alone.

    Args:
        network: It is left in the mode it was in, but for its batch normalization, in evaluation mode.
        inputs: (n, *shape) standardized samples of all classes.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.momentum = 1.0
        m.train()
    with torch.no_grad():
        network(inputs)
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
        m.eval()
