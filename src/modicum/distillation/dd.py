"""DD: images and learning rates learned by differentiating the loss of real data through a whole, short training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.distillation.synthesis import Synthesis
from modicum.distillation.unroll import flat_network, unrolled_gradient
from modicum.errors import BudgetError
from modicum.methods import Card, Measurement
from modicum.models import build
from modicum.options import check_options
from modicum.training.recipe import Recipe

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Dataset, Splits
    from modicum.distillation.distilled import Distilled
    from modicum.scores import Budget

__all__ = ["DD"]

HALVINGS = 10  # the outer learning rate, over the whole run
BETAS = (0.5, 0.999)


@dataclass(frozen=True)
class DD:
    """Dataset distillation: a network takes a few steps on the synthetic samples, and the loss of real samples after the
    last one is differentiated with respect to all samples and all step sizes.

    Step t = 1..K R of plain gradient descent uses all samples of group `t mod K`, `theta_t = theta_{t-1} - eta_t grad`,
    each with its own `eta_t = softplus(rho_t)`; the loss is the mean over networks of the cross-entropy of a batch of real
    samples. The gradient is exact (see `unrolled_gradient`). Memory is that of one step and K R times the parameters.

    The samples belong to their steps: a set is to be trained on in its order, with its step sizes. With `fixed` it belongs
    to one initialization too, and is useless on any other.

    Args:
        iterations: Outer steps; their learning rate halves ten times.
        steps: K, the groups of samples that make the steps of one pass; 0 for one sample of each class a step.
        passes: R, over all groups.
        lr: The step sizes at the start: 0.02 suits networks without norm on digits, 0.001 the one published for CIFAR-10.
        lr_img: Learning rate of Adam for the samples.
        lr_lr: Learning rate of Adam for rho.
        fixed: Whether all is made for the one initialization of the seed.
        networks: New ones in each outer step, whose gradients are averaged; one when fixed.
        batch_real: Real samples an outer step.
        init: Start from `noise` or from `real` samples.
        model: The network; `auto` as for the other distillers. The published one is `lenet` on MNIST.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> DD(iterations=100, fixed=True).passes
        3

    Reference:
        Wang, Zhu, Torralba and Efros, Dataset Distillation, 2018, arXiv 1811.10959.
    """

    iterations: int = 24_000
    steps: int = 0
    passes: int = 3
    lr: float = 0.02
    lr_img: float = 0.01
    lr_lr: float = 0.01
    fixed: bool = False
    networks: int = 4
    batch_real: int = 1024
    init: Literal["noise", "real"] = "noise"
    model: str = "auto"

    card: ClassVar[Card] = Card(
        key="dd",
        title="Samples and step sizes by differentiating through a whole, short training",
        paper="Wang, Zhu, Torralba and Efros, Dataset Distillation, 2018, arXiv 1811.10959",
        saves=("samples", "compute"),
        modalities=("image", "tabular"),
    )

    def __post_init__(self) -> None:
        positive = ("iterations", "passes", "lr", "lr_img", "lr_lr", "networks", "batch_real")
        check_options(self, positive=positive, not_negative=("steps",), choices={"init": ("noise", "real")})

    def needs(self) -> tuple[Measurement, ...]:
        """No measurement."""
        return ()

    def distill(self, data: Splits, budget: Budget, recipe: Recipe, ctx: Context, *measured: Any) -> Distilled:
        """Make the synthetic set.

        Args:
            data: Its training split is distilled; the others are not looked at.
            budget: Synthetic samples per class, a multiple of `steps`.
            recipe: Gives the network when `model` is `auto`.
            ctx: Device, seed, ledger and store.

        Returns:
            Samples in the order of their steps, with class indices as targets, and the recipe that takes these steps.

        Raises:
            DataError: The data are text, have no labels, a class without samples, or inputs that are not finite.
            BudgetError: Fewer samples than classes, another number for another class, or not a multiple of `steps`.
            TrainingError: The inner training diverged.
        """
        run = _Run(self, data.train, budget, recipe, ctx)
        return run.run(self.iterations, run.step, run.made, seed=ctx.seed if self.fixed else None)


class _Run(Synthesis):
    """Differentiating through K R steps."""

    method: DD

    def __init__(self, method: DD, train: Dataset, budget: Budget, recipe: Recipe, ctx: Context) -> None:
        super().__init__(method, train, budget, recipe, ctx)
        count, most = int(self.counts.min()), int(self.counts.max())
        self.groups = method.steps or count
        if count < most or count % self.groups:
            raise BudgetError(
                f"{budget} makes {count}{'' if count == most else f' to {most}'} samples a class, but dd makes each of its "
                f"{self.groups} steps from as many samples of every class; use a multiple of steps={self.groups} per class"
            )
        self.total = self.groups * method.passes
        # position by step and class: (K, c n)
        ranks = torch.arange(len(self.labels)).reshape(self.classes, self.groups, -1)
        self.parts = ranks.transpose(0, 1).reshape(self.groups, -1)
        self.learn("inputs", self.start(method.init), method.lr_img, adam=BETAS)
        rho = math.log(math.expm1(method.lr)) if method.lr < 30 else method.lr  # softplus is the identity far out
        self.learn("rates", torch.full((self.total,), rho), method.lr_lr, adam=BETAS)

    def step(self, iteration: int) -> dict[str, float]:
        """One outer step."""
        random, method = self.random(iteration), self.method
        thetas, call = self._networks(random)
        batch = torch.randperm(len(self.train), generator=random)[: method.batch_real]
        x, y = self.real(batch), self.real_labels[batch].to(self.device)
        labels, parts = self.labels.to(self.device)[self.parts], self.parts.to(self.device)

        def loss(theta: Tensor, n: int, inputs: Tensor) -> Tensor:
            k = n % self.groups
            return _entropy(call(theta, inputs[parts[k]]), labels[k]).sum()

        def outer(theta: Tensor) -> Tensor:
            return _entropy(call(theta, x), y).mean()

        rho = self.learned["rates"]
        eta = F.softplus(rho)
        found = unrolled_gradient(loss, thetas, [self.inputs], eta, outer, steps=self.total, flops=self.flops)
        assert found.rates is not None
        assert found.leaves[0] is not None
        (slope,) = torch.autograd.grad(eta, rho, found.rates)
        self.samples += len(thetas) * (len(batch) + 2 * self.total * self.parts.shape[1])
        for name, rate in (("inputs", method.lr_img), ("rates", method.lr_lr)):
            self.optimizers[name].param_groups[0]["lr"] = rate * 0.5 ** (iteration * HALVINGS // method.iterations)
        self.descend(inputs=found.leaves[0], rates=slope)
        return {"loss": float(found.loss), "lr": float(eta.detach().mean())}

    def _networks(self, random: torch.Generator) -> tuple[Tensor, Any]:
        """(j, p) networks, and what gives the (j, n, c) outputs of all of them."""
        if self.method.fixed:
            network = build(self.model, self.train, self.ctx.seed).to(self.device)
            self.parameters = sum(p.numel() for p in network.parameters())
            theta, call = flat_network(network)
            thetas = [theta]
        else:
            made = [flat_network(self.network(random)) for _ in range(self.method.networks)]
            thetas, call = [theta for theta, _ in made], made[0][1]
        if len(thetas) == 1:
            return torch.stack(thetas), lambda theta, x: call(theta[0], x)[None]
        return torch.stack(thetas), torch.func.vmap(call, (0, None))

    def made(self) -> tuple[Dataset, Recipe]:
        """The samples in the order of their steps, and the steps."""
        rates = tuple(F.softplus(self.learned["rates"].detach()).tolist())
        recipe = Recipe(
            self.model,
            steps=self.total,
            batch_size=self.parts.shape[1],
            lr=max(rates) or self.method.lr,
            momentum=0.0,
            nesterov=False,
            weight_decay=0.0,
            schedule="constant",
            rates=rates,
            shuffle=False,
        )
        return self.dataset()[self.parts.flatten().numpy()], recipe


def _entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """(j,) the mean cross-entropy of each network."""
    return F.cross_entropy(outputs.transpose(1, 2), labels.expand(len(outputs), -1), reduction="none").mean(1)
