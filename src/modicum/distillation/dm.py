"""DM: synthetic samples whose mean features in random networks are those of the real samples of their class."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.context import generator
from modicum.dataset import Dataset
from modicum.distillation.dsa import Transforms, apply_dsa, draw_dsa, parse_strategy
from modicum.distillation.synthetic import check_inputs, spread, synthetic_set
from modicum.errors import DataError, ModicumError, TrainingError
from modicum.flops import FlopTable
from modicum.ledger import Charge, peak_bytes
from modicum.methods import Card, Measurement
from modicum.models import build, features
from modicum.models.build import choose
from modicum.models.convnet import depth_for
from modicum.reading import by_id, labels_of
from modicum.spec import content_key

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.scores import Budget
    from modicum.training.recipe import Recipe

__all__ = ["DM", "class_means", "dm_loss"]

BLOCK = 512  # real samples in one forward pass: memory is that of one block, whatever the number of classes


def class_means(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The mean of the rows of each class.

    Args:
        values: (n, d).
        labels: (n,) class indices.
        classes: Number of classes c.

    Returns:
        (c, d) means; NaN for a class without rows.

    Example:
        >>> class_means(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1]), 2).tolist()
        [[2.0], [5.0]]
    """
    return _class_sums(values, labels, classes) / torch.bincount(labels, minlength=classes)[:, None].to(values.dtype)


def dm_loss(
    real_features: Tensor, real_labels: Tensor, synthetic_features: Tensor, synthetic_labels: Tensor, classes: int
) -> Tensor:
    """The squared distance between the mean real and the mean synthetic features, summed over classes.

    `L = sum_c || mean_{i in c} psi(x_i) - mean_{j in c} psi(s_j) ||^2`, the squared maximum mean discrepancy with a
    linear kernel. The gradient of a class reaches its own synthetic samples only.

    Args:
        real_features: (m, d) features of real samples.
        real_labels: (m,) class indices.
        synthetic_features: (k, d) features of synthetic samples.
        synthetic_labels: (k,) class indices.
        classes: Number of classes c; all of them must be there on both sides.

    Returns:
        A scalar.

    Raises:
        DataError: Shapes do not fit, or a class is missing on one side.

    Example:
        >>> real, labels = torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1])
        >>> float(dm_loss(real, labels, torch.tensor([[1.0], [7.0]]), torch.tensor([0, 1]), 2))
        4.0

    Reference:
        Zhao and Bilen, Dataset Condensation with Distribution Matching, 2023, arXiv 2110.04181.
    """
    if real_features.ndim != 2 or synthetic_features.ndim != 2 or real_features.shape[1] != synthetic_features.shape[1]:
        raise DataError(
            f"real_features is {tuple(real_features.shape)} and synthetic_features {tuple(synthetic_features.shape)}; "
            "expected (m, d) and (k, d)"
        )
    for name, rows, labels in (
        ("real", real_features, real_labels),
        ("synthetic", synthetic_features, synthetic_labels),
    ):
        if labels.shape != rows.shape[:1]:
            raise DataError(f"{name}_labels is {tuple(labels.shape)}; expected ({len(rows)},), one a row of features")
        if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= classes):
            raise DataError(
                f"{name}_labels reach from {int(labels.min())} to {int(labels.max())}; expected 0..{classes - 1}"
            )
        missing = (torch.bincount(labels, minlength=classes) == 0).nonzero().flatten()
        if len(missing):
            raise DataError(f"{name}_labels hold no sample of class {int(missing[0])}; every class needs at least one")
    real = class_means(real_features, real_labels, classes)
    return (real - class_means(synthetic_features, synthetic_labels, classes)).square().sum()


