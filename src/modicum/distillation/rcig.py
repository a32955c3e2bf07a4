"""RCIG: synthetic samples by the implicit gradient through the training of a linearized network."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.data.siamese import parse_strategy
from modicum.distillation.frepo import PooledRun, fitted_head
from modicum.distillation.implicit import inverse_product
from modicum.methods import Card, Measurement
from modicum.models import Network, features
from modicum.options import check_options

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Dataset, Splits
    from modicum.distillation.distilled import Distilled
    from modicum.scores import Budget
    from modicum.training.recipe import Recipe

__all__ = ["RCIG", "Linearized"]

BLOCK = 256  # real samples in one pass
JACOBIAN_BYTES = 256 << 20  # up to this size the Jacobian of the synthetic samples is kept while they are trained on
Product: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RCIG:
    """Convexified implicit gradients.

    A network of a pool is replaced by its linearization `f(x) + J(x) u` in the weights, so that training on the synthetic
    samples is a convex problem in u: `l(u; S) = mean_j |f(x_j) + J(x_j) u - y_j|^2 / 2 + l2 |u|^2 / 2`. After some steps of
    Adam, a ridge regression on the linearized features of the synthetic samples predicts the labels of real ones, and the
    cross-entropy of its scaled outputs is the loss L. The samples move down `L_S - l_Su H^-1 L_u`: through the regression
    and, by the implicit function theorem, through the training. Then the network is trained on the synthetic samples for
    1 to 16 steps.

    The published optimizer of the samples is AdaBelief; here it is Adam. The published network is
    `convnet(width=128, norm='none', growth=2)`. Memory is that of the pool, and of the synthetic samples and of one block
    of real ones in forward and backward passes.

    Args:
        iterations: Steps.
        lr_img: Learning rate of the inputs.
        lr_label: Learning rate of the labels.
        learn_labels: Whether labels are learned.
        lr_scale: Learning rate of the factor of the outputs.
        scale: Its first value; it stays positive.
        inner_steps: Steps of Adam on u.
        lr_inner: Their learning rate at first. As published, it falls by a tenth where more than 29 % of the trainings end
            higher than they began, and grows by 5 % where more than 70 % fall at every step; looked at after each `pool`
            iterations.
        l2: Weight of `|u|^2 / 2`.
        solver: How `H^-1 L_u` is found: `gradient` steps as published, or `cg`.
        solver_steps: How many.
        damping: Added to the eigenvalues of H.
        batch_real: Real samples a step.
        reg: Ridge relative to the mean squared size of the features.
        pool: Number of networks.
        lifetime: Training steps after which a network is drawn anew.
        visit_steps: Most training steps of a network a visit.
        lr_pool: Learning rate of Adam for the networks of the pool.
        lr_net: Learning rate of Adam for training on the set.
        ema: Decay of the average of inputs and labels that is given; it grows to this.
        flip: Whether mirror images join the regression, see `FRePo`.
        init: Start from `real` samples or from `noise`.
        augment: Augmentation of training on the set, see `DM`.
        model: The network, see `DM`.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> RCIG(iterations=100).pool
        30

    Reference:
        Loo, Hasani, Lechner and Rus, Dataset Distillation with Convexified Implicit Gradients, 2023, arXiv 2302.06755.
    """

    iterations: int = 10_000
    lr_img: float = 3e-3
    lr_label: float = 3e-3
    learn_labels: bool = True
    lr_scale: float = 0.03
    scale: float = 60.0
    inner_steps: int = 20
    lr_inner: float = 1e-4
    l2: float = 5e-4
    solver: Literal["gradient", "cg"] = "gradient"
    solver_steps: int = 20
    damping: float = 0.0
    batch_real: int = 1024
    reg: float = 1e-6
    pool: int = 30
    lifetime: int = 100
    visit_steps: int = 16
    lr_pool: float = 5e-5
    lr_net: float = 3e-4
    ema: float = 0.995
    flip: Literal["auto", "yes", "no"] = "auto"
    init: Literal["real", "noise"] = "real"
    augment: str = "auto"
    model: str = "auto"

    card: ClassVar[Card] = Card(
        key="rcig",
        title="Synthetic samples by the implicit gradient through the training of linearized networks",
        paper="Loo et al., Dataset Distillation with Convexified Implicit Gradients, 2023, arXiv 2302.06755",
        saves=("samples", "compute"),
    )

    def __post_init__(self) -> None:
        check_options(
            self,
            positive=(
                *("iterations", "lr_img", "lr_label", "lr_scale", "scale", "inner_steps", "lr_inner", "l2"),
                *("solver_steps", "batch_real", "reg", "pool", "lifetime", "visit_steps", "lr_pool", "lr_net"),
            ),
            not_negative=("damping",),
            below_one=("ema",),
            choices={"solver": ("gradient", "cg"), "flip": ("auto", "yes", "no"), "init": ("real", "noise")},
        )
        if self.augment != "auto":
            parse_strategy(self.augment)

    def needs(self) -> tuple[Measurement, ...]:
        """No measurement."""
        return ()

    def distill(self, data: Splits, budget: Budget, recipe: Recipe, ctx: Context, *measured: Any) -> Distilled:
        """Make the synthetic set.

        Args:
            data: Its training split is distilled; the others are not looked at.
            budget: Synthetic samples per class, or in all, spread evenly over the classes.
            recipe: Gives the network when `model` is `auto`.
            ctx: Device, seed, ledger and store.

        Returns:
            Floating inputs in the units of the stored data, with (m, c) learned labels as targets for squared error, and
            `regression_recipe`.

        Raises:
            DataError: The data are text, have no labels, a class without samples, or inputs that are not finite.
            BudgetError: Fewer samples than classes.
            TrainingError: A network is dead, the inner problem is not convex, or the inputs grew beyond all bounds.
        """
        run = _Run(self, data.train, budget, recipe, ctx)
        return run.run(self.iterations, run.step, also=[run.pool])


class Linearized:
    """A network's features and outputs, as a function that is affine in a change of its weights.

    `f(x; u) = f(x; theta) + J(x) u`, by forward differentiation: neither J nor a kernel is formed.

    Args:
        network: In the state that is kept: dropout and batch statistics are off.

    Example:
        >>> net = nn.Linear(2, 1, bias=False)
        >>> x, u = torch.tensor([[1.0, 2.0]]), torch.tensor([3.0, 4.0])
        >>> bool(torch.isclose(Linearized(net).at(x, u)[1], net(x) + 11))
        True
    """

    def __init__(self, network: nn.Module) -> None:
        _load_forward_mode()
        self.both = _Both(network).eval()
        self.base = {name: p.detach() for name, p in self.both.named_parameters()}
        self.sizes = [p.numel() for p in self.base.values()]

    @property
    def size(self) -> int:
        """The number of weights p."""
        return sum(self.sizes)

    def at(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """(n, d) features and (n, c) outputs at the change u (p,); differentiable in both."""
        here, change = self.changed(x, u)
        return here[0] + change[0], here[1] + change[1]

    def changed(self, x: Tensor, u: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Features and outputs of the network itself, and what the change u adds to them."""
        parts = zip(self.base.items(), torch.split(u, self.sizes), strict=True)
        direction = {name: part.view_as(p) for (name, p), part in parts}
        pair: Any = torch.func.jvp(lambda p: self._call(p, x), (self.base,), (direction,))
        here, change = pair
        return here, change

    def graph(self, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """The weights as leaves, and the features and outputs of the network itself with their graph."""
        leaves = {name: p.clone().requires_grad_() for name, p in self.base.items()}
        rows, outputs = self._call(leaves, x)
        return list(leaves.values()), rows, outputs

    def jacobian(self, x: Tensor) -> Tensor:
        """(n * c, p) the Jacobian of the outputs, sample by sample."""

        def one(weights: dict[str, Tensor], row: Tensor) -> Tensor:
            return self._call(weights, row[None])[1][0]

        parts = torch.func.vmap(torch.func.jacrev(one), (None, 0))(self.base, x)
        return torch.cat([parts[name].flatten(2) for name in self.base], 2).flatten(0, 1)

    def _call(self, weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        made: tuple[Tensor, Tensor] = torch.func.functional_call(self.both, weights, (x,))
        return made


class _Both(nn.Module):
    """Features and outputs together."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.network, Network):
            rows = self.network.features(x)
            return rows, self.network.head(rows)
        return features(self.network, x), self.network(x)


@cache
def _load_forward_mode() -> None:
    """PyTorch compiles some of its own rules when forward differentiation is first used, and warns of how it does so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.sin, (torch.zeros(1),), (torch.zeros(1),))


def flat_vjp(outputs: Tensor, leaves: list[Tensor], slope: Tensor) -> Tensor:
    """(p,) the transposed Jacobian times a slope; the graph stays."""
    found = torch.autograd.grad(outputs, leaves, slope, retain_graph=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


class _Run(PooledRun):
    method: RCIG

    def __init__(self, method: RCIG, train: Dataset, budget: Budget, recipe: Recipe, ctx: Context) -> None:
        super().__init__(method, train, budget, recipe, ctx)
        # softplus keeps the factor positive
        raw = torch.tensor(method.scale + math.log(-math.expm1(-method.scale)))
        self.learn("scale", raw, method.lr_scale, adam=(0.9, 0.999))
        for name in ("inputs", "labels"):
            self.learned[f"average {name}"] = self.learned[name].detach().clone()
        self.lr_inner, self.fates = method.lr_inner, [0, 0, 0]  # trainings that rose, that always fell, and all

    def step(self, iteration: int) -> dict[str, float]:
        """One network: inner training, outer loss, implicit gradient; then its own training."""
        method, random = self.method, self.random(iteration)
        member = self.pool.choose(random)
        network = self.pool.networks[member]
        linear = Linearized(network)
        positions, _ = self.drawn(random)
        loss, inner, slopes = self.gradient(linear, positions)
        network.train()
        self.descend(
            inputs=slopes["inputs"],
            scale=slopes["scale"],
            **({"labels": slopes["labels"]} if method.learn_labels else {}),
        )
        decay = min(method.ema, (1 + iteration) / (10 + iteration))
        for name in ("inputs", "labels"):
            self.learned[f"average {name}"].lerp_(self.learned[name].detach(), 1 - decay)
        visits = 1 + int(torch.randint(method.visit_steps, (1,), generator=random))
        self.pool.train(member, self.inputs, self.targets, random, visits)
        return {"loss": loss, "inner": inner[-1] / max(inner[0], 1e-30), "lr_inner": self.adapted(inner)}

    def gradient(self, linear: Linearized, positions: Tensor) -> tuple[float, list[float], dict[str, Tensor]]:
        """The outer loss, the inner losses, and the descent of each learned tensor."""
        method = self.method
        x, y = self.inputs.detach().requires_grad_(), self.targets.detach().requires_grad_()
        raw = self.learned["scale"].detach().requires_grad_()
        m = len(x)
        with self.flops.forward("graph"):
            leaves, rows, outputs = linear.graph(x.detach())
        change, pulled = self.products(linear, x.detach(), leaves, outputs)
        u, inner = self.trained(change, pulled, outputs.detach() - y.detach(), linear.size)
        # the outer loss: a ridge regression on the linearized features
        with self.flops.forward("outer"):
            rows_s = linear.at(self.mirrored(x), u)[0]
        wanted = self.real_labels[positions].to(self.device)
        blocks = torch.split(positions, BLOCK)
        with torch.no_grad():
            real = [self._real(linear, part, u) for part in blocks]
        rows_t = torch.cat(real).requires_grad_()
        given = torch.cat([y, y]) if self.flips else y
        loss = F.cross_entropy(F.softplus(raw) * (rows_t @ fitted_head(rows_s, given, method.reg)), wanted)
        slope_t, slope_s, slope_y, slope_raw = torch.autograd.grad(loss, (rows_t, rows_s, y, raw))
        with self.flops.backward("outer"):
            (direct,) = torch.autograd.grad(rows_s, x, slope_s)
        self.flops.charge("outer")
        self.charge_ridge(len(rows_s), len(rows_t), rows_t.shape[1])
        # its gradient in the change of the weights: features are affine in it
        if self.flips:
            leaves_s, mirrored, _ = linear.graph(self.mirrored(x.detach()))
            v = flat_vjp(mirrored, leaves_s, slope_s)
        else:
            with self.flops.backward("graph"):
                v = flat_vjp(rows, leaves, slope_s)
        self.flops.charge("graph")
        for part, slope in zip(blocks, torch.split(slope_t, BLOCK), strict=True):
            v = v + self._pull(linear, part, slope)
        solved = inverse_product(
            lambda w: pulled(change(w)) + method.l2 * w,
            v,
            solver=method.solver,
            steps=method.solver_steps,
            damping=method.damping,
        )
        # l_Su w is the gradient in S of how l changes along w
        with self.flops.forward("mixed"):
            (_, here), (_, by_u) = linear.changed(x, u)
            (_, _), (_, by_w) = linear.changed(x, solved)
        along = ((here + by_u - y) * by_w).sum() / m
        with self.flops.backward("mixed"):
            mixed_x, mixed_y = torch.autograd.grad(along, (x, y))
        self.flops.charge("mixed")
        self.samples += 2 * len(positions) + m * (method.inner_steps + method.solver_steps + 4)
        slopes = {"inputs": direct - mixed_x, "labels": slope_y - mixed_y, "scale": slope_raw}
        return float(loss.detach()), inner, slopes

    def products(self, linear: Linearized, x: Tensor, leaves: list[Tensor], outputs: Tensor) -> tuple[Product, Product]:
        """`u -> J u` (m, c) and `g -> J^T g / m` (p,): by the Jacobian where it is small, else by passes."""
        m, c, p = *outputs.shape, linear.size
        if isinstance(linear.both.network, Network) and m * c * p * outputs.element_size() <= JACOBIAN_BYTES:
            with torch.no_grad(), self.flops.forward("jacobian"):
                jacobian = linear.jacobian(x)
            self.flops.charge("jacobian")
            self.extra_flops += 4 * (self.method.inner_steps + self.method.solver_steps) * m * c * p
            return lambda u: (jacobian @ u).view(m, c), lambda g: jacobian.T @ g.flatten() / m

        def change(u: Tensor) -> Tensor:
            with torch.no_grad(), self.flops.forward("change"):
                added = linear.changed(x, u)[1][1]
            self.flops.charge("change")
            return added

        def pulled(slope: Tensor) -> Tensor:
            with self.flops.forward("pulled"):  # the pass itself is that of the graph
                pass
            with self.flops.backward("pulled"):
                found = flat_vjp(outputs, leaves, slope / m)
            self.flops.charge("pulled")
            return found

        return change, pulled

    def trained(self, change: Product, pulled: Product, misfit: Tensor, size: int) -> tuple[Tensor, list[float]]:
        """Steps of Adam down the inner loss from no change: the change, and the losses."""
        method = self.method
        u = torch.zeros(size, device=self.device, dtype=misfit.dtype)
        adam, losses = torch.optim.Adam([u], self.lr_inner), []
        added = torch.zeros_like(misfit)
        for _ in range(method.inner_steps):
            left = misfit + added
            losses.append(0.5 * left.square().sum(1).mean() + 0.5 * method.l2 * u @ u)
            u.grad = pulled(left) + method.l2 * u
            adam.step()
            added = change(u)
        losses.append(0.5 * (misfit + added).square().sum(1).mean() + 0.5 * method.l2 * u @ u)
        return u, torch.stack(losses).tolist()

    def adapted(self, inner: list[float]) -> float:
        """The learning rate of the inner steps, after as many trainings as the pool has networks by how they went."""
        rose, fell, seen = self.fates
        falls = all(b < a for a, b in pairwise(inner))
        self.fates = [rose + (not inner[-1] <= inner[0]), fell + falls, seen + 1]
        if self.fates[2] >= self.method.pool:
            rose, fell, seen = self.fates
            self.lr_inner *= 0.9 if rose > 0.29 * seen else 1.05 if fell > 0.7 * seen else 1.0
            self.fates = [0, 0, 0]
        return self.lr_inner

    def made(self) -> tuple[Dataset, Recipe]:
        """The averages of inputs and labels, and the recipe of regression labels."""
        _, recipe = super().made()
        return self.dataset(self.learned["average inputs"], self.learned["average labels"]), recipe

    def _real(self, linear: Linearized, part: Tensor, u: Tensor) -> Tensor:
        x, key = self.real(part), f"real {len(part)}"
        with self.flops.forward(key):
            rows = linear.at(x, u)[0]
        return rows

    def _pull(self, linear: Linearized, part: Tensor, slope: Tensor) -> Tensor:
        x, key = self.real(part), f"real {len(part)}"
        with self.flops.backward(key):
            leaves, rows, _ = linear.graph(x)
            pulled = flat_vjp(rows, leaves, slope)
        self.flops.charge(key)
        return pulled

    def state_dict(self) -> dict[str, Any]:
        """That of the samples, and the learning rate of the inner steps."""
        return {**super().state_dict(), "inner": [self.lr_inner, list(self.fates)]}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """The inverse of `state_dict`."""
        super().load_state_dict(state)
        self.lr_inner, fates = state["inner"]
        self.fates = list(fates)
