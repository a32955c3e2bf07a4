"""What a distiller gives: a small training set that says how it wants to be trained on, and how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from modicum.dataset import Dataset
from modicum.distillation.teacher import Teacher
from modicum.distillation.whitening import Whitening
from modicum.errors import DataError
from modicum.training.recipe import Recipe

__all__ = ["Distilled", "Snapshot", "evaluation_recipe"]


@dataclass(frozen=True)
class Snapshot:
    """The set at a moment of its making.

    Args:
        iteration: Steps that were taken.
        dataset: What it was then.
        recipe: How it wanted to be trained on then.
        stored: What its inputs were computed from, where that is smaller than they are.
    """

    iteration: int
    dataset: Dataset
    recipe: Recipe
    stored: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Distilled:
    """A small training set with its recipe.

    Args:
        dataset: What a model is trained on: inputs in the units of the stored data, or whitened where `whitening` says so;
            targets are class indices or soft labels as the recipe's loss reads them.
        recipe: How it wants to be trained on.
        method: The method with its options, as text.
        seed: Of the one initialization it was made for; None when any will do.
        whitening: What inputs of real data go through before the model sees them; None for none.
        history: Columns of the making, such as `iteration` and `loss`.
        snapshots: The set at some moments, the last of which is the set itself.
        stored: What the inputs are computed from, where that is smaller than they are.
        teacher: Labels every augmented view while a model is trained on the set, instead of the targets; None for none.

    Raises:
        DataError: There are no samples or no targets.

    Example:
        >>> import torch
        >>> data = Dataset(torch.rand(2, 4), torch.tensor([0, 1]))
        >>> made = Distilled(data, Recipe(model="linear", steps=1), "dm")
        >>> len(made), made.bytes
        (2, 48)
    """

    dataset: Dataset
    recipe: Recipe
    method: str
    seed: int | None = None
    whitening: Whitening | None = None
    history: Mapping[str, list[float]] = field(default_factory=dict)
    snapshots: tuple[Snapshot, ...] = ()
    stored: Mapping[str, Tensor] = field(default_factory=dict)
    teacher: Teacher | None = None

    def __post_init__(self) -> None:
        if not len(self.dataset) or self.dataset.targets is None:
            raise DataError(f"{self.method} made {len(self.dataset)} samples; expected at least one, with targets")

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def bytes(self) -> int:
        """What must be stored: the inputs or what they are computed from, and the targets."""
        assert self.dataset.targets is not None
        parts = list(self.stored.values()) or [self.dataset.inputs]
        return sum(p.numel() * p.element_size() for p in (*parts, self.dataset.targets))

    @property
    def particular(self) -> bool:
        """Whether nothing but its own recipe will do: given rates, one initialization, squared error, or a teacher."""
        own = self.recipe
        return bool(own.rates) or own.loss != "cross-entropy" or self.seed is not None or self.teacher is not None

    def prepared(self, data: Dataset) -> Dataset:
        """Real data as a model that was trained on the set wants them."""
        return data if self.whitening is None else self.whitening.apply(data)

    def at(self, snapshot: Snapshot) -> Distilled:
        """What the set was at a moment."""
        return replace(self, dataset=snapshot.dataset, recipe=snapshot.recipe, stored=snapshot.stored)


def evaluation_recipe(
    model: str, samples: int, *, augment: str = "none", lr: float = 0.01, epochs: int | None = None
) -> Recipe:
    """The common protocol of training on a synthetic set.

    SGD with momentum 0.9 (heavy ball) and weight decay 5e-4, batches of at most 256, the learning rate a tenth in the
    second half; 300 epochs, or 1000 with augmentation.

    Args:
        model: The network.
        samples: In the synthetic set.
        augment: A strategy such as `color_crop_cutout_flip_scale_rotate`, or `none`.
        lr: Learning rate of the first half.
        epochs: Instead of 300 or 1000.

    Returns:
        The recipe.

    Example:
        >>> evaluation_recipe("convnet", 10).epochs, evaluation_recipe("convnet", 10, augment="crop").epochs
        (300, 1000)

    Reference:
        Zhao and Bilen, Dataset Condensation with Differentiable Siamese Augmentation, 2021, arXiv 2102.08259.
    """
    plain = augment in ("none", "")
    return Recipe(
        model,
        epochs=epochs or (300 if plain else 1000),
        batch_size=min(256, samples),
        lr=lr,
        nesterov=False,
        schedule="step",
        augment=() if plain else (f"dsa(strategy={augment!r})",),
    )