@dataclass(frozen=True)
class DM:
    """Distribution matching.

    Every iteration draws a new random network, never trained, and moves the synthetic samples a step down `dm_loss`.
    Memory is that of the synthetic samples with their gradient and of one block of real samples in the network.

    Args:
        iterations: Steps, each with its own network.
        lr_img: Step size on the standardized inputs. The right one depends on the scale of the features: 1 suits
            networks with instance norm; `auto` chooses it so that the first step changes the inputs by 1 %.
        momentum: Of the steps.
        batch_real: Real samples of each class a step.
        init: Start from `real` samples or from `noise`.
        augment: Siamese augmentation of images, such as `color_crop` (see `apply_dsa`), or `none`; `auto` is the
            published strategy: everything, without flip when the classes are digits, nothing on data without pixels.
        model: The network; `auto` is the recipe's where it is a convnet or resnet, `convnet(width=32)` for other
            images, and the recipe's for tables.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> DM(iterations=100, lr_img="auto").momentum
        0.5

    Reference:
        Zhao and Bilen, Dataset Condensation with Distribution Matching, 2023, arXiv 2110.04181.
    """

    iterations: int = 20_000
    lr_img: float | Literal["auto"] = 1.0
    momentum: float = 0.5
    batch_real: int = 256
    init: Literal["real", "noise"] = "real"
    augment: str = "auto"
    model: str = "auto"

    card: ClassVar[Card] = Card(
        key="dm",
        title="Synthetic samples whose mean features in random networks match those of each class",
        paper="Zhao and Bilen, Dataset Condensation with Distribution Matching, 2023, arXiv 2110.04181",
        saves=("samples", "compute"),
    )

    def __post_init__(self) -> None:
        auto = self.lr_img == "auto"
        checks: tuple[tuple[str, bool, str], ...] = (
            ("iterations", self.iterations >= 1, "an integer >= 1"),
            ("lr_img", auto or (not isinstance(self.lr_img, str) and self.lr_img > 0), "a number > 0 or 'auto'"),
            ("momentum", 0 <= self.momentum < 1, "a number in [0, 1)"),
            ("batch_real", self.batch_real >= 1, "an integer >= 1"),
            ("init", self.init in ("real", "noise"), "'real' or 'noise'"),
        )
        for name, right, expected in checks:
            if not right:
                raise ModicumError(f"dm {name}={getattr(self, name)!r}; expected {expected}")
        if self.augment != "auto":
            parse_strategy(self.augment)

    def needs(self) -> tuple[Measurement, ...]:
        """No measurement."""
        return ()

    def distill(self, data: Splits, budget: Budget, recipe: Recipe, ctx: Context, *measured: Any) -> Dataset:
        """Make the synthetic set.

        Args:
            data: Its training split is distilled; the others are not looked at.
            budget: Synthetic samples per class, or in all, spread evenly over the classes.
            recipe: Gives the network when `model` is `auto`.
            ctx: Device, seed, ledger and store.

        Returns:
            Floating inputs in the units of the stored data, with class indices as targets, ids `dm-<class>-<k>` and
            the same info.

        Raises:
            DataError: The data are text, have no labels, a class without samples, or inputs that are not finite.
            BudgetError: Fewer samples than classes.
            TrainingError: The inputs grew beyond all bounds.
        """
        started = time.perf_counter()
        run = _Run(self, data.train, budget, recipe, ctx)
        work = content_key(self, data.train.fingerprint, budget, run.model, ctx.seed)
        for iteration in ctx.loop(f"dm-{work}", self.iterations, [run, run.flops], work):
            run.step(iteration)
        made = run.result()
        ctx.ledger.add(run.charge(self.iterations, run.seconds_before + time.perf_counter() - started))
        return made


