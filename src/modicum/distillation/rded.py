"""RDED: the crops of real images that a teacher finds easiest, tiled; nothing is optimized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.data.geometry import ResizedCrop
from modicum.distillation.distilled import Distilled
from modicum.distillation.synthesis import Synthesis
from modicum.distillation.teacher import Teacher
from modicum.distillation.teaching import Taught, TrainedTeacher, as_text, check_classes, check_teacher, student_recipe
from modicum.errors import BudgetError, DataError
from modicum.methods import Card, Measurement, spec
from modicum.options import check_options

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.scores import Budget
    from modicum.training.recipe import Recipe

__all__ = ["RDED", "lowest_loss_crops", "tile", "untile"]

BLOCK = 512  # crops in one forward pass


def lowest_loss_crops(
    teacher: nn.Module,
    images: Tensor,
    labels: Tensor,
    random: torch.Generator,
    *,
    crops: int = 5,
    factor: int = 1,
    scale: tuple[float, float] = (0.08, 1.0),
) -> tuple[Tensor, Tensor]:
    """Of each image the random crop that a teacher finds easiest.

    `argmin_k -log softmax(f(up(x_k)))_y` over crops `x_k` of random area, square where the image is, of side `H / f` and
    `W / f`; `up` resizes them to the size of the image. With one crop of the whole image (`crops=1, factor=1,
    scale=(1, 1)`) it gives the images and the teacher's losses.

    Args:
        teacher: (n, channels, H, W) -> (n, c) logits; it is put into evaluation mode.
        images: (n, channels, H, W) standardized.
        labels: (n,) class indices.
        random: Of the crops; on the CPU.
        crops: Of each image.
        factor: f: the sides of a crop are those of an image divided by it.
        scale: Least and largest share of the area.

    Returns:
        (n, channels, H / f, W / f) crops and their (n,) losses, in nats.

    Raises:
        DataError: The sides of the images are not divisible by the factor.

    Example:
        >>> x, y, g = torch.rand(6, 1, 8, 8), torch.arange(6) % 2, torch.Generator().manual_seed(0)
        >>> best, losses = lowest_loss_crops(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), x, y, g, factor=2)
        >>> best.shape, losses.shape
        (torch.Size([6, 1, 4, 4]), torch.Size([6]))

    Reference:
        Sun, Shi, Yu and Lin, On the Diversity and Realism of Distilled Dataset, 2024, arXiv 2312.03526.
    """
    _divisible(images, factor)
    teacher.eval()
    n, whole = len(images), tuple(scale) == (1.0, 1.0)
    parameters = ResizedCrop((scale[0], scale[1]), (1.0, 1.0)).draw(n * crops, tuple(images.shape[1:]), random)
    parameters = parameters.reshape(n, crops, 4)
    best, lowest = [], []
    with torch.no_grad():
        for part in torch.split(torch.arange(n), max(1, BLOCK // crops)):
            x = images[part].repeat_interleave(crops, 0)
            if not whole:
                x = ResizedCrop().apply(x, parameters[part].flatten(0, 1).to(x))
            small = F.avg_pool2d(x, factor) if factor > 1 else x  # what a resizing with antialiasing gives
            seen = F.interpolate(small, size=x.shape[2:], mode="bilinear") if factor > 1 else small
            y = labels[part].to(x.device).repeat_interleave(crops)
            losses = F.cross_entropy(teacher(seen), y, reduction="none").reshape(-1, crops)
            value, at = losses.min(1)
            best.append(small.reshape(-1, crops, *small.shape[1:])[torch.arange(len(part), device=x.device), at])
            lowest.append(value)
    return torch.cat(best), torch.cat(lowest)


def tile(crops: Tensor, factor: int) -> Tensor:
    """Every f x f crops as one image, row after row.

    Args:
        crops: (k f^2, channels, h, w).
        factor: f.

    Returns:
        (k, channels, f h, f w).

    Example:
        >>> tile(torch.arange(4.0).reshape(4, 1, 1, 1), 2).flatten().tolist()
        [0.0, 1.0, 2.0, 3.0]
    """
    n, channels, h, w = crops.shape
    grid = crops.reshape(n // factor**2, factor, factor, channels, h, w)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, factor * h, factor * w)


def untile(images: Tensor, factor: int) -> Tensor:
    """The inverse of `tile`.

    Args:
        images: (k, channels, f h, f w).
        factor: f.

    Returns:
        (k f^2, channels, h, w).

    Example:
        >>> x = torch.rand(8, 3, 4, 4)
        >>> bool((untile(tile(x, 2), 2) == x).all())
        True
    """
    _divisible(images, factor)
    k, channels, height, width = images.shape
    grid = images.reshape(k, channels, factor, height // factor, factor, width // factor)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, height // factor, width // factor)


def _divisible(images: Tensor, factor: int) -> None:
    if images.ndim != 4 or any(side % factor for side in images.shape[2:]):
        raise DataError(f"images of {tuple(images.shape[1:])} cannot be parted into {factor} x {factor}; use factor=1")


@dataclass(frozen=True)
class RDED:
    """Realism and diversity without optimization.

    Of some random images of each class the crop with the lowest loss of a teacher is kept, of the class those crops with
    the lowest losses, and f x f of them make an image. A student is trained on what the teacher says of every augmented
    view of these images. Compare it with random real images labeled by the same teacher: the labels do much of it.

    Args:
        candidates: Real images of each class that are scored, at most.
        crops: Random crops of each.
        factor: Crops along the side of a synthetic image: 1 for 32 and 64 px, 2 for 224 px as published.
        scale: Least and largest share of an image in a crop. Images of few pixels have no parts that
            tell their class: use (1.0, 1.0) with crops=1 for them.
        views: Least and largest share of a synthetic image that the student sees.
        teacher: A network trained on all data.
        teacher_epochs: Of its training.
        temperature: Of the teacher's labels.
        model: The student; `auto` is the recipe's where it is a convnet or resnet, else `convnet(width=32)`.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> RDED(candidates=100).factor
        1

    Reference:
        Sun, Shi, Yu and Lin, On the Diversity and Realism of Distilled Dataset, 2024, arXiv 2312.03526.
    """

    candidates: int = 300
    crops: int = 5
    factor: int = 1
    scale: tuple[float, float] = (0.08, 1.0)
    views: tuple[float, float] = (0.5, 1.0)
    teacher: str = "resnet9"
    teacher_epochs: int = 20
    temperature: float = 20.0
    model: str = "auto"

    card: ClassVar[Card] = Card(
        key="rded",
        title="The easiest crops of real images, labeled by a teacher",
        paper="Sun, Shi, Yu and Lin, On the Diversity and Realism of Distilled Dataset, 2024, arXiv 2312.03526",
        saves=("samples", "compute"),
        modalities=("image",),
    )

    def __post_init__(self) -> None:
        check_options(self, positive=("candidates", "crops", "factor", "teacher_epochs", "temperature"))
        for option in ("scale", "views"):
            ResizedCrop(getattr(self, option))

    def needs(self) -> tuple[Measurement, ...]:
        """The teacher."""
        return (TrainedTeacher(self.teacher, self.teacher_epochs),)

    def distill(self, data: Splits, budget: Budget, recipe: Recipe, ctx: Context, *measured: Any) -> Distilled:
        """Choose the crops.

        Args:
            data: Its training split is distilled; the others are not looked at.
            budget: Synthetic images per class, or in all, spread evenly over the classes.
            recipe: Gives the student when `model` is `auto`.
            ctx: Device, seed, ledger and store.
            measured: The teacher.

        Returns:
            The images with class indices, the teacher, and the recipe of a student that learns what it says.

        Raises:
            DataError: The data are no images, have no labels, a class without samples, or inputs that are not finite.
            BudgetError: Fewer samples than classes, or more crops than real images of a class.
            TrainingError: The teacher is near chance.
        """
        check_classes("rded", data.train)
        taught: Taught = measured[0]
        run = Synthesis(self, data.train, budget, recipe, ctx)
        random, square = run.random("crops"), self.factor**2
        taken = run.real_counts.clamp(max=self.candidates)
        short = (taken < run.counts * square).nonzero().flatten()
        if len(short):
            c = int(short[0])
            raise BudgetError(
                f"{int(run.counts[c])} images of {square} crops need {int(run.counts[c]) * square} real images of class "
                f"{data.train.info.classes[c]!r}, but {int(taken[c])} are looked at; use fewer per class, a smaller factor, "
                f"or candidates above {self.candidates}"
            )
        mixed = run.batch(run.random("check"), -(-BLOCK // run.classes))
        with run.flops.forward("check"):
            check_teacher(taught.model, run.real(mixed), run.real_labels[mixed], taught.description)
        run.flops.charge("check")
        run.samples += len(mixed)
        wanted, kept = run.counts * square, (torch.empty(0), torch.empty(0), torch.empty(0, dtype=torch.int64))
        for number, part in enumerate(torch.split(run.batch(random, self.candidates), BLOCK)):
            labels, images, key = run.real_labels[part], run.real(part), f"score {len(part)}"
            with run.flops.forward(key):
                best, losses = lowest_loss_crops(
                    taught.model, images, labels, random, crops=self.crops, factor=self.factor, scale=self.scale
                )
            run.flops.charge(key)
            run.samples += len(part) * self.crops
            if number == 0:
                kept = best[:0].cpu(), losses[:0].cpu(), labels[:0]
            # only what may still be chosen stays in memory
            pool = [torch.cat(pair) for pair in zip(kept, (best.cpu(), losses.cpu(), labels), strict=True)]
            chosen = lowest_of_each(pool[1], pool[2], wanted)
            kept = pool[0][chosen], pool[1][chosen], pool[2][chosen]
        inputs = tile(kept[0], self.factor)
        ctx.ledger.add(run.charge())
        student = student_recipe(as_text(run.model), data.train, len(run.labels), scale=self.views)
        teacher = Teacher(taught.model, taught.description, self.temperature)
        history = {"iteration": [1.0], "loss": [float(kept[1].mean())]}
        return Distilled(run.dataset(inputs), student, spec(self), history=history, teacher=teacher)


def lowest_of_each(losses: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Positions of so many samples of each class with the lowest losses, class after class, the lowest first."""
    order = losses.argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]
    there = torch.bincount(labels, minlength=len(counts))
    rank = torch.arange(len(order)) - (there.cumsum(0) - there)[labels[order]]
    return order[rank < counts[labels[order]]]
