"""What learns without labels: a backbone, heads on it and the loss of a batch, all of it one module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from modicum.data.views import Views
from modicum.dataset import Dataset
from modicum.models import build, features
from modicum.training.recipe import Recipe

__all__ = ["Backbone", "Batches", "Learner", "Plan", "backbone_for"]

Batches: TypeAlias = Callable[[int], Iterator[tuple[Tensor, Tensor]]]
"""`batches(size)` goes over the data once, shuffled, as (positions (b,), standardized inputs (b, *shape))."""


@dataclass(frozen=True)
class Plan:
    """The length of a training run, for schedules that depend on it.

    Args:
        steps: Optimizer steps in all.
        batch_size: Samples a step.
        epochs: Passes over what is visited.
        seed: Of everything random.
    """

    steps: int
    batch_size: int
    epochs: float
    seed: int = 0


class Backbone(nn.Module):
    """A network as an encoder: its output is the representation that its last linear layer would read.

    Args:
        network: A `modicum.models.Network`, whose head is taken off, or any module with an `nn.Linear`.
        width: Numbers a sample of the representation.

    Example:
        >>> from modicum.models import MLP
        >>> backbone = Backbone(MLP((4,), 2, hidden=8), 8)
        >>> backbone(torch.rand(3, 4)).shape
        torch.Size([3, 8])
    """

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network, self.width = network, width

    def forward(self, x: Tensor) -> Tensor:
        """(n, width) the representation."""
        return features(self.network, x)


def backbone_for(recipe: Recipe, data: Dataset, seed: int) -> Backbone:
    """The encoder of a recipe's model, with new weights.

    Example:
        >>> import modicum
        >>> backbone_for(Recipe(model="mlp(hidden=16)"), modicum.load("digits").train, seed=0).width
        16
    """
    from modicum.models import Network

    network = build(recipe.model, data, seed, outputs=1)
    training = network.training
    with torch.no_grad():
        width = features(network.eval(), data.prepare(data.inputs[:1])).shape[1]
    if isinstance(network, Network):
        network.head = nn.Identity()  # type: ignore[assignment]  # nothing reads it, so that it costs nothing
    return Backbone(network.train(training), width)


class Learner(nn.Module):
    """What is trained: parameters that require gradients are updated, everything else in it is state and is saved.

    A subclass gives `forward`, and where it needs to `begin`, `after` and `mode`. State that belongs to samples, such
    as a memory bank, is a buffer with a row a sample. Randomness comes from `self.draw`.

    Args:
        backbone: What is kept in the end.
        views: Makes augmented views of a batch; None where inputs are not augmented, such as texts.
    """

    def __init__(self, backbone: Backbone, views: Views | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.views_of = views

    @property
    def mode(self) -> str:
        """What the coming step computes; steps of different cost have different modes."""
        return ""

    @property
    def draw(self) -> torch.Generator:
        """The generator of the step: the training loop makes PyTorch's own a function of (seed, step)."""
        return torch.default_generator

    def views(self, inputs: Tensor, count: int) -> list[Tensor]:
        """So many views of a batch, each (b, *shape)."""
        return [inputs] * count if self.views_of is None else self.views_of(inputs, count, self.draw)

    def forward(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each sample (b,), whose mean is descended, and embeddings (b, d) for who looks at them.

        A loss of the whole batch is given to every sample.

        Args:
            inputs: (b, *shape) standardized, not augmented.
            targets: (b,) labels where the learner reads them, else the positions of the samples.
            indices: (b,) positions of the samples in the data.
        """
        raise NotImplementedError

    def begin(self, batches: Batches) -> None:
        """Before the first step, with all data at hand; its passes are charged once."""

    def after(self) -> None:
        """After each update of the weights: averages, banks, queues."""
