"""Gradients of single samples: whole, of the last layer in closed form, their norms, and their products with a vector."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from modicum.errors import DataError, TrainingError
from modicum.measurement.layers import Term, Vector, has_formula, terms_of

__all__ = [
    "Function",
    "PerSample",
    "cross_entropy",
    "gradient_norms",
    "gradient_products",
    "last_layer_gradients",
    "log_odds",
    "mean_gradient",
    "per_sample_gradients",
    "squared_error",
]

Function: TypeAlias = Callable[[Tensor, Tensor], Tensor]
BLOCK = 1 << 22  # entries of the gradients that are made at a time
ROWS = 256  # samples at a time, at most
ACTIVATIONS = 1 << 21  # of the layers at a time: more no longer fit in the caches
ENTRIES = 1 << 16  # of the inputs at a time in forward mode
PROBES = 2  # samples on which the formulas are checked against autograd


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """(b,) cross-entropy in nats of logits (b, c) for class indices (b,) or soft labels (b, c)."""
    return F.cross_entropy(outputs, targets, reduction="none")


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """(b,) mean squared error of the predictions of each sample."""
    return (outputs.reshape(targets.shape) - targets).square().reshape(len(targets), -1).mean(1)


def log_odds(outputs: Tensor, targets: Tensor) -> Tensor:
    """The log of the odds of the label, the output that TRAK linearizes.

    `f = log(p_y / (1 - p_y)) = z_y - log sum_{c != y} exp(z_c)`, so that the loss is `log(1 + exp(-f))` and its
    derivative for f is `-(1 - p_y)`; no probability is formed, so that none overflows.

    Args:
        outputs: (b, c) logits, c >= 2.
        targets: (b,) class indices, or (b, c) soft labels, of which the most probable class counts.

    Returns:
        (b,) in nats.

    Example:
        >>> log_odds(torch.tensor([[100.0, -100.0], [0.0, 0.0]]), torch.tensor([0, 1])).tolist()
        [200.0, 0.0]
    """
    labels = targets.argmax(-1) if targets.is_floating_point() else targets
    own = labels.unsqueeze(-1) == torch.arange(outputs.shape[-1], device=outputs.device)
    others = outputs.masked_fill(own, float("-inf")).logsumexp(-1)
    return outputs.gather(-1, labels.unsqueeze(-1)).squeeze(-1) - others


def per_sample_gradients(
    model: nn.Module, inputs: Tensor, targets: Tensor, function: Function = cross_entropy
) -> Tensor:
    """The gradient of every sample for all parameters that require one.

    `g_i = grad_theta function(model(x_i), y_i)`, in evaluation mode. Layers with a formula (linear, convolution,
    embedding, normalization) are made from their inputs and output gradients of one backward pass; all others by
    `torch.func.vmap(grad)`. Memory is that of the answer, n p numbers, and of the activations of a block: use
    `PerSample(model).blocks(...)` to see a piece at a time.

    Args:
        model: Whose outputs for a sample do not depend on the others.
        inputs: (n, *shape) as the model wants them.
        targets: (n,) class indices, (n, c) soft labels, or whatever the function takes.
        function: `(outputs (b, ...), targets (b, ...)) -> (b,)`, sample by sample.

    Returns:
        (n, p) gradients, the parameters flattened in the order of `model.parameters()`.

    Raises:
        DataError: No samples, or other numbers of inputs and targets.
        TrainingError: No parameters, or a layer that has no formula and cannot be mapped; it is named.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> per_sample_gradients(model, torch.randn(5, 2), torch.tensor([0, 1, 0, 1, 1])).shape
        torch.Size([5, 6])
    """
    engine = PerSample(model, function)
    out = torch.empty(len(inputs), engine.size, dtype=_dtype(engine.parameters), device=inputs.device)
    for part, pieces in engine.blocks(inputs, targets):
        torch.cat(pieces, 1, out=out[part])
    return out


def gradient_norms(model: nn.Module, inputs: Tensor, targets: Tensor, function: Function = cross_entropy) -> Tensor:
    """The norm of the gradient of every sample, without forming the gradients.

    Of a linear layer it is `||s|| sqrt(||a||^2 + 1)` with the input a and the gradient s at the output; where a weight
    is used t times (sequences, convolutions) the square is `<S S^T, A A^T>`, or the sum over the matrix of one layer
    where that is cheaper. Memory is that of the activations of a block.

    Args:
        model: Whose outputs for a sample do not depend on the others; it runs in evaluation mode.
        inputs: (n, *shape).
        targets: See `per_sample_gradients`.
        function: See `per_sample_gradients`.

    Returns:
        (n,) norms over all parameters that require a gradient.

    Raises:
        DataError: No samples, or other numbers of inputs and targets.
        TrainingError: See `per_sample_gradients`.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> x, y = torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 1])
        >>> torch.allclose(gradient_norms(model, x, y), per_sample_gradients(model, x, y).norm(dim=1))
        True

    Reference:
        Goodfellow, Efficient Per-Example Gradient Computations, 2015, arXiv 1510.01799.
    """
    engine = PerSample(model, function)
    parts = [torch.stack([t.squares() for t in terms]).sum(0).sqrt() for _, terms in engine.terms(inputs, targets)]
    return torch.cat(parts)


def last_layer_gradients(
    model: nn.Module, inputs: Tensor, targets: Tensor, function: Function = cross_entropy
) -> tuple[Tensor, Tensor]:
    """The gradient of every sample for the last linear layer, as its two factors.

    `g_i = e_i h_i^T` with the gradient e at the logits, which is `p - e_y` for cross-entropy, and the input h of the
    layer, followed by a 1 for the bias. So `<g_i, g_j> = <e_i, e_j> <h_i, h_j>`, in `c + d` numbers a sample.

    Args:
        model: Whose last linear layer sees one row a sample; it runs in evaluation mode, once.
        inputs: (n, *shape).
        targets: See `per_sample_gradients`.
        function: See `per_sample_gradients`.

    Returns:
        (n, c) factors e, and (n, d + 1) factors h (d without a bias).

    Raises:
        DataError: No samples, or other numbers of inputs and targets.
        TrainingError: No linear layer runs, or the last one sees several rows a sample.

    Example:
        >>> errors, features = last_layer_gradients(nn.Linear(2, 3), torch.zeros(1, 2), torch.tensor([0]))
        >>> errors.shape, features.tolist()
        (torch.Size([1, 3]), [[0.0, 0.0, 1.0]])
    """
    _check(inputs, targets)
    state = {name: p.detach() for name, p in model.named_parameters()}
    seen: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def catch(module: nn.Module, given: tuple[Any, ...], out: Tensor) -> Tensor:
        assert isinstance(module, nn.Linear)
        out = out.detach().requires_grad_()  # the graph begins here, so that nothing before it is kept
        seen[:] = [(module, given[0].detach(), out)]
        return out.clone()  # which an activation may overwrite

    errors, features = [], []
    with _evaluating(model), _hooked([m for m in model.modules() if isinstance(m, nn.Linear)], catch):
        for part in _slices(len(inputs), ROWS):
            seen.clear()
            with torch.enable_grad():
                values = function(functional_call(model, state, (inputs[part],)), targets[part])
            if not seen:
                raise TrainingError(f"model {type(model).__name__} runs no nn.Linear, so it has no last linear layer")
            layer, h, out = seen[0]
            if h.ndim != 2 or len(h) != len(values):
                raise TrainingError(
                    f"the last linear layer sees {tuple(h.shape)} for {len(values)} samples; expected one row a sample: "
                    "use the gradients of all layers"
                )
            errors.append(torch.autograd.grad(values.sum(), out)[0])
            features.append(h if layer.bias is None else F.pad(h, (0, 1), value=1.0))
    return torch.cat(errors), torch.cat(features)


def mean_gradient(model: nn.Module, inputs: Tensor, targets: Tensor, function: Function = cross_entropy) -> Tensor:
    """(p,) the mean of `per_sample_gradients`, by plain backward passes.

    Raises:
        DataError: No samples, or other numbers of inputs and targets.
        TrainingError: No parameters.
    """
    _check(inputs, targets)
    parameters = trained(model)
    total = torch.zeros(sum(p.numel() for p in parameters.values()), dtype=_dtype(parameters), device=inputs.device)
    with _evaluating(model), torch.enable_grad():
        for part in _slices(len(inputs), ROWS):
            value = function(model(inputs[part]), targets[part]).sum()
            found = torch.autograd.grad(value, list(parameters.values()), materialize_grads=True)
            total += torch.cat([g.flatten() for g in found])
    return total / len(inputs)


def gradient_products(
    model: nn.Module, inputs: Tensor, targets: Tensor, direction: Tensor, function: Function = cross_entropy
) -> Tensor:
    """The product of the gradient of every sample with one vector, without forming the gradients.

    `<g_i, v>` is the derivative of the sample's loss along v: one pass in forward mode gives it for all samples of a
    block, for the cost of a few forward passes.

    Args:
        model: See `per_sample_gradients`.
        inputs: (n, *shape).
        targets: See `per_sample_gradients`.
        direction: (p,) in the order of `model.parameters()`.
        function: See `per_sample_gradients`.

    Returns:
        (n,) products.

    Raises:
        DataError: No samples, other numbers of inputs and targets, or a direction of another size.
        TrainingError: No parameters.

    Example:
        >>> model, x, y = nn.Linear(2, 2), torch.randn(5, 2), torch.tensor([0, 1, 0, 1, 1])
        >>> v = torch.randn(6)
        >>> torch.allclose(gradient_products(model, x, y, v), per_sample_gradients(model, x, y) @ v, atol=1e-6)
        True
    """
    _check(inputs, targets)
    parameters = trained(model)
    sizes = [p.numel() for p in parameters.values()]
    if direction.shape != (sum(sizes),):
        raise DataError(
            f"direction has shape {tuple(direction.shape)}; expected ({sum(sizes)},), one number a parameter"
        )
    # autograd keeps the row of the padding as it is, which the forward mode does not know
    if all(getattr(module, "padding_idx", None) is None for module in model.modules()):
        try:
            return _derivatives(model, inputs, targets, parameters, torch.split(direction, sizes), function)
        except NotImplementedError:  # an operation that has no forward mode
            pass
    engine = PerSample(model, function)
    return torch.cat([torch.cat(found, 1) @ direction for _, found in engine.blocks(inputs, targets)])


def _derivatives(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    parameters: Mapping[str, Tensor],
    direction: Sequence[Tensor],
    function: Function,
) -> Tensor:
    tangents = {name: v.reshape(p.shape) for (name, p), v in zip(parameters.items(), direction)}
    point = {name: p.detach() for name, p in parameters.items()}
    rows = min(ROWS, max(16, ENTRIES // max(1, inputs[0].numel())))
    parts = []
    with _evaluating(model), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # the only one with a forward mode
        for part in _slices(len(inputs), rows):

            def values(at: dict[str, Tensor], part: slice = part) -> Tensor:
                return function(functional_call(model, at, (inputs[part],)), targets[part])

            with warnings.catch_warnings():  # PyTorch scripts its own rules on first use, which it calls deprecated
                warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
                parts.append(jvp(values, (point,), (tangents,))[1])
    return torch.cat(parts)


class PerSample:
    """Per-sample gradients of a model, a block of samples and a parameter at a time.

    Which layers have a formula is decided once, on the first samples: there the formulas must give what autograd gives,
    so that a weight that is used twice, or without its layer, is not taken for what it is not. The others are mapped
    by `torch.func.vmap(grad)`.

    Args:
        model: Whose outputs for a sample do not depend on the others.
        function: See `per_sample_gradients`.

    Raises:
        TrainingError: The model has no parameters that require a gradient.
    """

    def __init__(self, model: nn.Module, function: Function = cross_entropy) -> None:
        self.model, self.function = model, function
        self.parameters = trained(model)
        self.size = sum(p.numel() for p in self.parameters.values())
        self.layers: dict[str, nn.Module] | None = None
        self.rows = ROWS
        self.inplace = any(getattr(module, "inplace", False) for module in model.modules())

    def blocks(self, inputs: Tensor, targets: Tensor) -> Iterator[tuple[slice, list[Tensor]]]:
        """Slices of the samples and, for each parameter, the gradients (b, p_l) of these samples."""
        for part, terms in self.terms(inputs, targets, max(1, BLOCK // self.size)):
            yield part, [term.whole() for term in terms]

    def terms(self, inputs: Tensor, targets: Tensor, rows: int = ROWS) -> Iterator[tuple[slice, list[Term]]]:
        """Slices of at most so many samples and, for each parameter, their gradients in the form that is cheap.

        Raises:
            DataError: No samples, or other numbers of inputs and targets.
            TrainingError: A layer has no formula and cannot be mapped; it is named.
        """
        _check(inputs, targets)
        with _evaluating(self.model):
            if self.layers is None:
                self.layers = self._choose(inputs[:PROBES], targets[:PROBES])
            for part in _slices(len(inputs), min(rows, self.rows)):
                found = self._caught(self.layers, inputs[part], targets[part])
                rest = [name for name in self.parameters if name not in found]
                if rest:
                    found |= self._mapped(rest, inputs[part], targets[part])
                yield part, [found[name] for name in self.parameters]

    def _caught(self, layers: Mapping[str, nn.Module], inputs: Tensor, targets: Tensor) -> dict[str, Term]:
        """Gradients by formula, of the layers that were run just once and on rows of samples."""
        if not layers:
            return {}
        calls: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}

        def catch(module: nn.Module, given: tuple[Any, ...], out: Tensor) -> Tensor | None:
            calls.setdefault(module, []).append((given[0].detach(), out))
            return out.clone() if self.inplace else None  # what is overwritten later is not the output of the layer

        with torch.enable_grad(), _hooked(list(layers.values()), catch):
            values = self.function(self.model(inputs), targets)
        entries = sum(x.numel() + out.numel() for parts in calls.values() for x, out in parts)
        self.rows = max(1, min(self.rows, ACTIVATIONS * len(inputs) // max(1, entries)))
        once = {name: calls[layer][0] for name, layer in layers.items() if len(calls.get(layer, ())) == 1}
        once = {name: call for name, call in once.items() if call[1].requires_grad}
        if not once:
            return {}
        signals = torch.autograd.grad(values.sum(), [out for _, out in once.values()], materialize_grads=True)
        found: dict[str, Term] = {}
        for (name, (x, _)), s in zip(once.items(), signals):
            terms = terms_of(layers[name], x, s) if len(x) == len(inputs) else None
            found |= {f"{name}.{key}" if name else key: term for key, term in (terms or {}).items()}
        return {name: term for name, term in found.items() if name in self.parameters}

    def _choose(self, inputs: Tensor, targets: Tensor) -> dict[str, nn.Module]:
        """The layers whose formulas give the gradients of autograd on a few samples."""
        candidates = {name: module for name, module in self.model.named_modules() if has_formula(module)}
        self.rows = ROWS
        found = self._caught(candidates, inputs, targets)
        parameters = list(self.parameters.values())
        right = dict.fromkeys(found, True)
        with torch.enable_grad():
            for i in range(len(inputs)):
                value = self.function(self.model(inputs[i : i + 1]), targets[i : i + 1]).sum()
                gradients = torch.autograd.grad(value, parameters, materialize_grads=True)
                largest = max(float(g.abs().max()) for g in gradients)
                for name, gradient in zip(self.parameters, gradients):
                    if name in found:
                        difference = (found[name].whole()[i] - gradient.flatten()).abs().max()
                        right[name] &= float(difference) <= 1e-3 * float(gradient.abs().max()) + 1e-5 * largest
        owned = {name: [f"{name}.{key}" if name else key for key, _ in module.named_parameters(recurse=False)]
                 for name, module in candidates.items()}  # fmt: skip
        return {
            name: module
            for name, module in candidates.items()
            if owned[name] and all(right.get(key, key not in self.parameters) for key in owned[name])
        }

    def _mapped(self, names: list[str], inputs: Tensor, targets: Tensor) -> dict[str, Term]:
        point = {name: p.detach() for name, p in self.model.named_parameters()}
        chosen = {name: point[name] for name in names}

        def value(at: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return self.function(functional_call(self.model, point | at, (x[None],)), y[None])[0]

        try:
            with sdpa_kernel(SDPBackend.MATH):  # the only one that can be mapped
                found = vmap(grad(value), in_dims=(None, 0, 0))(chosen, inputs, targets)
        except RuntimeError as error:
            layers = {name: self.model.get_submodule(name.rpartition(".")[0]) for name in names}
            named = ", ".join(f"{name} of {type(layer).__name__}" for name, layer in layers.items())
            raise TrainingError(
                f"gradients of single samples: there is no formula for {named}, and torch.func.vmap cannot map the "
                f"model: {str(error).splitlines()[0][:160]}"
            ) from error
        return {name: Vector(gradient.flatten(1)) for name, gradient in found.items()}


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name.

    Raises:
        TrainingError: There are none.
    """
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not found or not prod(len(p) if p.ndim else 1 for p in found.values()):
        raise TrainingError(f"model {type(model).__name__} has no parameters that require a gradient")
    return found


def _dtype(parameters: Mapping[str, Tensor]) -> torch.dtype:
    return next(iter(parameters.values())).dtype


def _check(inputs: Tensor, targets: Tensor) -> None:
    if not len(inputs) or len(inputs) != len(targets):
        raise DataError(f"inputs has {len(inputs)} rows and targets {len(targets)}; expected as many, at least one")


def _slices(n: int, rows: int) -> Iterator[slice]:
    yield from (slice(start, min(start + rows, n)) for start in range(0, n, rows))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, and as it was afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _hooked(modules: list[nn.Module], hook: Callable[..., Any]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