class _Run:
    """The synthetic inputs and their momentum; everything else is a function of the seed and the iteration."""

    def __init__(self, method: DM, train: Dataset, budget: Budget, recipe: Recipe, ctx: Context) -> None:
        self.method, self.train, self.seed, self.device = method, train, ctx.seed, torch.device(ctx.device)
        self.began, self.seconds_before = time.perf_counter(), 0.0
        check_inputs("dm", train)
        self.order = by_id(train)
        self.real_labels = labels_of("train", train)[self.order]
        self.real_counts = torch.bincount(self.real_labels, minlength=train.classes)
        if not bool(self.real_counts.all()):
            name = train.info.classes[int(self.real_counts.argmin())]
            raise DataError(f"train has no sample of class {name!r}; dm needs at least one of every class")
        self.model = _embedding(method, train, recipe)
        self.strategy = _strategy(method, train)
        self.taken = self.real_counts.clamp(max=method.batch_real)
        self.counts = spread("dm", budget, self.real_counts)
        self.labels = torch.arange(train.classes).repeat_interleave(self.counts)
        self.inputs = self._start().to(self.device)
        self.velocity = torch.zeros_like(self.inputs)
        self.lr = 0.0 if method.lr_img == "auto" else float(method.lr_img)
        self.flops = FlopTable()
        self.parameters = self.extra = 0

    def _start(self) -> Tensor:
        random = generator(self.seed, "dm", "init")
        if self.method.init == "noise":
            return torch.randn((len(self.labels), *self.train.inputs.shape[1:]), generator=random)
        # a class with too few samples gives them again and again
        ranks = torch.cat([torch.arange(k) for k in self.counts.tolist()])
        ranks = ranks % self.real_counts[self.labels]
        first = self.real_counts.cumsum(0) - self.real_counts
        return self._real(self._shuffled(random)[first[self.labels] + ranks]).clone()

    def _shuffled(self, random: torch.Generator) -> Tensor:
        """Positions in the order of ids, class after class, in random order within each class."""
        keys = torch.rand(len(self.real_labels), generator=random, dtype=torch.float64)
        return (self.real_labels + keys).argsort(stable=True)

    def _real(self, positions: Tensor) -> Tensor:
        return self.train.prepare(self.train.inputs[self.order[positions]], self.device)

    def _batch(self, random: torch.Generator) -> Tensor:
        """Positions of at most `batch_real` samples of each class; classes alternate, so that every block is mixed."""
        order = self._shuffled(random)
        first = self.real_counts.cumsum(0) - self.real_counts
        ranks = torch.arange(int(self.taken.max()))[:, None]
        return order[(first + ranks)[ranks < self.taken]]

    def step(self, iteration: int) -> None:
        """One network, one batch of every class, one step."""
        random, classes = generator(self.seed, "dm", iteration), self.train.classes
        network = build(self.model, self.train, int(torch.randint(2**31, (1,), generator=random)))
        network = network.to(self.device).requires_grad_(False)
        self.parameters = sum(p.numel() for p in network.parameters())
        batch = self._batch(random)
        draw = draw_dsa(self.strategy, classes, random)
        sums = torch.zeros((), device=self.device)
        with torch.no_grad():
            for part in torch.split(batch, BLOCK):
                labels, key = self.real_labels[part], f"real {len(part)}"
                seen = self._transform(self._real(part), draw, labels)
                with self.flops.forward(key):
                    rows = features(network, seen)
                self.flops.charge(key)
                sums = sums + _class_sums(rows, labels.to(self.device), classes)
        means = sums / self.taken[:, None].to(sums)
        inputs = self.inputs.requires_grad_(True)
        transformed = self._transform(inputs, draw, self.labels)
        # the network is counted alone: what the transform costs depends on the draw, and by convention it is nothing
        seen = transformed.detach().requires_grad_(True)
        with self.flops.forward("synthetic"):
            rows = features(network, seen)
        loss = (means - class_means(rows, self.labels.to(self.device), classes)).square().sum()
        (pull,) = torch.autograd.grad(loss, rows, retain_graph=True)
        with self.flops.backward("synthetic"):
            (slope,) = torch.autograd.grad(rows, seen, pull)
        self.flops.charge("synthetic")
        (slope,) = torch.autograd.grad(transformed, inputs, slope) if transformed is not inputs else (slope,)
        # the class means are products of (c, m) with (m, d), of the synthetic samples once more for their gradient
        self.extra = 2 * classes * (len(batch) + 2 * len(self.labels)) * rows.shape[1]
        self._move(slope, iteration)

    def _transform(self, x: Tensor, draw: Transforms, labels: Tensor) -> Tensor:
        return apply_dsa(x, draw, labels) if self.strategy else x

    def _move(self, slope: Tensor, iteration: int) -> None:
        self.inputs = self.inputs.detach()
        if not self.lr:
            self.lr = 0.01 * float(_rms(self.inputs) / _rms(slope).clamp(min=1e-30))
        self.velocity = self.method.momentum * self.velocity + slope
        self.inputs = self.inputs - self.lr * self.velocity
        if not bool(self.inputs.isfinite().all()):
            raise TrainingError(
                f"the synthetic inputs are not finite after iteration {iteration}: lr_img={self.lr:.4g} is too large for "
                f"the features of {self.model!r}; use lr_img='auto', or less than {self.lr / 10:.1g}"
            )

    def result(self) -> Dataset:
        """The synthetic set, in the units of the stored inputs."""
        return synthetic_set("dm", self.train, self.inputs, self.counts)

    def charge(self, iterations: int, seconds: float) -> Charge:
        """The whole run as one charge."""
        return Charge(
            "choose",
            "dm",
            samples=iterations * (int(self.taken.sum()) + len(self.labels)),
            labels=len(self.train),
            forward_flops=self.flops.forward_flops,
            backward_flops=self.flops.backward_flops,
            extra_flops=iterations * self.extra,
            seconds=seconds,
            peak_bytes=torch.cuda.max_memory_allocated() if self.device.type == "cuda" else peak_bytes(),
            parameters=self.parameters,
            uncounted=self.flops.uncounted,
        )

    def state_dict(self) -> dict[str, Any]:
        """What the rest of the run depends on, and what it has cost."""
        seconds = self.seconds_before + time.perf_counter() - self.began
        tensors = {"inputs": self.inputs.detach(), "velocity": self.velocity}
        return {**tensors, "lr": self.lr, "parameters": self.parameters, "seconds_before": seconds}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """The inverse of `state_dict`."""
        self.inputs, self.velocity = state["inputs"].to(self.device), state["velocity"].to(self.device)
        self.lr, self.parameters, self.seconds_before = state["lr"], state["parameters"], state["seconds_before"]


def _class_sums(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    # a product rather than a scatter: the same bits on every run of an accelerator
    return F.one_hot(labels, classes).to(values.dtype).T @ values


def _rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


def _embedding(method: DM, train: Dataset, recipe: Recipe) -> Any:
    if method.model != "auto":
        return method.model
    own = not isinstance(recipe.model, str) or recipe.model.startswith(("convnet", "resnet"))
    if own or train.info.modality != "image":
        return recipe.model
    return "convnet(width=32)" if depth_for(list(train.inputs.shape[2:]), 0) else choose(train)


def _strategy(method: DM, train: Dataset) -> tuple[str, ...]:
    image, digits = train.info.modality == "image", set(train.info.classes) <= set("0123456789")
    if method.augment == "auto":
        return parse_strategy(f"color_crop_cutout_{'' if digits else 'flip_'}scale_rotate") if image else ()
    names = parse_strategy(method.augment)
    if names and not image:
        raise DataError(
            f"dm augment={method.augment!r} is for images, but this data set is {train.info.modality}; use none"
        )
    if digits and "flip" in names:
        warnings.warn("dm augment flips images of digits, which makes them others; leave flip out", stacklevel=4)
    return names
