"""NT-Xent: a pair of views of the same image against all other images of the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.losses.check import check_temperature, check_views

__all__ = ["NTXent"]


class NTXent(nn.Module):
    """Normalized temperature-scaled cross-entropy of pairs.

    With unit vectors u of 2b embeddings, l(i) = -log exp(u_i u_i' / t) / sum_{k != i} exp(u_i u_k / t), where i' is the
    other view of the same image; the loss of an image is the mean over its two views.

    Args:
        temperature: t > 0.
        reduction: `mean`, or `none` for a number an image.

    Raises:
        TrainingError: The temperature is not positive; views differ in shape, or hold fewer than 2 images.

    Example:
        >>> same = torch.ones(6, 4)
        >>> round(float(NTXent(0.5)(same, same)), 4)  # log(2 b - 1)
        2.3979

    Reference:
        Chen, Kornblith, Norouzi and Hinton, A Simple Framework for Contrastive Learning of Visual Representations,
        2020, arXiv 2002.05709.
    """

    def __init__(self, temperature: float = 0.5, reduction: str = "mean") -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature, self.reduction = temperature, reduction

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The loss of embeddings a and b, each (b, d), of two views of the same images in the same order."""
        check_views(a, b)
        n = len(a)
        u = F.normalize(torch.cat([a, b]), dim=1, eps=1e-12)
        logits = (u @ u.T / self.temperature).fill_diagonal_(-torch.inf)
        partner = torch.arange(2 * n, device=u.device).roll(n)
        losses = F.cross_entropy(logits, partner, reduction="none").reshape(2, n).mean(0)
        return losses.mean() if self.reduction == "mean" else losses
