"""Gradients of single samples, layer by layer, from the input of a layer and the gradient at its output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

__all__ = ["Convolution", "Product", "Rows", "Term", "Vector", "has_formula", "terms_of"]

NORMS = (nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.BatchNorm1d, nn.BatchNorm2d)


class Term(Protocol):
    """The gradients of a batch of samples for one parameter of p entries, held in the form in which they are cheap."""

    def squares(self) -> Tensor:
        """(b,) squared norms."""
        ...

    def whole(self) -> Tensor:
        """(b, p) the gradients."""
        ...


@dataclass(frozen=True, eq=False)
class Vector:
    """Gradients as they are.

    Args:
        values: (b, p).
    """

    values: Tensor

    def squares(self) -> Tensor:
        """(b,) squared norms."""
        return self.values.square().sum(1)

    def whole(self) -> Tensor:
        """(b, p) the gradients."""
        return self.values


@dataclass(frozen=True, eq=False)
class Product:
    """Gradients of a weight matrix that is applied t times, in g groups: `sum_t s_t a_t^T`, held as its factors.

    Args:
        left: (b, g, t, outputs) gradients s at the output.
        right: (b, g, t, inputs) inputs a.
    """

    left: Tensor
    right: Tensor

    def squares(self) -> Tensor:
        """(b,) squared norms: `||s||^2 ||a||^2` for t = 1, else the cheaper of `<S S^T, A A^T>` and the matrix itself."""
        times, outputs, inputs = self.left.shape[2], self.left.shape[3], self.right.shape[3]
        if times == 1:
            return (self.left.square().sum((2, 3)) * self.right.square().sum((2, 3))).sum(1)
        if times * (outputs + inputs) < outputs * inputs:
            return ((self.left @ self.left.mT) * (self.right @ self.right.mT)).sum((1, 2, 3))
        return self.whole().square().sum(1)

    def whole(self) -> Tensor:
        """(b, g * outputs * inputs) the gradients."""
        return (self.left.mT @ self.right).flatten(1)


@dataclass(frozen=True, eq=False)
class Convolution:
    """Gradients of the kernel of a convolution, held as its input and the gradient at its output.

    Args:
        layer: The convolution.
        x: (b, channels, height, width).
        s: (b, outputs, height, width).
    """

    layer: nn.Conv2d
    x: Tensor
    s: Tensor

    def squares(self) -> Tensor:
        """(b,) squared norms, from the patches where there are fewer of them than entries in the kernel."""
        places, kernel = self.s[0, 0].numel(), self.layer.weight
        inputs, outputs = kernel[0].numel(), len(kernel) // self.layer.groups
        if places * (outputs + inputs) < outputs * inputs:
            return self._product().squares()
        return self.whole().square().sum(1)

    def whole(self) -> Tensor:
        """(b, p) the gradients: those of a convolution that has a group for every sample."""
        layer, b = self.layer, len(self.x)
        x, s = (t.reshape(1, -1, *t.shape[2:]) for t in (self.x, self.s))
        shape = (b * layer.out_channels, *layer.weight.shape[1:])
        options = (layer.stride, layer.padding, layer.dilation, b * layer.groups)
        return conv2d_weight(x, shape, s, *options).reshape(b, -1)  # type: ignore[no-untyped-call,no-any-return]

    def _product(self) -> Product:
        layer = self.layer
        patches = F.unfold(self.x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]  # a padding in words has no formula
        right = patches.reshape(len(self.x), layer.groups, -1, patches.shape[-1]).mT
        return Product(self.s.reshape(len(self.s), layer.groups, -1, patches.shape[-1]).mT, right)


@dataclass(frozen=True, eq=False)
class Rows:
    """Gradients of a table of rows, of which a sample reads t.

    Args:
        tokens: (b, t) which rows.
        values: (b, t, d) gradients at what was read.
        rows: Of the table.
    """

    tokens: Tensor
    values: Tensor
    rows: int

    def squares(self) -> Tensor:
        """(b,) squared norms; a row that is read several times has the sum of its gradients."""
        own = torch.arange(len(self.tokens), device=self.tokens.device)[:, None] * self.rows + self.tokens
        found, place = torch.unique(own, return_inverse=True)
        sums = self.values.new_zeros(len(found), self.values.shape[2])
        sums.index_add_(0, place.flatten(), self.values.flatten(0, 1))
        squares = self.values.new_zeros(len(self.tokens))
        return squares.index_add_(0, found // self.rows, sums.square().sum(1))

    def whole(self) -> Tensor:
        """(b, rows * d) the gradients, nearly all zero."""
        b, _, d = self.values.shape
        own = torch.arange(b, device=self.tokens.device)[:, None] * self.rows + self.tokens
        table = self.values.new_zeros(b * self.rows, d)
        return table.index_add_(0, own.flatten(), self.values.flatten(0, 1)).reshape(b, -1)


def has_formula(module: nn.Module) -> bool:
    """Whether `terms_of` knows this kind of layer, used as it is usually used.

    Example:
        >>> has_formula(nn.Linear(2, 3)), has_formula(nn.GRU(2, 3))
        (True, False)
    """
    if type(module) is nn.Conv2d:
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    if type(module) is nn.Embedding:
        return module.max_norm is None and not module.scale_grad_by_freq and not module.sparse
    return type(module) in (nn.Linear, *NORMS)


def terms_of(module: nn.Module, x: Tensor, s: Tensor) -> dict[str, Term] | None:
    """The gradients of the parameters of one layer.

    Args:
        module: A layer that `has_formula`, in evaluation mode.
        x: (b, ...) its input.
        s: (b, ...) the gradient at its output, sample by sample.

    Returns:
        Terms by the name of the parameter, or None where the shapes are not of the form (b, ...).

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> terms = terms_of(layer, torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0]]))
        >>> terms["weight"].whole().tolist(), terms["weight"].squares().tolist(), terms["bias"].whole().tolist()
        ([[6.0, 8.0]], [100.0], [[2.0]])

    Reference:
        Goodfellow, Efficient Per-Example Gradient Computations, 2015, arXiv 1510.01799.
        Rochette, Manoel and Tramel, Efficient Per-Example Gradient Computations in Convolutional Neural Networks, 2019,
        arXiv 1912.06015.
    """
    if x.ndim < 2 or s.ndim < 2 or len(x) != len(s):
        return None
    terms: dict[str, Term]
    if isinstance(module, nn.Linear):
        left, right = (t.reshape(len(t), 1, -1, t.shape[-1]) for t in (s, x))
        terms, bias = {"weight": Product(left, right)}, left.sum((1, 2))
    elif isinstance(module, nn.Conv2d):
        if x.ndim != 4:
            return None
        terms, bias = {"weight": Convolution(module, x, s)}, s.sum((2, 3))
    elif isinstance(module, nn.Embedding):
        values = s.reshape(len(s), -1, s.shape[-1])
        tokens = x.reshape(len(x), -1)
        if module.padding_idx is not None:
            values = values * (tokens != module.padding_idx)[..., None]
        return {"weight": Rows(tokens, values, module.num_embeddings)}
    else:
        own = len(module.normalized_shape) if isinstance(module, nn.LayerNorm) else 0
        places = tuple(range(1, s.ndim - own)) if own else tuple(range(2, s.ndim))
        product = s * _standardized(module, x)
        weight, bias = (t.sum(places) if places else t for t in (product, s))
        terms, bias = {"weight": Vector(weight.flatten(1))}, bias.flatten(1)
    if getattr(module, "bias", None) is not None:
        terms["bias"] = Vector(bias)
    return terms


def _standardized(module: nn.Module, x: Tensor) -> Tensor:
    """What a normalization multiplies with its weight."""
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(x, module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(x, module.num_groups, eps=module.eps)
    assert isinstance(module, (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.BatchNorm1d, nn.BatchNorm2d))
    if module.running_mean is not None:
        return F.batch_norm(x, module.running_mean, module.running_var, eps=module.eps)
    return F.instance_norm(x, eps=module.eps)
