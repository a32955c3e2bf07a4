"""Minus the cosine between a prediction and what it should predict."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from modicum.losses.check import check_views

__all__ = ["NegativeCosine"]


class NegativeCosine(nn.Module):
    """Minus the cosine to a target through which no gradient flows.

    l = -<p, sg(z)> / (|p| |z|), in [-1, 1]; -1 exactly when both point the same way.

    Args:
        reduction: `mean`, or `none` for a number an image.

    Raises:
        TrainingError: Predictions and targets differ in shape.

    Example:
        >>> import torch
        >>> float(NegativeCosine()(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])))
        -1.0

    Reference:
        Chen and He, Exploring Simple Siamese Representation Learning, 2020, arXiv 2011.10566; Grill et al., Bootstrap
        Your Own Latent, 2020, arXiv 2006.07733, whose loss is 2 + 2 l.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, p: Tensor, z: Tensor) -> Tensor:
        """The loss of predictions p and targets z, each (b, d), of the same images in the same order."""
        check_views(p, z, least=1)
        losses = -(F.normalize(p, dim=1, eps=1e-12) * F.normalize(z.detach(), dim=1, eps=1e-12)).sum(1)
        return losses.mean() if self.reduction == "mean" else losses
