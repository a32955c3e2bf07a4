"""SqrtKL: the distance of a prediction from its own square root, which makes it more uniform."""

from __future__ import annotations

from torch import Tensor, nn

from modicum.errors import TrainingError
from modicum.losses.check import check_temperature

__all__ = ["SqrtKL"]


class SqrtKL(nn.Module):
    """Kullback-Leibler divergence of a softmax from the normalized square root of itself.

    With p = softmax(s / t) and u_k = sqrt(p_k) / sum_j sqrt(p_j) = softmax(s / (2 t)), the loss of a sample is
    `KL(p || u) = sum_k p_k log p_k - sum_k p_k log u_k = L1 + L2 >= 0`, 0 only for equal logits. It is half the
    difference of the Renyi entropy of order 1/2 and the Shannon entropy H of p. With u detached its gradient in s / t
    is `p_k (log p_k + H) / 2`, half of that of -H(p): entropy is maximized. Alone, L1 has the whole gradient of -H(p),
    and L2 minus half of it. With the gradient through u, `(u_k - p_k) / 2` is added.

    Memory is a few times that of the logits.

    Args:
        temperature: t > 0; 1 in the published code, whatever the temperature of the cross-entropy beside it.
        detach: Whether u is a constant target.
        reduction: `mean`, or `none` for a number a sample.

    Raises:
        TrainingError: The temperature is not positive, or logits are not floating (b, k).

    Example:
        >>> import torch
        >>> loss = SqrtKL()
        >>> abs(float(loss(torch.zeros(2, 5)))) < 1e-6
        True
        >>> round(float(loss(torch.tensor([[0.0, 0.0, 9.0]]))), 4)
        0.0206

    Reference:
        Cao and Wu, On Improving the Algorithm-, Model-, and Data- Efficiency of Self-Supervised Learning, 2024,
        arXiv 2404.19289.
    """

    def __init__(self, temperature: float = 1.0, detach: bool = True, reduction: str = "mean") -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature, self.detach, self.reduction = temperature, detach, reduction

    def forward(self, logits: Tensor) -> Tensor:
        """The loss of logits (b, k)."""
        negentropy, cross = self.parts(logits)
        return negentropy + cross

    def parts(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """L1, the negative entropy of p, and L2, the cross-entropy of p and u, each reduced like the loss."""
        if logits.ndim != 2 or not logits.is_floating_point():
            raise TrainingError(
                f"logits has shape {tuple(logits.shape)} and type {logits.dtype}; expected a floating tensor (b, k), one "
                "row a sample"
            )
        log_p = (logits / self.temperature).log_softmax(1)
        p = log_p.exp()
        log_u = (log_p.detach() / 2 if self.detach else log_p / 2).log_softmax(1)  # sqrt(p) itself would underflow
        negentropy, cross = (p * log_p).sum(1), -(p * log_u).sum(1)
        return (negentropy.mean(), cross.mean()) if self.reduction == "mean" else (negentropy, cross)
