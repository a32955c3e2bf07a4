"""G-VBSM: images recovered from several networks by the statistics of their batch norms and convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.data.geometry import ResizedCrop
from modicum.distillation.sre2l import Inversion, bn_statistics_loss, has_batch_norm
from modicum.distillation.teacher import Teacher
from modicum.distillation.teaching import BETWEEN, Ensemble, TrainedTeacher, as_text, check_classes, student_recipe
from modicum.errors import ModicumError
from modicum.methods import Card, Measurement
from modicum.models import Network
from modicum.options import check_options

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.distillation.distilled import Distilled
    from modicum.scores import Budget
    from modicum.training.recipe import Recipe

__all__ = ["GVBSM", "densification_loss", "layer_statistics"]

PATCH = 4  # px of a side
BLOCK = 512  # real images in one forward pass


def layer_statistics(maps: Tensor, patch: int = PATCH) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The statistics of the maps of a convolution, by channel and by place.

    The mean and the biased variance of each channel over images and places, and of each patch of `patch` x `patch` px
    over images, channels and the pixels in it; patches at the border may be smaller.

    Args:
        maps: (n, channels, h, w).
        patch: Side of a patch in px.

    Returns:
        (channels,) means and variances of channels, (patches,) means and variances of patches, row after row.

    Example:
        >>> [tuple(s.shape) for s in layer_statistics(torch.rand(5, 3, 8, 8))]
        [(3,), (3,), (4,), (4,)]

    Reference:
        Shao et al., Generalized Large-Scale Data Condensation via Various Backbone and Statistical Matching, 2024,
        arXiv 2311.17950.
    """
    return _spread(_moments(maps, patch))


def densification_loss(rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How far the features of each class are from pointing into different directions.

    With the Gram matrix G of the k normalized features of a class: `KL(softmax(diag G) || softmax(eig G))`, the mean over
    classes. It is 0 where the features are orthogonal, and largest where they are the same. Of each class the first k
    rows are compared, where k is the number of rows of the smallest class that has any; below two there is nothing to
    compare.

    Args:
        rows: (n, d) features.
        labels: (n,) class indices.
        classes: Number of classes c.

    Returns:
        A number >= 0.

    Example:
        >>> y = torch.zeros(3, dtype=torch.int64)
        >>> round(float(densification_loss(torch.eye(3), y, 1)), 4), round(float(densification_loss(torch.ones(3, 3), y, 1)), 2)
        (0.0, 1.0)

    Reference:
        Shao et al., Generalized Large-Scale Data Condensation via Various Backbone and Statistical Matching, 2024,
        arXiv 2311.17950.
    """
    counts = torch.bincount(labels, minlength=classes)
    there = counts > 0
    k = int(counts[there].min()) if bool(there.any()) else 0
    if k < 2:
        return rows.sum() * 0.0
    first = counts.cumsum(0) - counts
    at = first[there][:, None] + torch.arange(k, device=labels.device)
    unit = F.normalize(rows[labels.argsort(stable=True)[at]], dim=2)
    gram = unit @ unit.transpose(1, 2)
    own = gram.diagonal(dim1=1, dim2=2).softmax(1)
    spectrum = torch.linalg.eigvalsh(gram).log_softmax(1)
    out: Tensor = (own * (own.log() - spectrum)).sum(1).mean()
    return out


def _moments(maps: Tensor, patch: int) -> list[Tensor]:
    """First and second moments of channels and of patches."""
    squares = maps.square()
    size = [min(patch, side) for side in maps.shape[2:]]
    pooled = [F.avg_pool2d(m.mean((0, 1))[None, None], size, ceil_mode=True).flatten() for m in (maps, squares)]
    return [maps.mean((0, 2, 3)), squares.mean((0, 2, 3)), *pooled]


def _spread(moments: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean, square, patch_mean, patch_square = moments
    return mean, square - mean.square(), patch_mean, patch_square - patch_mean.square()


class _Averages:
    """Statistics of earlier batches of synthetic images, by network and layer."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Tensor]] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.rows = state["rows"]


class _Run(Inversion):
    """Recovery from one of the networks at a time."""

    method: GVBSM

    def measure(self) -> None:
        """The statistics of the convolutions on all real images, in one pass of every network."""
        self.averages, self.real_statistics = _Averages(), []
        for which, taught in enumerate(self.teachers):
            sums: list[Tensor] = []
            for part in torch.split(torch.arange(len(self.order)), BLOCK):
                key = f"statistics {which} {len(part)}"
                with torch.no_grad(), self.flops.forward(key):
                    maps = self.maps(taught.model, self.real(part))[0]
                self.flops.charge(key)
                self.samples += len(part)
                rows = [m.double() * len(part) / len(self.order) for each in maps for m in _moments(each, PATCH)]
                sums = [a + b for a, b in zip(sums, rows, strict=True)] if sums else rows
            layers = [sums[i : i + 4] for i in range(0, len(sums), 4)]
            self.real_statistics.append([s.float() for layer in layers for s in _spread(layer)])

    def maps(self, model: nn.Module, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
        """Outputs of the convolutions, features, logits, and how far the batch norms are from their statistics."""
        maps: list[Tensor] = []
        rows: list[Tensor] = []
        handles = [
            module.register_forward_hook(lambda _, inputs, out: maps.append(out))
            for module in model.modules()
            if isinstance(module, nn.Conv2d)
        ]
        if isinstance(model, Network):
            handles.append(model.head.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0])))
        try:
            if has_batch_norm(model):
                distance, outputs = bn_statistics_loss(model, x, self.method.first)
            else:
                outputs = model(x)
                distance = outputs.sum() * 0.0
        finally:
            for handle in handles:
                handle.remove()
        return maps, rows[0] if rows else outputs, outputs, distance

    def energy(self, seen: Tensor, labels: Tensor, which: int) -> tuple[Tensor, Tensor]:
        """Cross-entropy; statistics of batch norms and convolutions, and density."""
        maps, rows, outputs, distance = self.maps(self.teachers[which].model, seen)
        now = [m for each in maps for m in _moments(each, PATCH)]
        earlier = self.averages.rows.get(str(which))
        if earlier is not None:
            now = [self.method.ema * a + (1 - self.method.ema) * b for a, b in zip(earlier, now, strict=True)]
        self.averages.rows[str(which)] = [m.detach() for m in now]
        own = [s for i in range(0, len(now), 4) for s in _spread(now[i : i + 4])]
        for synthetic, real in zip(own, self.real_statistics[which], strict=True):
            distance = distance + (synthetic - real).norm()
        dense = densification_loss(rows, labels, self.classes)
        return F.cross_entropy(outputs, labels), self.method.r_bn * distance + self.method.densify * dense


