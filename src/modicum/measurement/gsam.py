"""Flat minima: the direction of surrogate-gap sharpness-aware minimization, and the objective that goes in it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.errors import ModicumError

__all__ = ["GSAM", "gsam_direction", "gsam_perturbation"]


def gsam_perturbation(weights: Sequence[Tensor], gradient: Sequence[Tensor], rho: float) -> list[Tensor]:
    """Where the loss grows fastest around the weights, larger weights moving further (the adaptive form).

    `e = rho w^2 g / (|| |w| g ||_2 + 1e-12)`, elementwise, with the norm over all weights together.

    Args:
        weights: Tensors of any shapes.
        gradient: Of the loss there, of the same shapes.
        rho: Radius, at least 0.

    Returns:
        What is to be added to each tensor.

    Raises:
        ModicumError: rho is negative.

    Example:
        >>> [e.tolist() for e in gsam_perturbation([torch.tensor([2.0, 1.0])], [torch.tensor([3.0, 0.0])], 0.5)]
        [[1.0, 0.0]]

    Reference:
        Kwon et al., ASAM: Adaptive Sharpness-Aware Minimization, 2021, arXiv 2102.11600.
    """
    if not rho >= 0:
        raise ModicumError(f"rho={rho!r}; expected a number >= 0")
    scaled = [w.abs() * g for w, g in zip(weights, gradient, strict=True)]
    norm = torch.stack([s.square().sum() for s in scaled]).sum().sqrt()
    return [w.abs() * s * (rho / (norm + 1e-12)) for w, s in zip(weights, scaled)]


def gsam_direction(gradient: Tensor, perturbed: Tensor, alpha: float = 0.4) -> Tensor:
    """The direction that lowers the loss nearby, and not the loss here by itself.

    `g2 - alpha g_perp` with `g_perp = g1 - (g1' g2 / g2' g2) g2`, the part of the gradient g1 that is orthogonal to the
    gradient g2 at the perturbed weights.

    Args:
        gradient: (p,) g1.
        perturbed: (p,) g2.
        alpha: How much of the orthogonal part is taken away, at least 0.

    Returns:
        (p,) the direction that takes the place of the gradient.

    Raises:
        ModicumError: alpha is negative, or the shapes differ.

    Example:
        >>> gsam_direction(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 0.0]), alpha=0.5).tolist()
        [2.0, -0.5]

    Reference:
        Zhuang et al., Surrogate Gap Minimization Improves Sharpness-Aware Training, 2022, arXiv 2203.08065.
    """
    if not alpha >= 0:
        raise ModicumError(f"alpha={alpha!r}; expected a number >= 0")
    if gradient.shape != perturbed.shape or gradient.ndim != 1:
        raise ModicumError(
            f"gradient is {tuple(gradient.shape)} and perturbed {tuple(perturbed.shape)}; expected (p,) and (p,)"
        )
    along = (gradient @ perturbed) / (perturbed @ perturbed).clamp(min=1e-30)
    return perturbed - alpha * (gradient - along * perturbed)


class GSAM:
    """The objective of a flat expert, for `modicum.training.fit`: cross-entropy whose gradient is `gsam_direction`.

    Two passes a step: one at the weights, one at the perturbed weights. Statistics of batches are those of the first.

    Args:
        rho: Radius of the perturbation; 0 is plain cross-entropy.
        alpha: See `gsam_direction`.

    Raises:
        ModicumError: A number is negative.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> losses, outputs = GSAM(0.01)(model, torch.rand(4, 2), torch.tensor([0, 1, 0, 1]), torch.arange(4))
        >>> losses.shape, outputs.shape
        (torch.Size([4]), torch.Size([4, 2]))

    Reference:
        Zhuang et al., Surrogate Gap Minimization Improves Sharpness-Aware Training, 2022, arXiv 2203.08065; Du et al.,
        Minimizing the Accumulated Trajectory Error to Improve Dataset Distillation, 2023, arXiv 2211.11004.
    """

    labels = True

    def __init__(self, rho: float = 0.01, alpha: float = 0.4) -> None:
        for name, value in (("rho", rho), ("alpha", alpha)):
            if not 0 <= value < float("inf"):
                raise ModicumError(f"{name}={value!r}; expected a number >= 0")
        self.rho, self.alpha = rho, alpha
        self.description = f"gsam rho={rho} alpha={alpha}"

    def __call__(self, model: nn.Module, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(b,) losses, those of the plain cross-entropy, whose mean has the wanted gradient; and (b, c) outputs."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        outputs = model(inputs)
        losses = F.cross_entropy(outputs, targets, reduction="none")
        here = torch.autograd.grad(losses.mean(), parameters)
        kept = [t.detach().clone() for t in (*parameters, *model.buffers())]
        with torch.no_grad():
            for parameter, moved in zip(parameters, gsam_perturbation(parameters, here, self.rho)):
                parameter.add_(moved)
        there = torch.autograd.grad(F.cross_entropy(model(inputs), targets), parameters)
        with torch.no_grad():
            for tensor, before in zip((*parameters, *model.buffers()), kept):
                tensor.copy_(before)
        flat = [torch.cat([g.flatten() for g in gradient]) for gradient in (here, there)]
        direction = gsam_direction(flat[0], flat[1], self.alpha)
        pieces = torch.split(direction, [p.numel() for p in parameters])
        # linear in the weights: its gradient is the direction, and its value is taken away again
        pull = torch.stack([(p.flatten() * d).sum() for p, d in zip(parameters, pieces)]).sum()
        return losses.detach() + (pull - pull.detach()), outputs.detach()
