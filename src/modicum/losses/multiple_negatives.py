"""Multiple negatives: the partner of a text against all other texts of the batch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.errors import TrainingError
from modicum.losses.check import check_temperature, check_views

__all__ = ["MultipleNegatives"]


class MultipleNegatives(nn.Module):
    """Multiple negatives ranking: cross-entropy of the similarities of a batch of pairs.

    With logits s a_i . b_j the loss of pair i is the cross-entropy of row i at the target t_i = i. With targets by
    `similarity`, as in CLIP-like losses, t_i = argmax_j (a_i . a_j + b_i . b_j), and the loss is the mean of that of
    the rows and of the columns. The similarity of a text to itself normally gives t_i = i, but among vectors of
    different lengths a long neighbor can win: normalize, or look at `moved`.

    Args:
        scale: s > 0.
        normalize: Whether embeddings are divided by their lengths; without it s = 1 is what was published.
        targets: `diagonal` or `similarity`.
        learned: Whether s is a parameter (its logarithm is).
        reduction: `mean`, or `none` for a number a pair.

    Raises:
        TrainingError: An option is out of range; the embeddings differ in shape, or hold fewer than 2 pairs.

    Example:
        >>> a = torch.eye(3)
        >>> round(float(MultipleNegatives(scale=1.0)(a, a)), 6)  # log(e + 2) - 1
        0.551445
        >>> float(MultipleNegatives(targets="similarity").moved(a, a))
        0.0

    Reference:
        Henderson et al., Efficient Natural Language Response Suggestion for Smart Reply, 2017, arXiv 1705.00652;
        Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, arXiv 2103.00020.
    """

    def __init__(
        self,
        scale: float = 20.0,
        normalize: bool = True,
        targets: str = "diagonal",
        *,
        learned: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_temperature(scale, "scale")
        if targets not in ("diagonal", "similarity"):
            raise TrainingError(f"targets={targets!r}; expected 'diagonal' or 'similarity'")
        if reduction not in ("mean", "none"):
            raise TrainingError(f"reduction={reduction!r}; expected 'mean' or 'none'")
        self.normalize, self.targets, self.reduction = normalize, targets, reduction
        self.scale = scale
        self.logarithm = nn.Parameter(torch.tensor(math.log(scale))) if learned else None

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The loss of embeddings a and b, each (b, d), of pairs in the same order."""
        a, b = self._prepared(a, b)
        scale = self.scale if self.logarithm is None else self.logarithm.exp()
        logits = (a @ b.T).float() * scale
        if self.targets == "diagonal":
            losses = F.cross_entropy(logits, torch.arange(len(a), device=a.device), reduction="none")
        else:
            targets = self._nearest(a, b)  # the same of rows and columns, for the similarities are symmetric
            rows, columns = (F.cross_entropy(each, targets, reduction="none") for each in (logits, logits.T))
            losses = (rows + columns) / 2
        return losses.mean() if self.reduction == "mean" else losses

    def moved(self, a: Tensor, b: Tensor) -> Tensor:
        """() the share of pairs whose target by similarity is another pair; it should be small."""
        targets = self._nearest(*self._prepared(a, b))
        return (targets != torch.arange(len(a), device=a.device)).float().mean()

    def _prepared(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        check_views(a, b)
        if not self.normalize:
            return a, b
        return F.normalize(a, dim=1, eps=1e-12), F.normalize(b, dim=1, eps=1e-12)

    @torch.no_grad()
    def _nearest(self, a: Tensor, b: Tensor) -> Tensor:
        return (a @ a.T + b @ b.T).argmax(1)
