"""Instance discrimination: every image is a class of its own, whose weight is a row of a memory bank."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.errors import TrainingError
from modicum.losses.check import check_temperature

__all__ = ["InstanceDiscrimination", "NoiseContrastive"]


class InstanceDiscrimination(nn.Module):
    """Softmax over all rows of a memory bank.

    With the unit vector v of an embedding and the bank W, `l = -log exp(w_i v / t) / sum_j exp(w_j v / t)`, where i is
    the row of the sample itself: cross-entropy over as many classes as the bank has rows, whose weights W / t are
    frozen.

    Memory is about 4 b n bytes, twice with the gradient.

    Args:
        temperature: t > 0.
        reduction: `mean`, or `none` for a number a sample.

    Raises:
        TrainingError: The temperature is not positive, shapes do not fit, or an index is no row of the bank.

    Example:
        >>> loss = InstanceDiscrimination(temperature=0.5)
        >>> round(float(loss(torch.eye(2), torch.eye(2), torch.tensor([0, 1]))), 6)  # log(1 + exp(-2))
        0.126928

    Reference:
        Wu, Xiong, Yu and Lin, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018,
        arXiv 1805.01978.
    """

    def __init__(self, temperature: float = 0.1, reduction: str = "mean") -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature, self.reduction = temperature, reduction

    def forward(self, features: Tensor, bank: Tensor, indices: Tensor) -> Tensor:
        """The loss of embeddings.

        Args:
            features: (b, d), not necessarily of unit length.
            bank: (n, d); no gradient reaches it.
            indices: (b,) the row of each sample.
        """
        check_bank(features, bank, indices)
        logits = F.normalize(features, dim=1, eps=1e-12) @ bank.detach().T / self.temperature
        return F.cross_entropy(logits, indices, reduction=self.reduction)


class NoiseContrastive(nn.Module):
    """Noise-contrastive estimation of the softmax over a memory bank, with m drawn rows instead of all n.

    With the unit vector v, `P(j | v) = exp(w_j v / t) / Z` and noise uniform over the rows, the chance that row j is the
    sample and not noise is `h_j = P(j | v) / (P(j | v) + m / n)`, and `l = -log h_i - sum_noise log(1 - h_j)`. Z is
    estimated from the first batch, n times the mean of exp(w_j v / t) over its drawn rows, and kept.

    The rows drawn as noise may be one set for the whole batch, (m,), a product of matrices, or one set a sample,
    (b, m), as in the published code; each sample's loss has the same distribution.

    Memory is about 4 b m bytes, and b m d more where each sample has its own noise.

    Args:
        temperature: t > 0.
        reduction: `mean`, or `none` for a number a sample.

    Raises:
        TrainingError: The temperature is not positive, shapes do not fit, or an index is no row of the bank.

    Example:
        >>> loss, bank = NoiseContrastive(), torch.eye(4)
        >>> value = loss(torch.eye(4), bank, torch.arange(4), torch.tensor([0, 2]))
        >>> float(loss.log_z) > 0  # kept from now on
        True

    Reference:
        Wu, Xiong, Yu and Lin, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018,
        arXiv 1805.01978.
    """

    log_z: Tensor

    def __init__(self, temperature: float = 0.07, reduction: str = "mean") -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature, self.reduction = temperature, reduction
        self.register_buffer("log_z", torch.tensor(torch.nan))  # NaN: not estimated yet

    def forward(self, features: Tensor, bank: Tensor, indices: Tensor, noise: Tensor) -> Tensor:
        """The loss of embeddings.

        Args:
            features: (b, d), not necessarily of unit length.
            bank: (n, d); no gradient reaches it.
            indices: (b,) the row of each sample.
            noise: (m,) or (b, m) rows drawn uniformly, repetitions allowed.
        """
        check_bank(features, bank, indices)
        if noise.ndim not in (1, 2) or (noise.ndim == 2 and len(noise) != len(features)) or not noise.numel():
            raise TrainingError(
                f"noise has shape {tuple(noise.shape)} for {len(features)} samples; expected (m,) or ({len(features)}, m) "
                "rows of the bank"
            )
        check_rows("noise", noise, bank)
        v, rows = F.normalize(features, dim=1, eps=1e-12), bank.detach()
        own = (v * rows[indices]).sum(1) / self.temperature
        others = v @ rows[noise].T if noise.ndim == 1 else (rows[noise] @ v[:, :, None])[:, :, 0]
        others = others / self.temperature
        n, m = len(bank), noise.shape[-1]
        with torch.no_grad():
            estimate = others.float().logsumexp((0, 1)) + math.log(n / others.numel())
            self.log_z.copy_(torch.where(self.log_z.isnan(), estimate, self.log_z))
        shift = self.log_z + math.log(m / n)  # h = sigmoid(s - log Z - log(m / n)), which nothing overflows
        losses: Tensor = F.softplus(shift - own) + F.softplus(others - shift).sum(1)
        return losses.mean() if self.reduction == "mean" else losses


def check_bank(features: Tensor, bank: Tensor, indices: Tensor) -> None:
    """Refuse embeddings, a bank and indices that do not fit.

    Raises:
        TrainingError: They do not.
    """
    if features.ndim != 2 or bank.ndim != 2 or features.shape[1] != bank.shape[1] or not len(features):
        raise TrainingError(
            f"features have shape {tuple(features.shape)} and the bank {tuple(bank.shape)}; expected (b, d) and (n, d)"
        )
    if indices.shape != features.shape[:1] or indices.dtype != torch.int64:
        raise TrainingError(
            f"indices has shape {tuple(indices.shape)} and type {indices.dtype}; expected int64 ({len(features)},), the "
            "row of each sample in the bank"
        )
    check_rows("indices", indices, bank)


def check_rows(name: str, rows: Tensor, bank: Tensor) -> None:
    """Refuse positions that are no rows of a bank.

    Raises:
        TrainingError: There are such.
    """
    low, high = torch.stack(rows.aminmax()).tolist()
    if low < 0 or high >= len(bank):
        raise TrainingError(
            f"{name} holds {low if low < 0 else high}, but the bank has {len(bank)} rows; expected 0 to {len(bank) - 1}: "
            "positions in the data that the bank was made for, not labels"
        )
