"""Which way to apply the inverse of a loss's curvature, with its options in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from modicum.errors import ModicumError
from modicum.measurement.curvature import Loss, MeanLoss
from modicum.measurement.eigenpairs import Product, arnoldi
from modicum.measurement.inverse_hessian import LARGEST, solve_cg, solve_exact, solve_lissa
from modicum.measurement.kronecker import Kronecker, kronecker_factors
from modicum.measurement.signals import Labels, layers_of

__all__ = ["SOLVERS", "Solver", "apply_inverse"]

SOLVERS = ("auto", "exact", "cg", "lissa", "arnoldi", "ek-fac", "k-fac")


@dataclass(frozen=True)
class Solver:
    """How `(H + delta I) x = b` is solved.

    Args:
        name: `exact` (the matrix is formed and factored), `cg` (block conjugate gradients), `lissa` (Neumann series),
            `arnoldi` (the top eigenpairs; the rest is left out), `ek-fac` or `k-fac` (layer by layer, for linear and
            convolution layers); `auto` is `exact` up to 5,000 parameters, else `cg`.
        delta: Damping; for `ek-fac` and `k-fac` a tenth of each layer's mean eigenvalue when None, else 0.
        matrix: `gauss-newton` (positive semi-definite, the same as the Hessian for a linear model) or `hessian`.
        labels: Of the Fisher matrix of `ek-fac` and `k-fac`: `model`, `expected` or `data`.
        layers: Names of the layers that count, all when empty; the parameters of others are constants.
        rtol: Relative residual of `cg`.
        iterations: Products of `cg` (1,000 when None), terms of `lissa` (10,000) or products of `arnoldi` (200).
        batch: Samples of each term of `lissa`, drawn at random; all when 0.
        sigma: Scale of `lissa`, see `solve_lissa`.
        rank: Eigenpairs of `arnoldi`.
        seed: Of what is drawn.

    Raises:
        ModicumError: The name is unknown.

    Example:
        >>> Solver("cg", delta=1e-3).name
        'cg'
    """

    name: str = "auto"
    delta: float | None = None
    matrix: Literal["gauss-newton", "hessian"] = "gauss-newton"
    labels: Labels = "model"
    layers: tuple[str, ...] = ()
    rtol: float = 1e-4
    iterations: int | None = None
    batch: int = 0
    sigma: float | None = None
    rank: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in SOLVERS:
            raise ModicumError(f"solver={self.name!r}; expected one of {', '.join(SOLVERS)}")
        if self.matrix not in ("gauss-newton", "hessian"):
            raise ModicumError(f"matrix={self.matrix!r}; expected 'gauss-newton' or 'hessian'")
        if self.delta is not None and not self.delta >= 0:
            raise ModicumError(f"delta={self.delta!r}; expected a number >= 0")

    @property
    def factored(self) -> bool:
        """Whether it works layer by layer."""
        return self.name in ("ek-fac", "k-fac")

    def over(self, model: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss, l2: float, block: int) -> MeanLoss:
        """The mean loss as a function of the parameters that count."""
        only: tuple[str, ...] = ()
        if self.factored or self.layers:
            chosen = layers_of(model, self.layers) if self.factored else _named(model, self.layers)
            only = tuple(f"{n}.{p}".removeprefix(".") for n, m in chosen.items() for p, _ in m.named_parameters())
        return MeanLoss(model, inputs, targets, loss, l2, only, block)

    def factors(self, mean: MeanLoss) -> Kronecker:
        """The factors of `ek-fac` or `k-fac`."""
        draw = torch.Generator().manual_seed(self.seed)
        return kronecker_factors(
            mean.model, mean.inputs, mean.targets, loss=mean.loss, labels=self.labels,
            corrected=self.name == "ek-fac", layers=self.layers, draw=draw, block=mean.block,
        )  # fmt: skip

    def inverse(self, mean: MeanLoss) -> Callable[[Tensor], Tensor]:
        """`B -> (H + delta I)^-1 B` for (P, k) at the parameters of the model."""
        if self.factored:
            factors = self.factors(mean)
            return lambda b: factors.solve(b, self.delta, mean.l2)
        product = mean.hessian_product if self.matrix == "hessian" else mean.gauss_newton_product
        return apply_inverse(self, product, mean.theta, lambda: mean.matrix(product), self._batches(mean))

    def _batches(self, mean: MeanLoss) -> Callable[[int, Tensor], Tensor] | None:
        if self.name != "lissa" or not self.batch:
            return None
        draw = torch.Generator().manual_seed(self.seed)

        def product(step: int, v: Tensor) -> Tensor:
            at = torch.randint(len(mean.inputs), (self.batch,), generator=draw).to(mean.inputs.device)
            part = MeanLoss(mean.model, mean.inputs[at], mean.targets[at], mean.loss, mean.l2, mean.only, mean.block)
            return part.hessian_product(v) if self.matrix == "hessian" else part.gauss_newton_product(v)

        return product


def apply_inverse(
    solver: Solver,
    product: Product,
    like: Tensor,
    matrix: Callable[[], Tensor],
    batches: Callable[[int, Tensor], Tensor] | None = None,
) -> Callable[[Tensor], Tensor]:
    """`B -> (H + delta I)^-1 B` for a matrix given by its products, or as a whole when that is asked for.

    Args:
        solver: Any but `ek-fac` and `k-fac`.
        product: `V -> H V`.
        like: (P,) gives size, dtype and device.
        matrix: Makes H.
        batches: For `lissa`.
    """
    delta = solver.delta or 0.0
    name = solver.name if solver.name != "auto" else "exact" if len(like) <= LARGEST else "cg"
    draw = torch.Generator().manual_seed(solver.seed)
    if name == "exact":
        if len(like) > LARGEST:
            solve_exact(like.new_empty(len(like), 0), like)  # refuses before the matrix is formed
        whole = matrix()
        return lambda b: solve_exact(whole, b, delta)
    if name == "cg":
        return lambda b: solve_cg(product, b, delta, rtol=solver.rtol, max_iterations=solver.iterations or 1000)
    if name == "lissa":
        depth = solver.iterations or 10_000
        return lambda b: solve_lissa(
            product, b, delta, sigma=solver.sigma, depth=depth, batch_product=batches, draw=draw
        )
    pairs = arnoldi(product, like, iterations=solver.iterations or 200, rank=solver.rank, draw=draw)
    return lambda b: pairs.solve(b, delta)


def _named(model: nn.Module, names: tuple[str, ...]) -> dict[str, nn.Module]:
    every = dict(model.named_modules())
    unknown = sorted(set(names) - set(every))
    if unknown:
        raise ModicumError(f"layers: the model has no layer {unknown[0]!r}; it has {', '.join(n for n in every if n)}")
    return {name: layer for name, layer in every.items() if name in names}
