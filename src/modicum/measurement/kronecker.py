"""Curvature factored layer by layer: K-FAC and EK-FAC of linear and convolution layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modicum.errors import DataError, ModicumError
from modicum.measurement.curvature import Loss, only_evaluating
from modicum.measurement.signals import Labels, layers_of, signals

__all__ = ["Kronecker", "LayerFactors", "kronecker_factors"]


@dataclass(frozen=True, eq=False)
class LayerFactors:
    """The curvature of one layer in its Kronecker eigenbasis, `(Q_S x Q_A) diag(Lam) (Q_S x Q_A)^T`.

    Args:
        name: Of the layer.
        outputs: (o, o) Q_S, columns are directions of the gradient at the output.
        inputs: (i, i) Q_A, of the input with a 1 appended where the layer has a bias.
        eigenvalues: (o, i) Lam.
        bias: Whether the layer has one.
    """

    name: str
    outputs: Tensor
    inputs: Tensor
    eigenvalues: Tensor
    bias: bool

    @property
    def size(self) -> int:
        """Parameters of the layer."""
        return self.eigenvalues.numel()

    def damped(self, delta: float | None, l2: float = 0.0) -> Tensor:
        """(o, i) eigenvalues plus l2 plus delta; a tenth of their mean when delta is None.

        Raises:
            ModicumError: One is not above zero.
        """
        lam = self.eigenvalues + l2
        lam = lam + (0.1 * float(self.eigenvalues.mean()) if delta is None else delta)
        least = float(lam.min())
        if not least > 0:
            raise ModicumError(
                f"layer {self.name!r} has an eigenvalue of {least:.3g} with delta={delta}; expected a positive matrix: "
                "give a greater delta"
            )
        return lam

    def rotated(self, s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Signals (..., o) and inputs (..., i) in the eigenbasis."""
        return s @ self.outputs, a @ self.inputs

    def scaled(self, rows: Tensor, factor: Tensor) -> Tensor:
        """(k, size) vectors, multiplied by a factor (o, i) in the eigenbasis."""
        o, i = self.eigenvalues.shape
        if self.bias:
            matrix = torch.cat([rows[:, : o * (i - 1)].reshape(-1, o, i - 1), rows[:, o * (i - 1) :, None]], 2)
        else:
            matrix = rows.reshape(-1, o, i)
        matrix = self.outputs @ ((self.outputs.T @ matrix @ self.inputs) * factor) @ self.inputs.T
        if self.bias:
            return torch.cat([matrix[..., :-1].flatten(1), matrix[..., -1]], 1)
        return matrix.flatten(1)


