"""BPTT: images, or bases that many images are sums of, learned through long trainings with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.data.siamese import parse_strategy
from modicum.distillation.synthesis import Synthesis
from modicum.distillation.unroll import flat_network, unrolled_gradient
from modicum.errors import BudgetError, DataError, ModicumError
from modicum.methods import Card, Measurement
from modicum.options import check_options
from modicum.training.recipe import Recipe

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Dataset, Splits
    from modicum.distillation.distilled import Distilled
    from modicum.scores import Budget

__all__ = ["BPTT", "addressed", "addresses_for"]


def addresses_for(shape: tuple[int, ...], classes: int, per_class: int, bases: int, downsample: int = 2) -> int:
    """How many samples of each class bases and addresses make in the storage of plain samples.

    `r = floor((c k d - K d / s^2) / (c K))`, with d numbers a sample: `c k d` numbers are those of k samples a class,
    `K d / s^2` those of the bases, and each sample has K numbers as its address.

    Args:
        shape: (channels, height, width) of an image, or (d,).
        classes: c.
        per_class: k.
        bases: K.
        downsample: s, by which both sides of the bases are smaller; 1 where samples have no sides.

    Returns:
        r, at least 1.

    Raises:
        DataError: The sides are not divisible by s.
        BudgetError: The bases alone need more storage than the plain samples leave for addresses.

    Example:
        >>> addresses_for((3, 32, 32), 10, 1, 16)
        115

    Reference:
        Deng and Russakovsky, Remember the Past, 2022, arXiv 2206.02916.
    """
    whole, small = prod(shape), prod(_base_shape(shape, downsample))
    r = (classes * per_class * whole - bases * small) // (classes * bases)
    if r < 1:
        raise BudgetError(
            f"{bases} bases already exceed the storage of {per_class} sample(s) a class: they need {bases * small} of "
            f"{classes * per_class * whole} numbers and {classes * bases} for each address; use fewer bases or more samples"
        )
    return r


def _base_shape(shape: tuple[int, ...], downsample: int) -> tuple[int, ...]:
    """Of a basis: both sides smaller by a factor."""
    if downsample > 1 and (len(shape) != 3 or any(side % downsample for side in shape[1:])):
        raise DataError(
            f"downsample={downsample} does not divide the sides of inputs of shape {shape}; expected (channels, height, "
            "width) with sides that are multiples of it, or downsample=1"
        )
    return shape if downsample == 1 else (shape[0], *(side // downsample for side in shape[1:]))


def addressed(addresses: Tensor, bases: Tensor, shape: tuple[int, ...], downsample: int = 1) -> Tensor:
    """Samples as sums of bases: `upsample(a B)`, bilinear.

    Args:
        addresses: (m, K).
        bases: (K, *small) with both sides smaller by the factor.
        shape: Of a sample.
        downsample: The factor.

    Returns:
        (m, *shape), differentiable in both.

    Raises:
        DataError: Shapes do not fit.

    Example:
        >>> x = torch.rand(3, 1, 4, 4)
        >>> torch.equal(addressed(torch.eye(3), x, (1, 4, 4)), x)
        True

    Reference:
        Deng and Russakovsky, Remember the Past, 2022, arXiv 2206.02916.
    """
    small = _base_shape(shape, downsample)
    if addresses.ndim != 2 or tuple(bases.shape) != (addresses.shape[1], *small):
        raise DataError(
            f"addresses is {tuple(addresses.shape)} and bases {tuple(bases.shape)}; expected (m, K) and (K, {small})"
        )
    made = (addresses @ bases.flatten(1)).reshape(-1, *small)
    if downsample == 1:
        return made
    return F.interpolate(made, scale_factor=float(downsample), mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class BPTT:
    """Back-propagation through a long training with momentum.

    A new network takes `steps` steps of SGD with momentum on batches of the synthetic samples; the cross-entropy of real
    samples after the last one is differentiated with respect to the samples, exactly (see `unrolled_gradient`). Memory is
    that of one step and `steps` times the parameters.

    With `bases` K > 0 what is learned are K bases, which all classes share, and an address for each sample: it is
    `addressed(a, B)`. As many samples are made as the storage of the budget allows (see `addresses_for`): the set has more
    samples than asked for, in the same number of bytes.

    Args:
        iterations: Outer steps, each with a new network; the published runs have up to 500,000.
        steps: T, of the inner training.
        lr: Its learning rate, at which the set wants to be trained on too.
        momentum: Of it, a heavy ball.
        batch_syn: Synthetic samples of each class a step.
        batch_real: Real samples of each class an outer step.
        lr_img: Outer learning rate of SGD with momentum 0.5.
        clip: Largest norm of the outer gradient of all that is learned; 0 is off.
        bases: K; 0 learns plain samples.
        downsample: By which both sides of the bases are smaller than the images; not for tables, use 1.
        decay: Of the norm of the addresses.
        init: Start plain samples from `noise` or from `real` ones.
        augment: Augmentation of synthetic images in the inner training; `flip_rotate` is the published one.
        model: The network; `auto` as for the other distillers.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> BPTT(iterations=100, bases=16).momentum
        0.9

    Reference:
        Deng and Russakovsky, Remember the Past: Distilling Datasets into Addressable Memories for Neural Networks, 2022,
        arXiv 2206.02916.
    """

    iterations: int = 50_000
    steps: int = 150
    lr: float = 0.01
    momentum: float = 0.9
    batch_syn: int = 10
    batch_real: int = 64
    lr_img: float = 0.1
    clip: float = 2.0
    bases: int = 0
    downsample: int = 2
    decay: float = 1e-4
    init: Literal["noise", "real"] = "real"
    augment: str = "none"
    model: str = "auto"

    card: ClassVar[Card] = Card(
        key="bptt",
        title="Samples, or bases that many samples are sums of, through long trainings with momentum",
        paper="Deng and Russakovsky, Remember the Past, 2022, arXiv 2206.02916",
        saves=("samples", "memory"),
        modalities=("image", "tabular"),
    )

    def __post_init__(self) -> None:
        check_options(
            self,
            positive=("iterations", "steps", "lr", "batch_syn", "batch_real", "lr_img", "downsample"),
            not_negative=("clip", "bases", "decay"),
            below_one=("momentum",),
            choices={"init": ("noise", "real")},
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
            budget: Synthetic samples per class, or with bases the storage of so many.
            recipe: Gives the network when `model` is `auto`.
            ctx: Device, seed, ledger and store.

        Returns:
            The samples; with bases, `stored` holds the (K, *small) `bases` and the (m, K) `addresses`.

        Raises:
            DataError: The data are text, have no labels, a class without samples, or inputs that are not finite; the
                bases do not fit the images.
            BudgetError: Fewer samples than classes, or bases that exceed the storage.
            TrainingError: The inner training diverged.
        """
        run = _Run(self, data.train, budget, recipe, ctx)
        return run.run(self.iterations, run.step, run.made)


