"""CAFE: synthetic samples whose mean features at every stage of a network are those of the real samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.distillation.dc import GradientMatching, check_matching
from modicum.distillation.dm import BLOCK, class_means
from modicum.errors import DataError, ModicumError
from modicum.methods import Card, Measurement
from modicum.models import features
from modicum.options import check_options

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.distillation.distilled import Distilled
    from modicum.scores import Budget
    from modicum.training.recipe import Recipe

__all__ = ["CAFE", "discrimination_loss", "stage_distance", "stage_features"]

MEMORY = 10  # probes that are looked back on
MILESTONES = (0.6, 0.8, 0.9)  # of all iterations; the learning rate is halved at each


def stage_features(network: nn.Module, x: Tensor) -> list[Tensor]:
    """What a network computes after each ReLU, and last what its last linear layer reads.

    Args:
        network: Any with an `nn.Linear` at its end.
        x: (n, *shape) inputs.

    Returns:
        (n, d_k) features of each stage.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> [tuple(f.shape) for f in stage_features(net, torch.rand(5, 4))]
        [(5, 6), (5, 3)]
    """
    caught: list[Tensor] = []
    handles = [
        m.register_forward_hook(lambda module, given, out: caught.append(out))
        for m in network.modules()
        if isinstance(m, nn.ReLU)
    ]
    try:
        last = features(network, x)
    finally:
        for handle in handles:
            handle.remove()
    return [*(stage.flatten(1) for stage in caught if stage is not last), last]


def stage_distance(real: Sequence[Tensor], made: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The squared distance between class means, summed over classes and weighted over stages.

    `L = sum_k w_k sum_c || a_kc - b_kc ||^2`.

    Args:
        real: (c, d_k) class means of each stage.
        made: As many of the same shapes.
        weights: w_k of each stage.

    Returns:
        A scalar.

    Raises:
        DataError: Shapes or numbers differ.

    Example:
        >>> float(stage_distance([torch.ones(2, 3)], [torch.zeros(2, 3)], [0.5]))
        3.0

    Reference:
        Wang et al., CAFE: Learning to Condense Dataset by Aligning Features, 2022, arXiv 2203.01531.
    """
    shapes = [[tuple(t.shape) for t in side] for side in (real, made)]
    if shapes[0] != shapes[1] or len(weights) != len(real):
        raise DataError(
            f"real is {shapes[0]}, made {shapes[1]}, with {len(weights)} weights; expected one of each a stage"
        )
    return torch.stack([w * (a - b).square().sum() for a, b, w in zip(real, made, weights, strict=True)]).sum()