@dataclass(frozen=True, eq=False)
class Kronecker:
    """A block-diagonal curvature matrix, one block a layer; a vector is weight and bias of every layer in turn.

    Args:
        layers: Their factors.
    """

    layers: tuple[LayerFactors, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in the order of a vector."""
        return tuple(
            f"{layer.name}.{part}".removeprefix(".")
            for layer in self.layers
            for part in (("weight", "bias") if layer.bias else ("weight",))
        )

    def product(self, vectors: Tensor) -> Tensor:
        """The matrix times (P,) or (P, k)."""
        return self._each(vectors, [layer.eigenvalues for layer in self.layers])

    def solve(self, vectors: Tensor, delta: float | None = None, l2: float = 0.0) -> Tensor:
        """`(F + (l2 + delta) I)^-1 b` for (P,) or (P, k); delta is a tenth of a layer's mean eigenvalue when None.

        Raises:
            ModicumError: The damped matrix is not positive.
        """
        return self._each(vectors, [1 / layer.damped(delta, l2) for layer in self.layers])

    def _each(self, vectors: Tensor, factors: Sequence[Tensor]) -> Tensor:
        rows = vectors.reshape(len(vectors), -1).T
        parts = torch.split(rows, [layer.size for layer in self.layers], dim=1)
        done = [layer.scaled(part, factor) for layer, part, factor in zip(self.layers, parts, factors)]
        return torch.cat(done, 1).T.reshape(vectors.shape)


def kronecker_factors(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor | None = None,
    *,
    loss: Loss = "cross-entropy",
    labels: Labels = "model",
    corrected: bool = True,
    layers: Sequence[str] = (),
    draw: torch.Generator | None = None,
    block: int = 512,
) -> Kronecker:
    """K-FAC or EK-FAC factors of the Fisher matrix of a model.

    With the input `a` of a layer (1 appended for the bias) and the gradient `s` at its output, per sample:
    `A = E[a a^T] = Q_A L_A Q_A^T`, `S = E[s s^T] = Q_S L_S Q_S^T`. K-FAC takes `Lam = L_S L_A^T`; EK-FAC makes a
    second pass for `Lam_jk = E[((Q_S^T s)_j (Q_A^T a)_k)^2]`, the best diagonal in that basis, so that its error is
    never the larger one. Where a layer is applied t times to a sample (sequences, the patches of a convolution), A is
    the mean and S the sum over the t positions, and the gradient in `Lam` is summed over them before it is squared.

    Time is two passes over the data and one eigendecomposition of A and of S a layer; memory is that of
    `2 sum (i^2 + o^2) + sum i o` numbers and of a block, for layers of o outputs and i inputs.

    Args:
        model: In evaluation mode; its parameters are not changed.
        inputs: (n, *shape) as the model wants them.
        targets: For `labels="data"`.
        loss: `cross-entropy`, `squared`, or any other with `labels="data"`.
        labels: Of the Fisher matrix: `model` draws one label a sample from the model (the true Fisher), `expected`
            takes the expectation over all (c backward passes), `data` takes the data's own (the empirical Fisher).
        corrected: EK-FAC, else K-FAC.
        layers: Names; every layer with parameters when empty.
        draw: Generator for `labels="model"`; seed 0 when None.
        block: Samples at a time.

    Returns:
        The factors.

    Raises:
        ModicumError: A layer is in training mode, or there are no factors for its kind; it is named.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> found = kronecker_factors(model, torch.randn(20, 3, generator=torch.Generator().manual_seed(0)))
        >>> found.solve(torch.ones(26)).shape
        torch.Size([26])

    Reference:
        Martens and Grosse, Optimizing Neural Networks with Kronecker-factored Approximate Curvature, 2015, arXiv
        1503.05671. George et al., Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis, 2018,
        arXiv 1806.03884. Grosse et al., Studying Large Language Model Generalization with Influence Functions, 2023,
        arXiv 2308.03296.
    """
    only_evaluating(model)
    n = len(inputs)
    if not n or (targets is not None and len(targets) != n):
        raise DataError(f"inputs have {n} rows and targets {0 if targets is None else len(targets)}; expected as many")
    if labels == "data" and targets is None:
        raise DataError("labels='data' needs targets; give them, or labels='model'")
    chosen = layers_of(model, layers)
    seed = (draw or torch.Generator().manual_seed(0)).get_state()

    def passes() -> Iterator[tuple[list[Tensor], Iterator[list[Tensor]]]]:
        again = torch.Generator()
        again.set_state(seed)  # both passes see the same labels
        for start in range(0, n, block):
            part = slice(start, start + block)
            y = None if targets is None else targets[part]
            yield signals(model, chosen, loss, inputs[part], y, labels=labels, draw=again)

    grams: list[list[Tensor]] = [[] for _ in chosen]
    positions = [1] * len(chosen)
    for read, backward in passes():
        for at, a in enumerate(read):
            positions[at] = a.shape[1] if a.ndim == 3 else 1
            _add(grams[at], 0, _gram(a))
        for given in backward:
            for at, s in enumerate(given):
                _add(grams[at], 1, _gram(s))
    found = []
    for (name, layer), (of_inputs, of_outputs), t in zip(chosen.items(), grams, positions):
        (values_a, basis_a), (values_s, basis_s) = (torch.linalg.eigh(g) for g in (of_inputs / (n * t), of_outputs / n))
        lam = values_s.clamp_min(0)[:, None] * values_a.clamp_min(0)
        dtype = next(layer.parameters()).dtype
        turn_s, turn_a, lam = (m.to(dtype) for m in (basis_s, basis_a, lam))
        found.append(LayerFactors(name, turn_s, turn_a, lam, layer.bias is not None))
    if not corrected:
        return Kronecker(tuple(found))
    squares: list[list[Tensor]] = [[] for _ in chosen]
    for read, backward in passes():
        turned = [a @ factors.inputs for a, factors in zip(read, found)]
        for given in backward:
            for at, (s, a, factors) in enumerate(zip(given, turned, found)):
                _add(squares[at], 0, _squares(s @ factors.outputs, a))
    return Kronecker(
        tuple(
            LayerFactors(f.name, f.outputs, f.inputs, (lam / n).to(f.eigenvalues.dtype), f.bias)
            for f, (lam,) in zip(found, squares)
        )
    )


def _add(sums: list[Tensor], at: int, value: Tensor) -> None:
    if len(sums) <= at:
        sums.append(value.double())
    else:
        sums[at] += value


def _gram(rows: Tensor) -> Tensor:
    flat = rows.flatten(0, -2)
    return flat.T @ flat


def _squares(s: Tensor, a: Tensor) -> Tensor:
    """(o, i) sum over samples of the squared entries of `sum_t s_t a_t^T`."""
    if s.ndim == 2:
        return s.square().T @ a.square()
    step = max(1, (1 << 22) // (s.shape[2] * a.shape[2]))
    total = s.new_zeros(s.shape[2], a.shape[2])
    for part_s, part_a in zip(torch.split(s, step), torch.split(a, step)):
        total += (part_s.mT @ part_a).square().sum(0)
    return total