class _Run(Synthesis):
    """Differentiating through T steps with momentum."""

    method: BPTT

    def __init__(self, method: BPTT, train: Dataset, budget: Budget, recipe: Recipe, ctx: Context) -> None:
        super().__init__(method, train, budget, recipe, ctx)
        self.shape = tuple(train.inputs.shape[1:])
        if method.bases:
            self._address()
        else:
            self.learn("inputs", self.start(method.init), method.lr_img, momentum=0.5)

    def _address(self) -> None:
        method = self.method
        if int(self.counts.min()) < int(self.counts.max()):
            raise ModicumError(
                f"{self.budget} gives classes {int(self.counts.min())} or {int(self.counts.max())} samples; bases need a "
                "budget per class"
            )
        r = addresses_for(self.shape, self.classes, int(self.counts[0]), method.bases, method.downsample)
        self.counts = torch.full_like(self.counts, r)
        self.labels = torch.arange(self.classes).repeat_interleave(r)
        small = _base_shape(self.shape, method.downsample)
        for name, rows, columns in (
            ("bases", method.bases, prod(small)),
            ("addresses", len(self.labels), method.bases),
        ):
            bound = (6 / (rows + columns)) ** 0.5  # Xavier's
            start = (2 * torch.rand(rows, columns, generator=self.random("init", name)) - 1) * bound
            self.learn(name, start.reshape(rows, *small) if name == "bases" else start, method.lr_img, momentum=0.5)

    def decoded(self) -> Tensor:
        """(m, *shape) the samples, standardized; with the graph of what they are computed from."""
        if not self.method.bases:
            return self.inputs
        return addressed(self.learned["addresses"], self.learned["bases"], self.shape, self.method.downsample)

    def step(self, iteration: int) -> float:
        """One outer step."""
        random, method = self.random(iteration), self.method
        theta, call = flat_network(self.network(random))
        batch = self.batch(random, method.batch_real)
        x, y = self.real(batch), self.real_labels[batch].to(self.device)
        size = min(method.batch_syn, int(self.counts.max()))
        # the numbers of a step are drawn once, because every step is taken twice
        parts = [self._part(random, size) for _ in range(method.steps)]
        draws = [self.draw(random, len(part)) if self.strategy else None for part in parts]
        labels = self.labels.to(self.device)

        def loss(theta: Tensor, n: int, inputs: Tensor) -> Tensor:
            rows, draw = inputs[parts[n]], draws[n]
            rows = rows if draw is None else self.transform(rows, draw, torch.arange(len(rows)))
            return F.cross_entropy(call(theta, rows), labels[parts[n]])

        def outer(theta: Tensor) -> Tensor:
            return F.cross_entropy(call(theta, x), y)

        inputs = self.decoded()
        found = unrolled_gradient(
            loss,
            theta,
            [inputs],
            method.lr,
            outer,
            steps=method.steps,
            momentum=method.momentum,
            flops=self.flops,
            shape=lambda n: len(parts[n]),
        )
        (pull,) = found.leaves
        assert pull is not None
        names = list(self.learned)
        slopes = [pull] if not method.bases else self._to_bases(names, inputs, pull)
        if method.clip:
            norm = torch.stack([slope.norm() for slope in slopes]).norm()
            slopes = [slope * (method.clip / norm.clamp(min=method.clip)) for slope in slopes]
        self.samples += len(batch) + 2 * sum(map(len, parts))
        self.descend(**dict(zip(names, slopes, strict=True)))
        return float(found.loss)

    def _part(self, random: torch.Generator, size: int) -> Tensor:
        """Positions of random synthetic samples of each class."""
        keys = torch.rand(len(self.labels), generator=random)
        order, first = (self.labels + keys).argsort(stable=True), self.counts.cumsum(0) - self.counts
        ranks = torch.arange(size)[:, None]
        return order[(first + ranks)[ranks < self.counts]]

    def _to_bases(self, names: list[str], inputs: Tensor, pull: Tensor) -> list[Tensor]:
        slopes = list(torch.autograd.grad(inputs, [self.learned[name] for name in names], pull))
        # sums of bases are products, as are the gradients of both factors
        self.extra_flops += 3 * 2 * len(self.labels) * self.learned["bases"].numel()
        addresses = self.learned["addresses"].detach()
        at = names.index("addresses")
        slopes[at] = slopes[at] + self.method.decay * addresses / addresses.norm().clamp(min=1e-12)
        return slopes

    def made(self) -> tuple[Dataset, Recipe]:
        """The samples, and the inner training for 300 epochs."""
        m = self.method
        batch = sum(min(m.batch_syn, k) for k in self.counts.tolist())
        recipe = Recipe(
            self.model,
            epochs=300,
            batch_size=batch,
            lr=m.lr,
            momentum=m.momentum,
            nesterov=False,
            weight_decay=0.0,
            schedule="constant",
            augment=(f"dsa(strategy={'_'.join(self.strategy)!r})",) if self.strategy else (),
        )
        return self.dataset(self.decoded()), recipe

    def stored(self) -> dict[str, Tensor]:
        """The bases and how the samples are sums of them, where there are any."""
        if not self.method.bases:
            return {}
        return {name: leaf.detach().cpu().clone() for name, leaf in self.learned.items()}
