"""DM: synthetic samples whose mean features in random networks are those of the real samples of their class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.data.siamese import parse_strategy
from modicum.distillation.synthesis import Synthesis
from modicum.errors import DataError, ModicumError
from modicum.methods import Card, Measurement
from modicum.models import features

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.distillation.distilled import Distilled
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

    def distill(self, data: Splits, budget: Budget, recipe: Recipe, ctx: Context, *measured: Any) -> Distilled:
        """Make the synthetic set.

        Args:
            data: Its training split is distilled; the others are not looked at.
            budget: Synthetic samples per class, or in all, spread evenly over the classes.
            recipe: Gives the network when `model` is `auto`.
            ctx: Device, seed, ledger and store.

        Returns:
            Floating inputs in the units of the stored data, with class indices as targets, ids `dm-<class>-<k>` and
            the same info; the common protocol, with the augmentation of the matching.

        Raises:
            DataError: The data are text, have no labels, a class without samples, or inputs that are not finite.
            BudgetError: Fewer samples than classes.
            TrainingError: The inputs grew beyond all bounds.
        """
        run = _Run(self, data.train, budget, recipe, ctx)
        run.learn("inputs", run.start(self.init), self.lr_img, momentum=self.momentum)
        return run.run(self.iterations, run.step)


class _Run(Synthesis):
    """Matching class means in random networks; everything but the inputs is a function of the seed and the iteration."""

    method: DM

    def step(self, iteration: int) -> float:
        """One network, one batch of every class, one step."""
        random = self.random(iteration)
        network = self.network(random).requires_grad_(False)
        batch = self.batch(random, self.method.batch_real)
        draw = self.draw(random)
        sums = torch.zeros((), device=self.device)
        with torch.no_grad():
            for part in torch.split(batch, BLOCK):
                labels, key = self.real_labels[part], f"real {len(part)}"
                seen = self.transform(self.real(part), draw, labels)
                with self.flops.forward(key):
                    rows = features(network, seen)
                self.flops.charge(key)
                sums = sums + _class_sums(rows, labels.to(self.device), self.classes)
        taken = torch.bincount(self.real_labels[batch], minlength=self.classes)
        means = sums / taken[:, None].to(sums)
        transformed = self.transform(self.inputs, draw, self.labels)
        # the network is counted alone: what the transform costs depends on the draw, and by convention it is nothing
        seen = transformed.detach().requires_grad_(True)
        with self.flops.forward("synthetic"):
            rows = features(network, seen)
        loss = (means - class_means(rows, self.labels.to(self.device), self.classes)).square().sum()
        (pull,) = torch.autograd.grad(loss, rows, retain_graph=True)
        with self.flops.backward("synthetic"):
            (slope,) = torch.autograd.grad(rows, seen, pull)
        self.flops.charge("synthetic")
        (slope,) = torch.autograd.grad(transformed, self.inputs, slope) if transformed is not self.inputs else (slope,)
        self.samples += len(batch) + len(self.labels)
        # the class means are products of (c, m) with (m, d), of the synthetic samples once more for their gradient
        self.extra_flops += 2 * self.classes * (len(batch) + 2 * len(self.labels)) * rows.shape[1]
        self.descend(inputs=slope)
        return float(loss.detach())


def _class_sums(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    # a product rather than a scatter: the same bits on every run of an accelerator
    return F.one_hot(labels, classes).to(values.dtype).T @ values
