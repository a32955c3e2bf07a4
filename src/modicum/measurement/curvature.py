"""Curvature: products of vectors with the Hessian and the Gauss-Newton matrix of any model's loss over a data set."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from modicum.errors import DataError, ModicumError

__all__ = ["Loss", "MeanLoss", "losses_of", "only_evaluating"]

Loss: TypeAlias = "Literal['cross-entropy', 'squared'] | Callable[[Tensor, Tensor], Tensor]"
ENTRIES = 1 << 24  # numbers in a block of gradients or tangents


def losses_of(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """(b,) the loss of every sample, its positions added up.

    `cross-entropy` is `logsumexp(z) - z_y` of logits `z`; `squared` is `||f - y||^2 / 2`.

    Args:
        loss: One of these, or `(outputs (b, ...), targets (b, ...)) -> (b,)`.
        outputs: (b, c), or (b, positions, c).
        targets: (b,) or (b, positions) class indices, (b, c) probabilities, or numbers like the outputs.

    Example:
        >>> losses_of("squared", torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]]))
        tensor([2.5000])
    """
    if callable(loss):
        return loss(outputs, targets)
    if loss == "squared":
        return (outputs.flatten(1) - targets.reshape(len(targets), -1)).square().sum(1) / 2
    if loss != "cross-entropy":
        raise ModicumError(f"loss={loss!r}; expected 'cross-entropy', 'squared' or a function of outputs and targets")
    soft = targets.is_floating_point()
    wanted = targets.reshape(-1, outputs.shape[-1]) if soft else targets.flatten()
    each = F.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), wanted, reduction="none")
    return each.reshape(len(outputs), -1).sum(1)


def only_evaluating(model: nn.Module) -> None:
    """Check that the loss of a sample is a function of that sample alone.

    Raises:
        ModicumError: Batch normalization or dropout is in training mode; the layer is named.
    """
    for name, module in model.named_modules():
        mixes = isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd))
        if mixes and module.training:
            raise ModicumError(
                f"model: layer {name or 'itself'!r} ({type(module).__name__}) is in training mode, so that the loss of "
                "a sample depends on others or on chance; call model.eval() first"
            )


@dataclass(frozen=True, eq=False)
class MeanLoss:
    """The mean loss of a model over a data set with its derivatives at the model's parameters.

    `L(theta) = (1/n) sum_i l_i(theta) + (l2/2) ||theta||^2`, `theta` all parameters in one vector, in the order of
    `model.named_parameters()`. Products with `H = grad^2 L` and with the Gauss-Newton matrix
    `G = (1/n) sum_i J_i^T (grad^2_z l_i) J_i + l2 I` (`J_i` the Jacobian of the outputs `z`) are made a block of
    samples at a time, and neither matrix is formed unless `matrix` is asked for it. Memory is that of a block's
    forward and backward pass, times the columns that go through together.

    Args:
        model: Any module in evaluation mode; its parameters are not changed.
        inputs: (n, *shape) as the model wants them.
        targets: (n, ...) as the loss wants them.
        loss: `cross-entropy` of logits, `squared` (half the squared distance), or a function giving (b,) losses.
        l2: Coefficient of the penalty; weight decay belongs here.
        only: Names of the parameters that count; the others are constants. All when empty.
        block: Samples at a time.

    Raises:
        DataError: No samples, or inputs and targets differ in length.
        ModicumError: A layer is in training mode, a parameter is unknown, or the loss is not differentiable.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> mean = MeanLoss(model, torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1), "squared", l2=0.5)
        >>> mean.hessian_product(torch.ones(1))
        tensor([5.5000])

    Reference:
        Pearlmutter, Fast Exact Multiplication by the Hessian, Neural Computation 6(1), 1994.
        Schraudolph, Fast Curvature Matrix-Vector Products for Second-Order Gradient Descent, 2002.
    """

    model: nn.Module
    inputs: Tensor
    targets: Tensor
    loss: Loss = "cross-entropy"
    l2: float = 0.0
    only: tuple[str, ...] = ()
    block: int = 256

    def __post_init__(self) -> None:
        only_evaluating(self.model)
        if not len(self.inputs) or len(self.inputs) != len(self.targets):
            raise DataError(
                f"inputs have {len(self.inputs)} rows and targets {len(self.targets)}; expected as many, at least one"
            )
        if not self.l2 >= 0:
            raise ModicumError(f"l2={self.l2!r}; expected a number >= 0")
        unknown = sorted(set(self.only) - {name for name, _ in self.model.named_parameters()})
        if unknown:
            raise ModicumError(f"only: the model has no parameter {unknown[0]!r}")
        if not self.parameters:
            raise ModicumError(f"model {type(self.model).__name__} has no parameters")
        with torch.enable_grad():
            theta = self.theta.clone().requires_grad_()
            losses = self._losses(theta, self.inputs[:2], self.targets[:2])
        if losses.shape != (len(self.inputs[:2]),):
            raise ModicumError(f"loss gives shape {tuple(losses.shape)} for {len(self.inputs[:2])} samples; expected "
                               "one number a sample: use reduction='none'")  # fmt: skip
        if not losses.requires_grad:
            raise ModicumError("loss does not depend on the parameters in a differentiable way; expected a function of "
                               "the outputs that torch can differentiate twice")  # fmt: skip

    @cached_property
    def parameters(self) -> dict[str, Tensor]:
        """The parameters that count, detached."""
        every = dict(self.model.named_parameters())
        return {name: p.detach() for name, p in every.items() if not self.only or name in self.only}

    @cached_property
    def theta(self) -> Tensor:
        """(P,) the parameters in one vector."""
        return torch.cat([p.flatten() for p in self.parameters.values()])

    @cached_property
    def _constants(self) -> dict[str, Tensor]:
        every = self.model.named_parameters()
        return {name: p.detach() for name, p in every if name not in self.parameters}

    @property
    def size(self) -> int:
        """P."""
        return sum(p.numel() for p in self.parameters.values())

    def with_(self, inputs: Tensor, targets: Tensor) -> MeanLoss:
        """The same loss over other samples, without the penalty."""
        return MeanLoss(self.model, inputs, targets, self.loss, 0.0, self.only, self.block)

    def gradient(self) -> Tensor:
        """(P,) the gradient of L, which is zero where training has converged."""
        total = self.l2 * self.theta
        for x, y in self._blocks():
            total = total + grad(lambda theta, x=x, y=y: self._losses(theta, x, y).sum())(self.theta) / len(self.inputs)
        return total

    def gradients(self, rows: Tensor | slice) -> Tensor:
        """(b, P) gradients of the losses of some samples, one row each, without the penalty."""

        def one(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return self._losses(theta, x[None], y[None])[0]

        with _twice():
            each: Tensor = vmap(grad(one), in_dims=(None, 0, 0))(self.theta, self.inputs[rows], self.targets[rows])
        return each

    def gradient_products(self, vectors: Tensor) -> Tensor:
        """(n, k) products of every sample's gradient with the columns of (P, k), of which each block is forgotten."""
        if vectors.shape[1] == 1:
            return torch.cat([self._along(vectors[:, 0], x, y) for x, y in self._blocks()])[:, None]
        step = max(1, min(self.block, ENTRIES // self.size))
        starts = range(0, len(self.inputs), step)
        return torch.cat([self.gradients(slice(start, start + step)) @ vectors for start in starts])

    def hessian_product(self, vectors: Tensor) -> Tensor:
        """`H v`, Pearlmutter's way: the gradient of `<grad L, v>`.

        Args:
            vectors: (P,) or (P, k).

        Returns:
            The same shape.
        """

        def product(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
            _, pull = _vjp(grad(lambda theta: self._losses(theta, x, y).sum()), self.theta)
            return pull

        return self._sum(product, vectors)

    def gauss_newton_product(self, vectors: Tensor) -> Tensor:
        """`G v`, positive semi-definite for a loss that is convex in the outputs.

        Args:
            vectors: (P,) or (P, k).

        Returns:
            The same shape.
        """

        def product(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
            def outputs(theta: Tensor) -> Tensor:
                return self._outputs(theta, x)

            out, pull = _vjp(outputs, self.theta)
            slope = grad(lambda z: losses_of(self.loss, z, y).sum())

            def of(v: Tensor) -> Tensor:
                moved = jvp(outputs, (self.theta,), (v,))[1]
                return pull(jvp(slope, (out,), (moved,))[1])

            return of

        return self._sum(product, vectors)

    def matrix(self, product: Callable[[Tensor], Tensor]) -> Tensor:
        """(P, P) the symmetric matrix of a product, by its columns; memory is P^2 numbers."""
        eye = torch.eye(self.size, dtype=self.theta.dtype, device=self.theta.device)
        columns = max(1, ENTRIES // self.size)
        matrix = torch.cat([product(part) for part in torch.split(eye, columns, dim=1)], dim=1)
        return (matrix + matrix.T) / 2

    def input_gradient(self, vector: Tensor) -> Tensor:
        """(n, *shape) gradient in a sample's input of the product of its gradient with a vector (P,)."""
        parts = []
        for x, y in self._blocks():
            if not x.is_floating_point():
                raise DataError(f"inputs have dtype {x.dtype}; only floating inputs can be perturbed")
            parts.append(grad(lambda x, y=y: self._along(vector, x, y).sum())(x))
        return torch.cat(parts)

    def _along(self, vector: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """(b,) derivative of the losses along a direction: no gradient is formed."""
        with _twice():
            along: Tensor = jvp(lambda theta: self._losses(theta, x, y), (self.theta,), (vector,))[1]
        return along

    def _sum(self, product: Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]], vectors: Tensor) -> Tensor:
        rows = vectors.reshape(self.size, -1).T
        total = self.l2 * rows
        with _twice():
            for x, y in self._blocks():
                of = product(x, y)
                if len(rows) == 1:
                    each = of(rows[0])[None]
                else:
                    each = vmap(of, chunk_size=max(1, 2 * ENTRIES // (len(x) * self._width)))(rows)
                total = total + each / len(self.inputs)
        return total.T.reshape(vectors.shape)

    @cached_property
    def _width(self) -> int:
        """About how many numbers a forward pass keeps for one sample."""
        kept = 0

        def count(module: nn.Module, inputs: Any, output: Any) -> None:
            nonlocal kept
            kept += output.numel() if isinstance(output, Tensor) else 0

        handles = [m.register_forward_hook(count) for m in self.model.modules()]
        try:
            with torch.no_grad():
                self.model(self.inputs[:1])
        finally:
            for handle in handles:
                handle.remove()
        return max(kept, self.inputs[0].numel(), 1)

    def _outputs(self, theta: Tensor, x: Tensor) -> Tensor:
        parts = torch.split(theta, [p.numel() for p in self.parameters.values()])
        named = {name: part.view(p.shape) for part, (name, p) in zip(parts, self.parameters.items())}
        out: Tensor = functional_call(self.model, self._constants | named, (x,))
        return out

    def _losses(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return losses_of(self.loss, self._outputs(theta, x), y)

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(torch.split(self.inputs, self.block), torch.split(self.targets, self.block))


def _vjp(function: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    found: Any = torch.func.vjp(function, at)
    return found[0], lambda v: found[1](v)[0]


@contextmanager
def _twice() -> Iterator[None]:
    """Derivatives of derivatives: the fused attention has none, and PyTorch scripts its own rules on first use."""
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        yield
