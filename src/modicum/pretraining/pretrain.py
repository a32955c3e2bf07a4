"""Pretraining: a method, a recipe and unlabeled data give an encoder."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from modicum.context import Context
from modicum.dataset import Dataset, Splits
from modicum.errors import ModicumError, TrainingError
from modicum.ledger import Ledger
from modicum.methods import Pretraining, make, spec
from modicum.models.convnet import depth_for
from modicum.pretraining.learner import Backbone, Batches, Learner, Plan, backbone_for
from modicum.training.fit import Recorder, fit
from modicum.training.order import Shuffle
from modicum.training.recipe import Recipe

__all__ = ["Pretrained", "Visits", "default_pretraining_recipe", "pretrain", "recipe_for"]


@dataclass
class Pretrained:
    """An encoder that was learned without labels, how, and what it cost.

    Args:
        encoder: In evaluation mode.
        learner: The whole module that was trained, heads and state included.
        method: Its text, with the options that differ from the defaults.
        recipe: How it was trained.
        history: Per epoch, see `modicum.training.Fit`.
        ledger: What it cost, measurements of the method included.
        device: Where it is.
    """

    encoder: Backbone
    learner: Learner
    method: str
    recipe: Recipe
    history: dict[str, list[float]]
    ledger: Ledger
    device: str = "cpu"


class Visits(Shuffle):
    """A share of the samples an epoch, drawn anew each time, in whole batches.

    Args:
        n: Number of samples.
        batch_size: Samples a step; what is left over at the end of an epoch is not visited.
        share: Of the samples that an epoch visits, in (0, 1].
        seed: Of the order.

    Raises:
        TrainingError: Not one whole batch is left.

    Example:
        >>> len(Visits(100, 16, share=0.5).order(0)[0])
        48
    """

    def __init__(self, n: int, batch_size: int, share: float = 1.0, seed: int = 0) -> None:
        super().__init__(n, seed)
        if not 0 < share <= 1:
            raise TrainingError(f"share={share}; expected a share of the samples in (0, 1]")
        self.size = math.floor(share * n + 1e-9) // batch_size * batch_size
        if self.size < 1:
            raise TrainingError(
                f"share={share} of {n} samples is less than one batch of {batch_size}; use a smaller batch_size"
            )

    def order(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        """The first positions of a permutation; no weights."""
        positions, _ = super().order(epoch)
        return positions[: self.size], None


def default_pretraining_recipe(data: Dataset) -> Recipe:
    """A recipe with which a representation is learned within minutes on a CPU.

    Example:
        >>> import modicum
        >>> default_pretraining_recipe(modicum.load("digits").train).model
        'convnet(width=32)'
    """
    model = "auto"
    if data.info.modality == "image":
        model = "convnet(width=32)" if depth_for(list(data.inputs.shape[2:]), 0) else "resnet9(norm='instance')"
    if data.info.modality == "text":
        model = "transformer"
    return Recipe(model, epochs=20, batch_size=128, optimizer="adamw", lr=1e-3, weight_decay=0.01)


def recipe_for(method: Any, data: Dataset) -> Recipe:
    """The recipe that a method `suits` to the data, where it has one of its own, else one for every method.

    Args:
        method: A method object.
        data: What is learned from.

    Returns:
        The recipe.

    Example:
        >>> import modicum
        >>> recipe_for(make("simclr"), modicum.load("digits").train).optimizer
        'adamw'
    """
    own = getattr(method, "suits", default_pretraining_recipe)
    made: Recipe = own(data)
    return made


def pretrain(
    data: Splits,
    method: Any,
    recipe: Recipe | None = None,
    ctx: Context | None = None,
    *,
    share: float = 1.0,
    recorder: Recorder | None = None,
    name: str = "pretrain",
) -> Pretrained:
    """Learn a representation of the training inputs; labels are not read unless the method says so.

    Args:
        data: The training inputs are learned from.
        method: Key of a pretraining method, with options or without, or a method object.
        recipe: Architecture, steps, optimizer; its augmentations, if any, replace those of the method.
        ctx: Device, seed, ledger and store; with a store an interrupted run continues to the same bits.
        share: Of the samples that an epoch visits, a fresh draw each time: the budget in steps.
        recorder: Sees every batch, and the learner at the end of each epoch.
        name: Of the checkpoint in the store.

    Returns:
        The encoder, its history and its ledger.

    Raises:
        ModicumError: The method does not pretrain, or does not work on this kind of data.
        TrainingError: There are too few samples for one batch of at least 2, or the loss is no longer finite.

    Example:
        >>> import modicum
        >>> short = Recipe("mlp(hidden=16)", epochs=1, optimizer="adamw", lr=1e-3)
        >>> pretrain(modicum.load("digits"), "simclr(augment='crops')", short).encoder.width
        16
    """
    chosen = make(method) if isinstance(method, str) else method
    if not isinstance(chosen, Pretraining):
        raise ModicumError(
            f"method {chosen.card.key!r} does not pretrain; `modicum methods pretraining` lists those that do"
        )
    ctx, train = ctx or Context(), data.train
    recipe = recipe or recipe_for(chosen, train)
    if train.info.modality not in chosen.card.modalities:
        raise ModicumError(
            f"method {chosen.card.key!r} works on {' and '.join(chosen.card.modalities)} data, "
            f"but this data set is {train.info.modality}"
        )
    batch_size = min(recipe.batch_size, len(train))
    if batch_size < 2:
        raise TrainingError(f"a batch has {batch_size} samples; expected at least 2, because samples are told apart")
    if train.inputs.is_floating_point() and not bool(train.inputs.double().sum().isfinite()):
        raise ModicumError("inputs hold NaN or infinite values; expected finite numbers, clean or impute them first")
    if recipe.augment and not hasattr(chosen, "augment"):
        raise ModicumError(
            f"recipe augment={recipe.augment}: method {chosen.card.key!r} augments nothing; leave it out"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError(
            "pretraining runs in one process: banks, queues and teachers are not shared between processes; start it "
            "without torchrun, or with WORLD_SIZE=1"
        )
    if recipe.augment:
        chosen = replace(chosen, augment=recipe.augment)  # type: ignore[type-var]  # methods are dataclasses
    mine = Ledger()
    inner = ctx.with_(ledger=mine)
    measured = [need.measure(data, recipe, inner) for need in chosen.needs()]
    sampler = Visits(len(train), batch_size, share, ctx.seed)
    per_epoch = sampler.size // batch_size
    steps = recipe.steps if recipe.steps is not None else max(1, round(recipe.epochs * per_epoch))
    plan = Plan(steps, batch_size, steps / per_epoch, ctx.seed)

    def learner() -> nn.Module:
        return chosen.learner(train, backbone_for(recipe, train, ctx.seed), plan, *measured)

    objective = _Objective(f"{spec(chosen)} {recipe.model}", getattr(chosen, "labels", False))
    running = replace(recipe, model=learner, steps=steps, batch_size=batch_size, augment=())
    done = fit(train, running, inner, sampler=sampler, objective=objective, recorder=recorder, name=name)
    ctx.ledger.charges.extend(mine.charges)
    trained = done.model
    assert isinstance(trained, Learner)
    encoder = trained.backbone.eval()
    return Pretrained(encoder, trained, spec(chosen), recipe, done.history, mine, ctx.device)


class _Objective:
    """A learner as the training loop calls it."""

    def __init__(self, description: str, labels: bool) -> None:
        self.description, self.labels = description, labels

    def __call__(self, model: nn.Module, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        losses: tuple[Tensor, Tensor] = model(inputs, targets, indices.to(inputs.device))
        return losses

    def mode(self, model: Learner) -> str:
        return model.mode

    def begin(self, model: Learner, batches: Batches) -> None:
        model.begin(batches)

    def after(self, model: Learner) -> None:
        model.after()
