"""A network and a head on two views of every image, and a loss of the two embeddings."""

from __future__ import annotations

from torch import Tensor, nn

from modicum.data.views import Views
from modicum.pretraining.learner import Backbone, Learner

__all__ = ["TwoViews"]


class TwoViews(Learner):
    """The learner of every method that is a head and a loss of two views.

    The views pass the network one after the other, so that BatchNorm has the statistics of each view, as in the
    published code.

    Args:
        backbone: What is kept in the end.
        views: Makes augmented views.
        head: On the representation.
        loss: `loss(a, b)`, or `loss(a, b, indices)` with `indexed`: a number for the batch, or one an image.
        scale: The loss is multiplied by it.
        indexed: Whether the loss keeps state of each sample.

    Example:
        >>> import torch
        >>> from modicum.losses import NTXent
        >>> learner = TwoViews(Backbone(nn.Linear(4, 4), 4), None, nn.Identity(), NTXent())
        >>> losses, embeddings = learner(torch.rand(3, 4), torch.arange(3), torch.arange(3))
        >>> losses.shape, embeddings.shape
        (torch.Size([3]), torch.Size([3, 4]))
    """

    def __init__(
        self,
        backbone: Backbone,
        views: Views | None,
        head: nn.Module,
        loss: nn.Module,
        *,
        scale: float = 1.0,
        indexed: bool = False,
    ) -> None:
        super().__init__(backbone, views)
        self.head, self.loss, self.scale, self.indexed = head, loss, scale, indexed

    def forward(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The loss for each image (b,) and the embeddings (b, d) of the first view."""
        a, b = (self.head(self.backbone(view)) for view in self.views(inputs, 2))
        loss: Tensor = self.loss(a, b, indices) if self.indexed else self.loss(a, b)
        return (self.scale * loss).expand(len(inputs)), a