@dataclass(frozen=True)
class GVBSM:
    """Recovery from various networks and statistics.

    As `SRe2L`, but every step of a batch takes one of several networks at random, compares the statistics of convolutions
    too, by channel and by patch (`layer_statistics`), averaged over the batches before, and spreads the features of each
    class (`densification_loss`). A student learns the mean logits of all networks, by squared error.

    What the published code does in detail was not verified: the weight of the densification, the averaging, and that
    statistics of real images are those of one pass over all of them are choices made here, and so is that hard labels are
    left out of the student's loss.

    Args:
        iterations: Steps of every image.
        lr_img: Step size of Adam, falling along a cosine.
        r_bn: Weight of the statistics.
        first: Weight of the first batch norm among them.
        densify: Weight of the densification.
        ema: Weight of earlier batches in the statistics of synthetic images.
        l2: Weight of the length of an image.
        tv: Weight of the squared differences of neighbors.
        batch: Images whose statistics are taken together.
        scale: Least and largest share of an image in a view, when recovering.
        jitter: Largest roll of a batch, as a share of the side.
        views: Least and largest share of an image that the student sees.
        backbones: The networks, with batch norm or without.
        teacher_epochs: Of their training.
        model: The student; `auto` is the recipe's where it is a convnet or resnet, else `convnet(width=32)`.

    Raises:
        ModicumError: A number makes no sense, or there are no networks.

    Example:
        >>> len(GVBSM(iterations=10).needs())
        3

    Reference:
        Shao et al., Generalized Large-Scale Data Condensation via Various Backbone and Statistical Matching, 2024,
        arXiv 2311.17950.
    """

    iterations: int = 1000
    lr_img: float = 0.25
    r_bn: float = 0.01
    first: float = 10.0
    densify: float = 0.1
    ema: float = 0.4
    l2: float = 0.0
    tv: float = 0.0
    batch: int = 100
    scale: tuple[float, float] = (0.08, 1.0)
    jitter: float = 1 / 7
    views: tuple[float, float] = (0.08, 1.0)
    backbones: tuple[str, ...] = ("resnet9", "resnet18", "convnet")
    teacher_epochs: int = 20
    model: str = "auto"

    card: ClassVar[Card] = Card(
        key="g-vbsm",
        title="Images recovered from several networks and the statistics of their layers, labeled by all of them",
        paper="Shao et al., Generalized Large-Scale Data Condensation via Various Backbone and Statistical Matching, 2024, "
        "arXiv 2311.17950",
        saves=("samples", "memory"),
        modalities=("image",),
    )

    def __post_init__(self) -> None:
        check_options(
            self,
            positive=("iterations", "lr_img", "batch", "teacher_epochs"),
            not_negative=("r_bn", "first", "densify", "l2", "tv"),
            below_one=("jitter", "ema"),
        )
        for option in ("scale", "views"):
            ResizedCrop(getattr(self, option))
        given: object = self.backbones
        if isinstance(given, str) or not given:
            raise ModicumError(f"g-vbsm backbones={self.backbones!r}; expected a tuple such as ('resnet9', 'convnet')")

    def needs(self) -> tuple[Measurement, ...]:
        """The networks."""
        return tuple(TrainedTeacher(each, self.teacher_epochs) for each in self.backbones)

    def distill(self, data: Splits, budget: Budget, recipe: Recipe, ctx: Context, *measured: Any) -> Distilled:
        """Recover the images.

        Args:
            data: Its training split is distilled; the others are not looked at.
            budget: Synthetic images per class, or in all, spread evenly over the classes.
            recipe: Gives the student when `model` is `auto`.
            ctx: Device, seed, ledger and store.
            measured: The networks.

        Returns:
            The images with class indices, the mean of the networks as teacher, and the recipe of a student that learns
            what it says.

        Raises:
            DataError: The data are no images, have no labels, a class without samples, or inputs that are not finite.
            BudgetError: Fewer samples than classes.
            TrainingError: The inputs grew beyond all bounds, or a network is near chance.
        """
        check_classes(self.card.key, data.train)
        run = _Run(self, data.train, budget, recipe, ctx)
        run.prepare(list(measured))
        run.measure()
        student = student_recipe(as_text(run.model), data.train, len(run.labels), scale=self.views)
        made = run.run(self.iterations, run.step, lambda: (run.dataset(), student), also=[run.averages])
        single = len(measured) == 1
        teacher = measured[0].model if single else Ensemble([taught.model for taught in measured])
        description = BETWEEN.join(taught.description for taught in measured)
        return replace(made, teacher=Teacher(teacher.eval(), description, 1.0, "mse"))