def discrimination_loss(real: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    """How badly real features are told apart by their products with the synthetic class centers.

    `L = sum_i CE(f_i centers^T, y_i)`.

    Args:
        real: (n, d) features of real samples.
        labels: (n,) class indices.
        centers: (c, d) mean features of the synthetic samples of each class.

    Returns:
        A scalar, a sum over samples.

    Example:
        >>> round(float(discrimination_loss(torch.zeros(2, 3), torch.tensor([0, 1]), torch.zeros(4, 3))), 4)
        2.7726
    """
    return F.cross_entropy(real @ centers.T, labels, reduction="sum")


@dataclass(frozen=True)
class CAFE:
    """Condensation by aligning features.

    `min_S sum_k w_k sum_c || mean_k(T_c) - mean_k(S_c) ||^2 + v L_d` over the stages k of a network, with the
    discrimination loss L_d of real samples on synthetic class centers. Each network is updated against again and again and
    trained on S in between. Real samples probe it: training between updates ends when the range of its last ten
    accuracies passes `inner_range`, and the network is left when that of the probes after the last ten updates is below
    `outer_range`.

    Args:
        iterations: Networks.
        lr_img: Learning rate of the inputs, halved after 60, 80 and 90 % of the iterations; or `auto`: the first step
            changes them by 1 %.
        momentum: Of SGD on the inputs.
        lr_net: Learning rate of the networks on the synthetic set.
        batch_real: Real samples of each class an update; all of a smaller class.
        weights: Of the stages: the last is of what the last linear layer reads, the ones before it of the ReLUs before it;
            earlier ReLUs take the first.
        discrimination: v.
        probe: Real samples of each class in a probe.
        outer_range: Of accuracies, below which a network is left.
        inner_range: Of accuracies, above which training between updates ends.
        outer: At most so many updates a network.
        inner: At most so many epochs between updates; 0 never trains.
        init: `noise`, or `real` samples.
        augment: Siamese augmentation: `none`, `auto` or families.
        model: The network; `auto` is the recipe's where it is a convnet or resnet, `convnet(width=32)` for other
            images, and the recipe's for tables.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> CAFE().weights
        (0.1, 0.1, 1.0, 1.0)

    Reference:
        Wang et al., CAFE: Learning to Condense Dataset by Aligning Features, 2022, arXiv 2203.01531.
    """

    iterations: int = 2000
    lr_img: float | Literal["auto"] = 0.1
    momentum: float = 0.5
    lr_net: float = 0.01
    batch_real: int = 256
    weights: tuple[float, ...] = (0.1, 0.1, 1.0, 1.0)
    discrimination: float = 0.01
    probe: int = 128
    outer_range: float = 0.04
    inner_range: float = 0.03
    outer: int = 50
    inner: int = 50
    init: Literal["real", "noise"] = "noise"
    augment: str = "none"
    model: str = "auto"

    card: ClassVar[Card] = Card(
        key="cafe",
        title="Synthetic samples whose mean features match those of each class at every stage of a network",
        paper="Wang et al., CAFE: Learning to Condense Dataset by Aligning Features, 2022, arXiv 2203.01531",
        saves=("samples", "compute"),
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.weights))
        if not self.weights or min(self.weights) < 0 or not max(self.weights) > 0:
            raise ModicumError(f"method 'cafe' option weights={self.weights!r}; expected numbers >= 0, not all 0")
        check_options(self, positive=("outer", "probe"), not_negative=("inner", "discrimination"))
        check_matching(self)
        check_options(
            self, positive=("probe",), not_negative=("discrimination",), shares=("outer_range", "inner_range")
        )

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
            Floating inputs in the units of the stored data, with class indices as targets; the common protocol.

        Raises:
            DataError: The data are text, have no labels, a class without samples, or inputs that are not finite.
            BudgetError: Fewer samples than classes.
            TrainingError: The inputs grew beyond all bounds.
        """
        run = _Run(self, data.train, budget, recipe, ctx)
        run.learn("inputs", run.start(self.init), self.lr_img, momentum=self.momentum)
        return run.run(self.iterations, run.step)


class _Run(GradientMatching):
    """Matching the means of all stages in networks that learn from the synthetic set."""

    def step(self, iteration: int) -> dict[str, float]:
        """One network, until updates no longer change what it finds."""
        if iteration in {round(share * self.method.iterations) for share in MILESTONES}:
            self.optimizers["inputs"].param_groups[0]["lr"] /= 2
        random = self.random(iteration)
        network = self.network(random)
        losses, probes = [], list[float]()
        for update in range(self.method.outer):
            losses.append(self.update(network, random, iteration, update))
            if update == self.method.outer - 1:
                break
            probes.append(self.accuracy(network, random))
            if len(probes) >= MEMORY and spread_of(probes) < self.method.outer_range:
                break
            inner = probes[-1:]
            for _ in range(self.method.inner):
                self.train_on_made(network, random, 1)
                inner.append(self.accuracy(network, random))
                if spread_of(inner) > self.method.inner_range:
                    break
        return {"loss": sum(losses) / len(losses), "updates": len(losses), "largest": self.watch()}

    def update(self, network: nn.Module, random: torch.Generator, iteration: int, update: int) -> float:
        """One step of the inputs of all classes."""
        batch = self.batch(random, self.method.batch_real)
        draw, labels = self.draw(random), self.real_labels[batch].to(self.device)
        self.freeze(network, random)
        network.requires_grad_(False)
        parts = []
        for part in torch.split(batch, BLOCK):
            seen, key = self.transform(self.real(part), draw, self.real_labels[part]), f"real {len(part)}"
            with torch.no_grad(), self.flops.forward(key):
                parts.append(stage_features(network, seen))
            self.flops.charge(key)
        real = [torch.cat(stage) for stage in zip(*parts, strict=True)]
        weights = self.stage_weights(len(real))
        transformed = self.transform(self.inputs, draw, self.labels)
        seen = transformed.detach().requires_grad_(True)
        own = self.labels.to(self.device)
        with self.flops.forward("synthetic"):
            made = [class_means(stage, own, self.classes) for stage in stage_features(network, seen)]
            loss = stage_distance([class_means(stage, labels, self.classes) for stage in real], made, weights)
            if self.method.discrimination:
                loss = loss + self.method.discrimination * discrimination_loss(real[-1], labels, made[-1])
        with self.flops.backward("synthetic"):
            (slope,) = torch.autograd.grad(loss, seen)
        self.flops.charge("synthetic")
        if transformed is not self.inputs:
            (slope,) = torch.autograd.grad(transformed, self.inputs, slope)
        network.requires_grad_(True)
        self.samples += len(batch) + len(own)
        self.descend(inputs=slope)
        return float(loss.detach())

    def stage_weights(self, stages: int) -> list[float]:
        """The weight of each of so many stages."""
        given = self.method.weights
        return [given[max(0, len(given) - stages + k)] for k in range(stages)]

    def accuracy(self, network: nn.Module, random: torch.Generator) -> float:
        """The share of some real samples that a network gets right."""
        network.eval()
        batch, right = self.batch(random, self.method.probe), 0
        with torch.no_grad():
            for part in torch.split(batch, BLOCK):
                with self.flops.forward(f"probe {len(part)}"):
                    answers = network(self.real(part)).argmax(1)
                self.flops.charge(f"probe {len(part)}")
                right += int((answers.cpu() == self.real_labels[part]).sum())
        self.samples += len(batch)
        return right / len(batch)


def spread_of(accuracies: Sequence[float]) -> float:
    """The range of the last ten."""
    last = accuracies[-MEMORY:]
    return max(last) - min(last)
