"""Forward passes over a data set, a batch at a time, every one of them charged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.context import Context
from modicum.dataset import Dataset
from modicum.errors import DataError
from modicum.flops import count_flops
from modicum.ledger import Phase

__all__ = ["Evaluation", "evaluate", "forward"]


@dataclass(frozen=True)
class Evaluation:
    """How well a model does on a data set.

    Args:
        score: Share of right answers, or R² for regression.
        metric: `accuracy` or `R²`.
        loss: Mean cross-entropy in nats, or mean squared error.
        correct: (n,) whether each answer is right; None for regression.
    """

    score: float
    metric: Literal["accuracy", "R²"]
    loss: float
    correct: Tensor | None


def forward(
    model: nn.Module,
    dataset: Dataset,
    ctx: Context,
    *,
    function: Callable[[nn.Module, Tensor], Tensor] | None = None,
    phase: Phase = "evaluate",
    what: str = "evaluate",
    batch_size: int = 512,
) -> Tensor:
    """Outputs of a model in evaluation mode for every sample, on the CPU.

    Args:
        model: Any module.
        dataset: Its inputs are standardized as its `info` says.
        ctx: Device and ledger.
        function: `(model, inputs) -> (b, ...)`; the model itself when None.
        phase: What the pass is booked under.
        what: What it is for, for people.
        batch_size: Samples at a time; memory is that of one batch and of the outputs.

    Returns:
        (n, ...) float32 outputs.

    Raises:
        DataError: The data have no samples.
    """
    function = function or (lambda module, x: module(x))
    if not len(dataset):
        raise DataError("dataset has 0 samples; a forward pass needs at least one")
    training = [module for module in model.modules() if module.training]
    model.eval()
    counted: dict[int, int] = {}
    uncounted: tuple[str, ...] = ()
    parts, flops = [], 0
    try:
        with ctx.ledger.clock(phase, what) as counts, torch.no_grad():
            for _, inputs in dataset.batches(batch_size):
                prepared = dataset.prepare(inputs, ctx.device)
                if len(prepared) not in counted:
                    with count_flops() as counter:
                        out = function(model, prepared)
                    counted[len(prepared)], uncounted = counter.flops, counter.uncounted
                else:
                    out = function(model, prepared)
                flops += counted[len(prepared)]
                parts.append(out.float().cpu())
            counts.update(samples=len(dataset), forward_flops=flops, uncounted=uncounted)
    finally:
        for module in training:
            module.training = True
    return torch.cat(parts)


def evaluate(
    model: nn.Module, dataset: Dataset, ctx: Context, *, phase: Phase = "evaluate", what: str = "evaluate"
) -> Evaluation:
    """Score a model on a data set: accuracy for classes, R² = 1 - sum (t - f)² / sum (t - mean t)² for regression.

    Args:
        model: Any module with outputs (n, c).
        dataset: With targets.
        ctx: Device and ledger.
        phase: What the pass is booked under.
        what: What it is for, for people.

    Raises:
        DataError: The data have no samples or no targets.
    """
    if dataset.targets is None:
        raise DataError("dataset has no targets to score a model against; use forward for its outputs")
    outputs = forward(model, dataset, ctx, phase=phase, what=what)
    if dataset.info.task == "regression":
        targets = dataset.targets.float().reshape(len(dataset), -1)
        outputs = outputs * dataset.info.target_std + dataset.info.target_mean
        error = F.mse_loss(outputs.reshape(targets.shape), targets)
        return Evaluation(
            float(1 - error / targets.var(0, correction=0).mean().clamp_min(1e-12)), "R²", float(error), None
        )
    correct = outputs.argmax(1) == dataset.labels
    loss = F.cross_entropy(outputs, dataset.targets.float() if dataset.targets.ndim == 2 else dataset.labels.long())
    return Evaluation(float(correct.double().mean()), "accuracy", float(loss), correct)
