"""Smooth experts: a ramp on the loss, a penalty on the slope in the inputs and one decay, so that weights move evenly."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.dataset import Dataset
from modicum.errors import ModicumError

__all__ = ["SmoothLoss", "clip_ramp", "decayed_rates", "gradient_penalty"]

NORMS = ("channel", "sample")


def clip_ramp(epoch: int, first: float = 0.5, step: float = 0.05) -> float:
    """What the cross-entropy is multiplied by in an epoch, so that the first updates are small.

    `min(1, first + step * epoch)`: 0.50, 0.55, ..., 0.95 in the first ten epochs, then 1.

    Args:
        epoch: From 0.
        first: Factor of the first epoch, in (0, 1].
        step: By how much it grows an epoch.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> [clip_ramp(epoch) for epoch in (0, 1, 9, 10, 30)]
        [0.5, 0.55, 0.95, 1.0, 1.0]

    Reference:
        Shen, Yang and Lam, AST: Effective Dataset Distillation through Alignment with Smooth and High-Quality Expert
        Trajectories, 2023, arXiv 2310.10541.
    """
    for name, value, right, expected in (
        ("epoch", epoch, epoch >= 0, "an integer >= 0"),
        ("first", first, 0 < first <= 1, "a number in (0, 1]"),
        ("step", step, step >= 0, "a number >= 0"),
    ):
        if not right:
            raise ModicumError(f"{name}={value!r}; expected {expected}")
    return min(1.0, round(first + step * epoch, 12))


def decayed_rates(lr: float, epochs: int, steps_per_epoch: int, factor: float = 0.6) -> tuple[float, ...]:
    """The learning rate of every step: constant, and lower by a factor once, after epoch `epochs // 2 + 1` (from 0).

    Args:
        lr: Learning rate of the first part.
        epochs: Of the whole run.
        steps_per_epoch: Batches of an epoch.
        factor: Of the second part.

    Returns:
        `epochs * steps_per_epoch` rates, for `Recipe(rates=...)`.

    Raises:
        ModicumError: A number is not positive.

    Example:
        >>> [decayed_rates(0.5, 50, 2)[2 * epoch] for epoch in (0, 26, 27, 49)]
        [0.5, 0.5, 0.3, 0.3]

    Reference:
        Shen, Yang and Lam, AST, 2023, arXiv 2310.10541.
    """
    for name, value in (("lr", lr), ("epochs", epochs), ("steps_per_epoch", steps_per_epoch), ("factor", factor)):
        if not value > 0:
            raise ModicumError(f"{name}={value!r}; expected a number > 0")
    before = min(epochs, epochs // 2 + 2) * steps_per_epoch
    return (lr,) * before + (lr * factor,) * (epochs * steps_per_epoch - before)


def gradient_penalty(model: nn.Module, inputs: Tensor, norm: Literal["channel", "sample"] = "channel") -> Tensor:
    """How far the slope of the outputs in the inputs is from 1.

    With `g = d (sum of all logits) / dx`: `mean_p (||g_p||_2 - 1)^2`, where `g_p` is the slope in one pixel, a vector
    over its channels, and the mean goes over the pixels of a sample. That is the form in which it was published as
    code. `sample` is that of the Wasserstein GAN: `(||g||_2 - 1)^2` with the norm over the whole sample.

    Args:
        model: Gives (b, c) logits; the penalty can be differentiated in its parameters.
        inputs: (b, channels, ...) or (b, d) standardized; not augmented.
        norm: `channel` or `sample`. Inputs (b, d) have one norm either way.

    Returns:
        (b,) penalties; their mean is that of the batch. Memory is that of a double backward pass.

    Raises:
        ModicumError: The norm is unknown.

    Example:
        >>> model = nn.Linear(4, 3, bias=False)
        >>> _ = nn.init.constant_(model.weight, 1 / 6)
        >>> gradient_penalty(model, torch.zeros(2, 4)).tolist()  # a slope of 1/2 in each of four numbers
        [0.0, 0.0]

    Reference:
        Gulrajani et al., Improved Training of Wasserstein GANs, 2017, arXiv 1704.00028; Shen, Yang and Lam, AST, 2023,
        arXiv 2310.10541.
    """
    if norm not in NORMS:
        raise ModicumError(f"norm={norm!r}; expected 'channel' or 'sample'")
    inputs = inputs.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(model(inputs).sum(), inputs, create_graph=True)
    slope = slope if norm == "channel" else slope.flatten(1)
    length: Tensor = torch.linalg.vector_norm(slope, dim=1)
    return (length - 1).square().reshape(len(inputs), -1).mean(1)


class SmoothLoss:
    """The objective of a smooth expert, for `modicum.training.fit`.

    `r(e) CE(f(A(x)), y) + lambda P(x)` with r the `clip_ramp` of the epoch, A the augmentation and P the
    `gradient_penalty` on the sample as it is.

    Args:
        dataset: What is trained on; the penalty reads its samples without augmentation.
        batch_size: Of the training run.
        ramp: Whether the cross-entropy has the ramp.
        penalty: lambda; 0 is off.
        norm: Of the penalty.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> loss = SmoothLoss(Dataset(torch.rand(8, 4), torch.arange(8) % 2), batch_size=4)
        >>> model = nn.Linear(4, 2)
        >>> losses, outputs = loss(model, torch.rand(4, 4), torch.tensor([0, 1, 0, 1]), torch.arange(4))
        >>> losses.shape, outputs.shape
        (torch.Size([4]), torch.Size([4, 2]))

    Reference:
        Shen, Yang and Lam, AST, 2023, arXiv 2310.10541.
    """

    labels = True

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        ramp: bool = True,
        penalty: float = 2.0,
        norm: Literal["channel", "sample"] = "channel",
    ) -> None:
        for name, value, right, expected in (
            ("batch_size", batch_size, batch_size >= 1, "an integer >= 1"),
            ("penalty", penalty, 0 <= penalty < float("inf"), "a number >= 0"),
            ("norm", norm, norm in NORMS, "'channel' or 'sample'"),
        ):
            if not right:
                raise ModicumError(f"{name}={value!r}; expected {expected}")
        self.dataset, self.ramp, self.penalty, self.norm = dataset, ramp, penalty, norm
        self.steps_per_epoch = -(-len(dataset) // batch_size)
        self.steps = 0
        self.description = f"smooth ramp={ramp} penalty={penalty} norm={norm}"

    def __call__(self, model: nn.Module, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(b,) losses and (b, c) outputs."""
        outputs = model(inputs)
        losses = F.cross_entropy(outputs, targets, reduction="none")
        if self.ramp:
            losses = losses * clip_ramp(self.steps // self.steps_per_epoch)
        if self.penalty:
            plain = self.dataset.prepare(self.dataset.inputs[indices.cpu()], inputs.device)
            losses = losses + self.penalty * gradient_penalty(model, plain, self.norm)
        return losses, outputs

    def after(self, model: nn.Module) -> None:
        """Count the step."""
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """How many steps were taken."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """The inverse of `state_dict`."""
        self.steps = state["steps"]
