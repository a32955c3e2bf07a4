"""DC: synthetic samples on which networks have the gradients that they have on real samples of the same class."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vmap

from modicum.context import generator
from modicum.data.siamese import Transforms, draw_dsa, parse_strategy
from modicum.distillation.matching import LARGE, Metric, class_loss, gradient_distance, set_statistics
from modicum.distillation.synthesis import Synthesis
from modicum.errors import ModicumError
from modicum.methods import Card, Measurement
from modicum.options import check_options

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.distillation.distilled import Distilled
    from modicum.scores import Budget
    from modicum.training.recipe import Recipe

__all__ = ["DC", "GradientMatching", "Groups", "check_matching", "loops_for"]

LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
STATISTICS = 16  # real samples of each class that batch normalization is frozen with
PASS = (
    1 << 16
)  # numbers of real inputs in one pass on a CPU: what fits its caches; an accelerator takes 64 times as many
LIMIT = 10.0  # standard deviations
Groups: TypeAlias = tuple[Tensor, Tensor]  # (g, b) positions and weights


def loops_for(per_class: int) -> tuple[int, int]:
    """How often each network is matched, and the epochs it is trained on the synthetic set after each time but the last.

    The published table at 1, 10, 20, 30, 40 and 50 samples a class, (100, 2) at 100, and between them as many updates as
    samples with `max(1, round(500 / n))` epochs.

    Args:
        per_class: Synthetic samples a class.

    Returns:
        Updates and epochs.

    Example:
        >>> [loops_for(n) for n in (1, 5, 10, 50, 100)]
        [(1, 1), (5, 100), (10, 50), (50, 10), (100, 2)]
    """
    if per_class >= 100:
        return 100, 2
    return LOOPS.get(per_class) or (per_class, max(1, round(500 / per_class)))


class GradientMatching(Synthesis):
    """Matching gradients in networks that are trained on the synthetic set between updates."""

    least = 2  # parameters with so many axes are matched
    largest = 0.0  # absolute value of an input at the start

    def learn(self, name: str, start: Tensor, *args: Any, **options: Any) -> Tensor:
        """Remember how large the inputs are at first."""
        self.largest = max(self.largest, float(start.abs().max()))
        return super().learn(name, start, *args, **options)

    @property
    def metric(self) -> Metric:
        """The distance of gradients."""
        distance: Metric = self.method.distance
        return distance

    def random(self, *names: object) -> torch.Generator:
        """The same for all methods of the family, so that what they share is the same to the bit."""
        return generator(self.ctx.seed, "gradient matching", *names)

    def loops(self) -> tuple[int, int]:
        """Updates and epochs."""
        return self.asked(loops_for(int(self.counts.max())))

    def asked(self, found: tuple[int, int]) -> tuple[int, int]:
        """What the options say of updates and epochs, and otherwise what was found."""
        outer, inner = self.method.outer, self.method.inner
        return (found[0] if outer == "auto" else outer), (found[1] if inner == "auto" else inner)

    def step(self, iteration: int) -> dict[str, float]:
        """One network from its initialization through training on the synthetic set, updated on its way."""
        random = self.random(iteration)
        network, losses = self.network(random), []
        outer, inner = self.loops()
        for update in range(outer):
            losses.append(self.update(network, random, iteration, update))
            if update < outer - 1:
                self.train_on_made(network, random, inner)
        return {"loss": sum(losses) / len(losses), "largest": self.watch()}

    def watch(self) -> float:
        """The largest absolute input; a warning when it passes 10 and twice what it was at first."""
        now, limit = float(self.inputs.detach().abs().max()), max(LIMIT, 2 * self.largest)
        if now > limit >= max(self.history.get("largest", [0.0])):
            warnings.warn(
                f"{self.key} has pushed inputs to {now:.3g} standard deviations after iteration {self.iteration}: gradients "
                f"of {self.model!r} do not hold them; use a network that normalizes, such as convnet, or a smaller lr_img",
                stacklevel=2,
            )
        return now

    def update(self, network: nn.Module, random: torch.Generator, iteration: int, update: int) -> float:
        """One step of the inputs of all classes."""
        self.freeze(network, random)
        draw = self.draw(random)
        real = self.real_gradients(network, self.blocks(random, self.method.batch_real), draw)
        loss, slope = self.match(network, self.inputs, self.labels, self.own(), real, draw)
        self.descend(inputs=slope)
        return loss

    def freeze(self, network: nn.Module, random: torch.Generator) -> None:
        """Freeze batch normalization with the statistics of real samples of all classes."""
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules()):
            positions = self.blocks(random, STATISTICS)[0].flatten()
            with self.flops.forward("statistics"):
                set_statistics(network, self.real(positions))
            self.flops.charge("statistics")
            self.samples += len(positions)

    def own(self) -> Groups:
        """Positions of the synthetic samples of each class, and their weights: a row of the weights sums to one."""
        ranks = torch.arange(int(self.counts.max()))[None]
        counts = self.counts[:, None]
        return (self.counts.cumsum(0) - self.counts)[:, None] + ranks % counts, (ranks < counts) / counts.float()

    def real_gradients(self, network: nn.Module, groups: Groups, draw: Transforms) -> list[Tensor]:
        """The gradients of groups of real samples, summed over as many passes as memory asks for."""
        positions, weights = groups
        numel = self.train.inputs[:1].numel()
        if self.device.type == "cpu" and len(positions) > 1 and positions.shape[1] * numel > LARGE:
            alone = zip(torch.split(positions, 1), torch.split(weights, 1), strict=True)
            parts = [self.real_gradients(network, part, draw) for part in alone]
            return [torch.cat(tensors) for tensors in zip(*parts, strict=True)]
        total: list[Tensor] = []
        values = PASS * (1 if self.device.type == "cpu" else 64)
        size = max(1, values // (len(positions) * numel))
        for part, share in zip(torch.split(positions, size, 1), torch.split(weights, size, 1), strict=True):
            labels, key = self.real_labels[part], f"real {tuple(part.shape)}"
            seen = self.transform(self.real(part.flatten()), draw, labels.flatten())
            seen = seen.reshape(*part.shape, *seen.shape[1:])
            with self.flops.forward(key):
                finish = class_loss(network, seen, *self.there(labels, share), least=self.least)
            with self.flops.backward(key):
                made = finish(False)
            self.flops.charge(key)
            total = [a + b for a, b in zip(total, made, strict=True)] if total else made
        self.samples += positions.numel()
        return total

    def there(self, *tensors: Tensor) -> list[Tensor]:
        """Tensors on the device."""
        return [t.to(self.device) for t in tensors]

    def match(
        self, network: nn.Module, inputs: Tensor, labels: Tensor, own: Groups, real: list[Tensor], draw: Transforms
    ) -> tuple[float, Tensor]:
        """The distance to the real gradients summed over groups, and its gradient at the synthetic inputs.

        Args:
            network: A network.
            inputs: (m, *shape) synthetic inputs, a function of what is learned.
            labels: (m,) their classes.
            own: Positions and weights of the groups.
            real: (g, *shape) gradients of the groups on real samples.
            draw: The transform of each class.

        Returns:
            The loss, and the gradient at what is learned.
        """
        positions, weights = own
        transformed = self.transform(inputs, draw, labels)
        # the network is counted alone: what the transform costs depends on the draw, and by convention it is nothing
        seen, key = transformed.detach().requires_grad_(True), f"synthetic {tuple(positions.shape)}"
        x = seen[positions.to(self.device)]
        with self.flops.forward(key):
            finish = class_loss(network, x, *self.there(labels[positions], weights), least=self.least)
        with self.flops.backward(key):
            made = finish(True)
            loss: Tensor = vmap(partial(gradient_distance, metric=self.metric))(made, real).sum()
            (slope,) = torch.autograd.grad(loss, seen)
        self.flops.charge(key)
        self.samples += positions.numel()
        if transformed is not self.inputs:
            (slope,) = torch.autograd.grad(transformed, self.inputs, slope)
        return float(loss.detach()), slope

    def train_on_made(self, network: nn.Module, random: torch.Generator, epochs: int) -> None:
        """Epochs of SGD on the synthetic set as it is."""
        network.train()
        optimizer = torch.optim.SGD(network.parameters(), self.method.lr_net)
        x, y = self.inputs.detach(), self.labels
        for _ in range(epochs):
            for part in torch.split(torch.randperm(len(y), generator=random), 256):
                draw = draw_dsa(self.strategy, len(part), random, one_family=True)
                seen, key = self.transform(x[part], draw, torch.arange(len(part))), f"train {len(part)}"
                optimizer.zero_grad()
                with self.flops.forward(key):
                    loss = F.cross_entropy(network(seen), y[part].to(self.device))
                with self.flops.backward(key):
                    loss.backward()  # type: ignore[no-untyped-call]
                self.flops.charge(key)
                optimizer.step()
                self.samples += len(part)


@dataclass(frozen=True)
class DC:
    """Dataset condensation by gradient matching.

    `min_S sum_c D(grad l(theta; S_c), grad l(theta; T_c))` over networks theta from their initialization through training
    on S, with the layer-wise distance D of `gradient_distance`. The classes make one batched pass. Cosine gradients are
    orthogonal to what they move, so on networks that do not normalize (`mlp`) the inputs grow without end and the set gets
    worse than real samples: a warning says when inputs pass 10 standard deviations.

    Args:
        iterations: Networks.
        lr_img: Learning rate of the inputs; `mlp` wants a tenth, or `auto`: the first step changes them by 1 %.
        momentum: Of SGD on the inputs.
        lr_net: Learning rate of the networks on the synthetic set.
        batch_real: Real samples of each class an update; all of a smaller class.
        outer: Updates a network; `auto` is `loops_for` of the samples a class.
        inner: Epochs of training between updates; `auto` likewise.
        distance: `layers`, or the worse `cos`, `mse`, `l1` of the whole gradient.
        init: `noise`, or `real` samples, better from 10 a class.
        augment: Siamese augmentation: `none` (`dsa` is this method with it), `auto` or families.
        model: The network; `auto` is the recipe's where it is a convnet or resnet, `convnet(width=32)` for other
            images, and the recipe's for tables.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> DC(iterations=100).distance
        'layers'

    Reference:
        Zhao, Mopuri and Bilen, Dataset Condensation with Gradient Matching, 2021, arXiv 2006.05929.
    """

    iterations: int = 1000
    lr_img: float | Literal["auto"] = 0.1
    momentum: float = 0.5
    lr_net: float = 0.01
    batch_real: int = 256
    outer: int | Literal["auto"] = "auto"
    inner: int | Literal["auto"] = "auto"
    distance: Metric = "layers"
    init: Literal["real", "noise"] = "noise"
    augment: str = "none"
    model: str = "auto"

    card: ClassVar[Card] = Card(
        key="dc",
        title="Synthetic samples whose gradients match those of the real samples of each class",
        paper="Zhao, Mopuri and Bilen, Dataset Condensation with Gradient Matching, 2021, arXiv 2006.05929",
        saves=("samples", "compute"),
    )
    runs: ClassVar[type[GradientMatching]] = GradientMatching

    def __post_init__(self) -> None:
        check_matching(self)

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
            Floating inputs in the units of the stored data, with class indices as targets; the common protocol, with the
            augmentation of the matching where there is one.

        Raises:
            DataError: The data are text, have no labels, a class without samples, or inputs that are not finite.
            BudgetError: Fewer samples than classes.
            TrainingError: The inputs grew beyond all bounds.
        """
        run = self.runs(self, data.train, budget, recipe, ctx)
        run.learn("inputs", run.start(self.init), self.lr_img, momentum=self.momentum)
        return run.run(self.iterations, run.step)


def check_matching(method: Any) -> None:
    """Refuse options of a method of gradient matching that make no sense.

    Raises:
        ModicumError: The option, what it was, what was expected.
    """
    auto = [name for name in ("lr_img", "outer", "inner") if getattr(method, name, None) == "auto"]
    for name, least in (("outer", 1), ("inner", 0)):
        value = getattr(method, name, "auto")
        if name not in auto and value != "auto" and (not isinstance(value, int) or value < least):
            raise ModicumError(
                f"method {method.card.key!r} option {name}={value!r}; expected an integer >= {least} or 'auto'"
            )
    if "lr_img" not in auto and (isinstance(method.lr_img, str) or not 0 < method.lr_img < float("inf")):
        raise ModicumError(
            f"method {method.card.key!r} option lr_img={method.lr_img!r}; expected a number > 0 or 'auto'"
        )
    check_options(
        method,
        positive=("iterations", "batch_real", "lr_net"),
        below_one=("momentum",),
        choices={"init": ("real", "noise")},
    )
    if hasattr(method, "distance"):
        check_options(method, choices={"distance": ("layers", "cos", "mse", "l1")})
    if method.augment != "auto":
        parse_strategy(method.augment)
