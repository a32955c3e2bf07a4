"""Models at moments of their training: which steps those are, their learning rates, and the runs themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modicum.context import Context
from modicum.dataset import Dataset
from modicum.models import build
from modicum.training.fit import fit
from modicum.training.many import fit_many, stackable
from modicum.training.recipe import Recipe
from modicum.training.schedule import learning_rate

__all__ = ["moments_of", "rates_of", "trained_at"]


def moments_of(recipe: Recipe, n: int, shares: tuple[float, ...]) -> list[int]:
    """Steps after which the weights are kept, rising: the ends of whole epochs, and the end of the run.

    Example:
        >>> moments_of(Recipe(epochs=4, batch_size=10), 100, (0.1, 0.5, 1.0))
        [10, 20, 40]
    """
    steps, per_epoch = recipe.steps_for(n), -(-n // min(recipe.batch_size, n))
    ends = (steps if share == 1 else recipe.whole_epochs(n, share) * per_epoch for share in shares)
    return sorted({min(steps, end) for end in ends})


def rates_of(recipe: Recipe, n: int, moments: list[int]) -> Tensor:
    """(checkpoints,) float64 mean learning rate of the steps since the checkpoint before.

    Example:
        >>> rates_of(Recipe(epochs=4, batch_size=10, lr=1.0, schedule="one-cycle", warmup=0.5), 100, [20, 40])
        tensor([0.4750, 0.5250], dtype=torch.float64)
    """
    steps = recipe.steps_for(n)
    rates = np.array([learning_rate(recipe, step / steps) for step in range(steps)])
    return torch.tensor([rates[a:b].mean() for a, b in zip([0, *moments], moments)], dtype=torch.float64)


def trained_at(
    train: Dataset, subsets: list[Tensor], recipe: Recipe, moments: list[int], ctx: Context
) -> dict[str, Tensor]:
    """Train a model on each subset and keep its weights at the moments.

    Args:
        train: Training samples.
        subsets: Positions each run is trained on, as many for each.
        recipe: How.
        moments: Steps (see `moments_of`).
        ctx: Its seed is that of the first run.

    Returns:
        (runs, checkpoints, *shape) of each parameter and buffer, by name.
    """
    steps = recipe.steps_for(len(subsets[0]))
    seeds = [ctx.seed + 1_000_003 * run for run in range(len(subsets))]
    if len(subsets) > 1 and moments == [steps] and stackable(build(recipe.model, train)):
        fits = fit_many(train, recipe, ctx, subsets=subsets, seeds=seeds, name="gradients", phase="choose")
        kept = [[_weights(done.model)] for done in fits]
    else:
        kept = [
            _watched(train[at] if len(at) < len(train) else train, recipe, moments, ctx.with_(seed=seed), run)
            for run, (at, seed) in enumerate(zip(subsets, seeds))
        ]
    return {
        name: torch.stack([torch.stack([weights[name] for weights in checkpoints]) for checkpoints in kept])
        for name in kept[0][0]
    }


def _watched(train: Dataset, recipe: Recipe, moments: list[int], ctx: Context, run: int) -> list[dict[str, Tensor]]:
    """The weights of one run at the moments."""
    steps, per_epoch = recipe.steps_for(len(train)), -(-len(train) // min(recipe.batch_size, len(train)))
    keep = _Keep({moment // per_epoch for moment in moments if moment < steps})
    stop_after = None if moments[-1] == steps else moments[-1] // per_epoch
    done = fit(train, recipe, ctx, recorder=keep, stop_after=stop_after, name=f"gradients-{run}", phase="choose")
    weights = [keep.kept[moment // per_epoch] for moment in moments if moment < steps]
    return [*weights, _weights(done.model)] if moments[-1] == steps else weights


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


class _Keep:
    """The recorder that keeps the weights after some epochs."""

    def __init__(self, epochs: set[int]) -> None:
        self.epochs = tuple(sorted(epochs))
        self.kept: dict[int, dict[str, Tensor]] = {}

    def record(self, epoch: int, indices: Tensor, outputs: Tensor, losses: Tensor) -> None:
        """Nothing."""

    def end_epoch(self, epoch: int, model: nn.Module) -> None:
        """Keep the weights if it is time."""
        if epoch + 1 in self.epochs:
            self.kept[epoch + 1] = _weights(model)

    def state_dict(self) -> dict[str, Any]:
        """The weights kept so far."""
        return {"kept": self.kept}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """The inverse of `state_dict`."""
        self.kept = state["kept"]
