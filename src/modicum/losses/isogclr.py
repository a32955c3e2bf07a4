"""iSogCLR: the global contrastive loss with a temperature for each sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modicum.errors import TrainingError
from modicum.losses.sogclr import SogCLR

__all__ = ["ISogCLR"]

STEEPEST = 3.0  # derivatives are clipped to this, as in the authors' code


class ISogCLR(SogCLR):
    """The robust global contrastive loss: every image learns how sharply it is told apart.

    It descends F = (1/n) sum_i min_{t_i} [t_i log E_j exp(s_ij / t_i) - s_i+ + t_i rho]. The network's part is that of
    `SogCLR`. The temperatures follow without autograd: with d_i = log u_i + rho - E_p s_i / t_i, which is rho minus the
    Kullback-Leibler divergence of the softmax p over the negatives from the uniform one when u is exact, clipped to +-3,
    v_i = (1 - beta) v_i + beta d_i and t_i = clip(t_i - eta v_i, lowest, highest). Images with many similar ones, whose
    softmax is sharper than rho allows, get a higher temperature.

    State: 12 n bytes, `log_u`, `tau` and `v`.

    Args:
        n: Samples of the data.
        temperature: Of every sample at the beginning.
        gamma: Weight of the batch in the estimate, in (0, 1].
        rho: Divergence >= 0 that is aimed at; 0.1 to 0.5 for images.
        eta: Step of the temperatures >= 0; 0 is SogCLR.
        beta: Weight of the new derivative in its average, in (0, 1].
        lowest: Smallest temperature > 0.
        highest: Largest temperature.
        reduction: `mean`, or `none` for a number an image.

    Raises:
        TrainingError: A number is out of range; views differ in shape or hold fewer than 2 images; indices are out of
            range or repeated.

    Example:
        >>> loss = ISogCLR(100)
        >>> _ = loss(torch.eye(4), torch.eye(4), torch.tensor([7, 3, 99, 0]))
        >>> round(float(loss.tau[3]), 6), round(float(loss.tau[4]), 6)  # 0.1 - eta beta rho, and not seen yet
        (0.094, 0.1)

    Reference:
        Qiu, Hu, Yuan, Zhou, Zhang and Yang, Not All Semantics are Created Equal: Contrastive Self-supervised Learning
        with Automatic Temperature Individualization, 2023, arXiv 2305.11965.
    """

    tau: Tensor
    v: Tensor

    def __init__(
        self,
        n: int,
        temperature: float = 0.1,
        gamma: float = 0.8,
        rho: float = 0.4,
        eta: float = 0.03,
        beta: float = 0.5,
        lowest: float = 0.05,
        highest: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(n, temperature, gamma, reduction)
        for name, value, right, expected in (
            ("rho", rho, 0 <= rho < math.inf, "a number >= 0"),
            ("eta", eta, 0 <= eta < math.inf, "a number >= 0"),
            ("beta", beta, 0 < beta <= 1, "a share in (0, 1]"),
            ("lowest", lowest, 0 < lowest < math.inf, "a temperature > 0"),
            ("highest", highest, lowest <= highest < math.inf, f"a temperature >= lowest={lowest!r}"),
            ("temperature", temperature, lowest <= temperature <= highest, f"one from {lowest!r} to {highest!r}"),
        ):
            if not right:
                raise TrainingError(f"{name}={value!r}; expected {expected}")
        self.rho, self.eta, self.beta, self.lowest, self.highest = rho, eta, beta, lowest, highest
        self.register_buffer("tau", torch.full((n,), float(temperature)))
        self.register_buffer("v", torch.zeros(n))

    def temperatures(self, indices: Tensor, dtype: torch.dtype) -> Tensor:
        """(b,) the temperature of each of these samples."""
        return self.tau[indices].to(dtype)

    @torch.no_grad()
    def learn(self, indices: Tensor, derivative: Tensor) -> None:
        """Move the temperatures of these samples one step.

        Args:
            indices: (b,) positions in the data.
            derivative: (b,) log u - E_p s / t of each.
        """
        slope = (derivative.to(self.v.dtype) + self.rho).clamp(-STEEPEST, STEEPEST)
        self.v[indices] = torch.lerp(self.v[indices], slope, self.beta)
        self.tau[indices] = (self.tau[indices] - self.eta * self.v[indices]).clamp(self.lowest, self.highest)
