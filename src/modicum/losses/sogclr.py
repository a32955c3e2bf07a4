"""SogCLR: contrast with all images of the data set, estimated batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modicum.errors import TrainingError
from modicum.losses.check import check_temperature, check_views
from modicum.losses.global_contrast import check_indices, global_contrast
from modicum.losses.precision import full_precision

__all__ = ["SogCLR"]


class SogCLR(nn.Module):
    """The global contrastive loss, with a running estimate a sample instead of a large batch.

    It descends F = (1/n) sum_i [t log E_j exp(s_ij / t) - s_i+], with s cosines, s+ that of the two views, and the
    expectation over *all* other images of the data. What is returned is a surrogate with the gradient of F, see
    `modicum.losses.global_contrast`; its value is not F.

    State: 4 n bytes, `log_u`, kept as a logarithm so that small temperatures do not overflow; it is updated in training
    mode only and saved with the module. Memory of a step: a few (2 b)^2 arrays.

    Args:
        n: Samples of the data.
        temperature: t > 0.
        gamma: Weight of the batch in the estimate, in (0, 1]; the first visit of a sample always counts in full.
        reduction: `mean`, or `none` for a number an image.

    Raises:
        TrainingError: A number is out of range; views differ in shape or hold fewer than 2 images; indices are out of
            range or repeated.

    Example:
        >>> loss = SogCLR(100)
        >>> _ = loss(torch.eye(4), torch.eye(4), torch.tensor([7, 3, 99, 0]))
        >>> loss.u[[3, 4, 99]].tolist()  # the negatives are orthogonal: exp(0)
        [1.0, 0.0, 1.0]

    Reference:
        Yuan, Wu, Qiu, Du, Zhang, Zhou and Yang, Provable Stochastic Optimization for Global Contrastive Learning: Small
        Batch Does Not Harm Performance, 2022, arXiv 2202.12387.
    """

    log_u: Tensor

    def __init__(self, n: int, temperature: float = 0.1, gamma: float = 0.8, reduction: str = "mean") -> None:
        super().__init__()
        check_temperature(temperature)
        if n < 2:
            raise TrainingError(f"n={n!r}; expected the number of samples, at least 2")
        if not 0 < gamma <= 1:
            raise TrainingError(f"gamma={gamma!r}; expected a share in (0, 1]")
        if reduction not in ("mean", "none"):
            raise TrainingError(f"reduction={reduction!r}; expected 'mean' or 'none'")
        self.n, self.temperature, self.gamma, self.reduction = n, temperature, gamma, reduction
        self.register_buffer("log_u", torch.full((n,), -torch.inf))

    @property
    def u(self) -> Tensor:
        """(n,) the estimates of E exp(s / t), 0 for samples that were not seen yet."""
        return self.log_u.exp()

    def temperatures(self, indices: Tensor, dtype: torch.dtype) -> Tensor:
        """(b,) the temperature of each of these samples."""
        return torch.full((len(indices),), self.temperature, dtype=dtype, device=self.log_u.device)

    def forward(self, a: Tensor, b: Tensor, indices: Tensor) -> Tensor:
        """The surrogate loss.

        Args:
            a: (b, d) embeddings of a view.
            b: (b, d) of another view of the same images.
            indices: (b,) positions of the images in the data, all different.
        """
        check_views(a, b)
        check_indices(indices, len(a), self.n)
        with full_precision(a, b) as (x, y):
            temperature = self.temperatures(indices, x.dtype)
            losses, log_u, derivative = global_contrast(x, y, self.log_u[indices], temperature, self.gamma)
        if self.training:
            self.log_u[indices] = log_u.to(self.log_u.dtype)
            self.learn(indices, derivative)
        return losses.mean() if self.reduction == "mean" else losses

    def learn(self, indices: Tensor, derivative: Tensor) -> None:
        """What follows from the derivative by the temperature: here nothing."""
