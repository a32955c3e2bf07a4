"""Learning rates over a run, and the optimizers of a recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from modicum.training.lars import LARS
from modicum.training.recipe import Recipe

__all__ = ["learning_rate", "make_optimizer"]


def learning_rate(recipe: Recipe, progress: float) -> float:
    """The learning rate after a share of the run.

    cosine: lr (1 + cos(pi t)) / 2 with t the share after the warm-up; one-cycle: linear up, then linear down to zero;
    step: lr, then a tenth of it from the middle on; constant: lr. The warm-up rises linearly from zero. A recipe with a
    rate for each step has that of the step.

    Args:
        recipe: Gives lr, schedule, warmup and rates.
        progress: Share of the run that is done, in [0, 1].

    Example:
        >>> learning_rate(Recipe(lr=0.1, schedule="cosine"), 0.5)
        0.05
    """
    if recipe.rates:
        return recipe.rates[min(round(progress * len(recipe.rates)), len(recipe.rates) - 1)]
    warmup = recipe.warmup or (0.3 if recipe.schedule == "one-cycle" else 0.0)
    if progress < warmup:
        return recipe.lr * max(progress, 1e-3 * warmup) / warmup
    rest = (progress - warmup) / (1 - warmup)
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "step":
        return recipe.lr * (0.1 if progress >= 0.5 else 1.0)
    return recipe.lr * ((1 - rest) if recipe.schedule == "one-cycle" else (1 + math.cos(math.pi * rest)) / 2)


def make_optimizer(recipe: Recipe, parameters: Iterable[Tensor], *, stacked: bool = False) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW, in PyTorch's fused form; or LARS.

    Args:
        recipe: Gives optimizer, lr, momentum, nesterov and weight_decay.
        parameters: What is optimized.
        stacked: Whether the first dimension of every parameter counts models.

    Example:
        >>> type(make_optimizer(Recipe(optimizer="adamw"), [torch.zeros(2, requires_grad=True)])).__name__
        'AdamW'
    """
    parameters = list(parameters)
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda", "mps") for p in parameters)
    if recipe.optimizer == "adamw":
        betas = (recipe.momentum, 0.999)
        return torch.optim.AdamW(parameters, recipe.lr, betas, weight_decay=recipe.weight_decay, fused=fused)
    if recipe.optimizer == "lars":
        return LARS(parameters, recipe.lr, recipe.momentum, recipe.weight_decay, stacked=stacked)
    nesterov = recipe.nesterov and recipe.momentum > 0
    return torch.optim.SGD(
        parameters, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=nesterov, fused=fused
    )
