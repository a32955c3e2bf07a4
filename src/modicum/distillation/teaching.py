"""Teachers trained on the full data: a measurement, a check that they know the classes, and several as one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from modicum.dataset import Dataset, Splits
from modicum.errors import DataError, ModicumError, TrainingError
from modicum.ledger import Ledger
from modicum.measurement.cache import Measured, cached
from modicum.models import build
from modicum.reading import by_id, check_inputs
from modicum.spec import content_key
from modicum.training.evaluate import forward
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

if TYPE_CHECKING:
    from modicum.context import Context

__all__ = ["Ensemble", "Taught", "TrainedTeacher", "check_teacher", "rebuild_teacher", "student_recipe"]

BETWEEN = " + "  # the descriptions of an ensemble


@dataclass(frozen=True, eq=False)
class Taught:
    """A teacher and how well it knows what it was trained on.

    Args:
        model: In evaluation mode, without gradients.
        description: The text it was built from.
        accuracy: Share of its training samples that it knows.
    """

    model: nn.Module
    description: str
    accuracy: float


class Ensemble(nn.Module):
    """The mean of the logits of several networks.

    Args:
        models: With the same outputs.

    Example:
        >>> Ensemble([nn.Linear(3, 2), nn.Linear(3, 2)])(torch.rand(4, 3)).shape
        torch.Size([4, 2])
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c) logits."""
        return torch.stack([model(x) for model in self.models]).mean(0)


@dataclass(frozen=True)
class TrainedTeacher:
    """A network trained on all training data.

    Args:
        model: The network with its options.
        epochs: Passes over the data.
        lr: Highest learning rate of SGD with Nesterov momentum 0.9 and weight decay 5e-4, falling along a cosine.
        batch_size: Samples a step.
        scale: Least and largest share of an image that a random crop shows; images of classes that are no digits are
            flipped too.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> TrainedTeacher("resnet9(width=8)", epochs=2).trainings()
        1.0
    """

    model: str = "resnet9"
    epochs: int = 20
    lr: float = 0.05
    batch_size: int = 64
    scale: tuple[float, float] = (0.25, 1.0)

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ModicumError(f"teacher epochs={self.epochs!r}; expected an integer >= 1")

    def trainings(self) -> float:
        """How many trainings of the recipe on the full data this is, about."""
        return 1.0

    def recipe(self, train: Dataset) -> Recipe:
        """How it is trained."""
        augment = view_augment(train, self.scale)
        return Recipe(self.model, epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, augment=augment)

    def measure(self, data: Splits, recipe: Recipe, ctx: Context) -> Taught:
        """Train, or read from the cache; charged to `ctx.ledger` as choosing. The order of the samples does not matter.

        Raises:
            DataError: The data are no images, not finite, or have a class without samples.
            TrainingError: The teacher knows hardly more than chance.
        """
        train = data.train[by_id(data.train)]
        check_classes("the teacher", train)
        own = self.recipe(train)
        description = {"recipe": own, "train": train.fingerprint, "seed": ctx.seed}

        def make(inner: Context) -> Measured:
            name = f"teacher-{content_key(description)}"
            model = fit(train, own, inner, name=name, phase="choose").model
            told = forward(model, train, inner, phase="choose", what="teacher")
            right = (told.argmax(1) == train.labels).double().mean()
            return {"accuracy": right, **{f"model.{k}": v for k, v in model.state_dict().items()}}

        if ctx.cache is None:  # the run's own store makes it resumable
            inner = ctx.with_(ledger=Ledger())
            measured, ledger = make(inner), inner.ledger
        else:
            measured, ledger = cached("teachers", description, ctx, make)
        ctx.ledger.charges.extend(ledger.charges)
        model = build(self.model, train, ctx.seed)
        model.load_state_dict({k.removeprefix("model."): v for k, v in measured.items() if k.startswith("model.")})
        accuracy = float(measured["accuracy"])
        _refuse_chance(self.model, accuracy, train.labels, train.classes)
        return Taught(model.eval().requires_grad_(False).to(ctx.device), self.model, accuracy)


def check_classes(name: str, train: Dataset) -> None:
    """Refuse data that are no images, not finite, or lack a class.

    Args:
        name: Of who asks, for errors.
        train: The training split.

    Raises:
        DataError: They are.
    """
    check_inputs(name, train)
    if train.info.modality != "image":
        raise DataError(f"{name} is for images, but this data set is {train.info.modality}; use dm or kip")
    missing = (train.class_counts() == 0).nonzero().flatten()
    if len(missing):
        raise DataError(
            f"train has no sample of class {train.info.classes[int(missing[0])]!r}; {name} needs at least one of every class"
        )


def view_augment(train: Dataset, scale: tuple[float, float]) -> tuple[str, ...]:
    """Random crops, and flips where the classes are no digits."""
    flip = () if set(train.info.classes) <= set("0123456789") else ("flip",)
    crop = () if tuple(scale) == (1.0, 1.0) else (f"resized_crop(scale={tuple(scale)!r})",)
    return (*crop, *flip)


def check_teacher(model: nn.Module, inputs: Tensor, labels: Tensor, name: str = "teacher") -> float:
    """The accuracy of a teacher, which must be far above chance.

    Chance is the share s of the largest class; the accuracy must exceed `s + 3 sqrt(s (1 - s) / n)`. What is often wrong
    is that the classes come in another order in the data than in the teacher's training.

    Args:
        model: The teacher; it is put into evaluation mode.
        inputs: (n, *shape) standardized.
        labels: (n,) class indices.
        name: Of the teacher, for errors.

    Returns:
        The share of right answers.

    Raises:
        TrainingError: It is near chance.

    Example:
        >>> check_teacher(nn.Identity(), torch.eye(3).repeat(8, 1), torch.arange(3).repeat(8))
        1.0
    """
    model.eval()
    with torch.no_grad():
        parts = [model(part) for part in torch.split(inputs, 512)]
    told = torch.cat(parts)
    accuracy = float((told.argmax(1) == labels.to(told.device)).double().mean())
    _refuse_chance(name, accuracy, labels, told.shape[1])
    return accuracy


def _refuse_chance(name: str, accuracy: float, labels: Tensor, classes: int) -> None:
    n, chance = len(labels), float(torch.bincount(labels, minlength=classes).max()) / len(labels)
    limit = chance + 3 * sqrt(chance * (1 - chance) / n)
    if accuracy <= min(limit, (1 + chance) / 2):
        raise TrainingError(
            f"the teacher {name} knows {100 * accuracy:.1f} % of {n} samples, and chance is {100 * chance:.1f} %; train it "
            "longer or with another lr, and see that its classes are in the order of the data's"
        )


def rebuild_teacher(description: str, data: Dataset) -> nn.Module:
    """The network, or ensemble, of a teacher's description, with new weights, to load its own into.

    Args:
        description: Such as `resnet9(width=16)`, or several with ` + ` between them.
        data: Gives the shape of the inputs and the classes.

    Returns:
        The module.

    Example:
        >>> import modicum
        >>> type(rebuild_teacher("linear + mlp", modicum.load("digits").train)).__name__
        'Ensemble'
    """
    models = [build(each, data) for each in description.split(BETWEEN)]
    return models[0] if len(models) == 1 else Ensemble(models)


def student_recipe(
    model: str,
    train: Dataset,
    samples: int,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    batch_size: int | None = None,
    epochs: int = 300,
) -> Recipe:
    """How a student is trained on a synthetic set that a teacher labels: 300 epochs of AdamW at 1e-3 with weight decay
    0.01 and a cosine, on random crops, flips (not of digits) and CutMix.

    Args:
        model: The student.
        train: What was distilled; says whether classes are digits.
        samples: In the synthetic set.
        scale: Least and largest share of an image that a crop shows; (1, 1) for no crops.
        batch_size: When None 10, 50 or 100 for about 1, 10 or 50 samples a class, twice that from 100 classes on.
        epochs: Passes.

    Returns:
        The recipe.

    Example:
        >>> import modicum
        >>> student_recipe("convnet", modicum.load("digits").train, 100).batch_size
        50

    Reference:
        Sun, Shi, Yu and Lin, On the Diversity and Realism of Distilled Dataset, 2024, arXiv 2312.03526.
    """
    if batch_size is None:
        each = samples / train.classes
        batch_size = (10 if each < 5 else 50 if each < 30 else 100) * (2 if train.classes >= 100 else 1)
    return Recipe(
        model,
        epochs=epochs,
        batch_size=min(batch_size, samples),
        optimizer="adamw",
        lr=1e-3,
        momentum=0.9,
        weight_decay=0.01,
        augment=(*view_augment(train, scale), "cutmix"),
    )


def as_text(model: object) -> str:
    """The description of a network; factories have none, and the default takes their place."""
    if not isinstance(model, str):
        warnings.warn(
            f"a model factory {model!r} cannot be part of a recipe in a file; the recipe says auto", stacklevel=3
        )
        return "auto"
    return model
