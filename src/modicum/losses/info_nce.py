"""InfoNCE: a query must find its own key among others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.errors import TrainingError
from modicum.losses.check import check_temperature, check_views

__all__ = ["InfoNCE"]


class InfoNCE(nn.Module):
    """Cross-entropy of the right key among the keys of a queue.

    With unit vectors q and k of a query and its key, and the keys n_1, ..., n_K of a queue,
    l = -log exp(q k / t) / (exp(q k / t) + sum_j exp(q n_j / t)). With no queue the keys of the other images of the batch
    are the wrong ones. Gradients reach queries and keys; detach the keys where they should not.

    Time and memory of a batch of b images: 2 b K d operations, b K numbers.

    Args:
        temperature: t > 0.
        reduction: `mean`, or `none` for a number an image.

    Raises:
        TrainingError: The temperature is not positive, shapes do not fit, or there are fewer than 2 images and no queue.

    Example:
        >>> same = torch.ones(6, 4)
        >>> round(float(InfoNCE(0.2)(same, same)), 6)  # log 6
        1.791759
        >>> round(float(InfoNCE(0.2)(same, same, torch.full((9, 4), 0.5))), 6)  # log(1 + 9)
        2.302585

    Reference:
        He, Fan, Wu, Xie and Girshick, Momentum Contrast for Unsupervised Visual Representation Learning, 2019,
        arXiv 1911.05722; van den Oord, Li and Vinyals, Representation Learning with Contrastive Predictive Coding, 2018,
        arXiv 1807.03748.
    """

    def __init__(self, temperature: float = 0.2, reduction: str = "mean") -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature, self.reduction = temperature, reduction

    def forward(self, queries: Tensor, keys: Tensor, queue: Tensor | None = None) -> Tensor:
        """The loss of queries and keys, each (b, d), of the same images in the same order.

        Args:
            queries: (b, d) embeddings, normalized here.
            keys: (b, d) embeddings, normalized here.
            queue: (K, d) unit vectors, taken as they are; none, or K = 0, compares within the batch.
        """
        empty = queue is None or not len(queue)
        check_views(queries, keys, least=2 if empty else 1)
        q = F.normalize(queries, dim=1, eps=1e-12) / self.temperature
        k = F.normalize(keys, dim=1, eps=1e-12)
        if queue is None or empty:
            losses = F.cross_entropy(q @ k.T, torch.arange(len(q), device=q.device), reduction="none")
        else:
            if queue.ndim != 2 or queue.shape[1] != q.shape[1]:
                raise TrainingError(
                    f"queue has shape {tuple(queue.shape)}; expected (K, {q.shape[1]}), one row a key of the width of "
                    "the embeddings"
                )
            precise = torch.promote_types(q.dtype, torch.float32)  # of half precision a sum over a queue keeps nothing
            wrong = (q @ queue.T).to(precise).logsumexp(1)
            losses = F.softplus(wrong - (q * k).to(precise).sum(1))  # -log e^p / (e^p + e^w), without a table of both
        return losses.mean() if self.reduction == "mean" else losses
