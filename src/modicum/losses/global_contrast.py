"""One step of the estimator of a contrast against all images of a data set, of which a batch shows a few."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.errors import TrainingError

__all__ = ["check_indices", "global_contrast"]


def check_indices(indices: Tensor, size: int, n: int) -> None:
    """Refuse positions that are not those of different samples.

    Args:
        indices: What should be (size,) different integers in [0, n).
        size: Images of the batch.
        n: Samples of the data.

    Raises:
        TrainingError: Wrong shape or type, out of range, or repeated.

    Example:
        >>> check_indices(torch.tensor([3, 1]), 2, 4)
    """
    if tuple(indices.shape) != (size,) or indices.dtype not in (torch.int64, torch.int32):
        raise TrainingError(
            f"indices have shape {tuple(indices.shape)} and type {indices.dtype}; expected ({size},) integers, the "
            "position of each image in the data"
        )
    ordered = indices.sort().values
    wrong = (ordered[0] < 0) | (ordered[-1] >= n) | (ordered[1:] == ordered[:-1]).any()
    if not wrong:  # one question to the device instead of three
        return
    low, high = int(ordered[0]), int(ordered[-1])
    if low < 0 or high >= n:
        raise TrainingError(f"indices range from {low} to {high}; expected positions in the {n} samples, 0 to {n - 1}")
    repeated = int(ordered[1:][ordered[1:] == ordered[:-1]][0])
    raise TrainingError(
        f"indices hold {repeated} more than once; expected every image of a batch to be a different sample, because each "
        "has one estimate"
    )


def global_contrast(
    a: Tensor, b: Tensor, log_u: Tensor, temperature: Tensor, gamma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The surrogate loss of each image, its new estimate, and the derivative by its temperature.

    With cosines s, t the temperature of the anchor, and the m = 2 b - 2 embeddings of the other images as negatives,
    g = (1/m) sum_j exp(s_j / t), u' = (1 - gamma) u + gamma g for each view (g where u is 0: never seen), new u the mean
    of the two views. The loss of a view is (1/m) sum_j (exp(s_j / t) / u') s_j - s+ with the weights held constant: its
    gradient is that of t log E exp(s / t) - s+ as u' becomes the expectation E over all images. The derivative is
    log u' - (1/m) sum_j (exp(s_j / t) / u') s_j / t. All of it is computed with logarithms, so nothing overflows.

    Args:
        a: (b, d) embeddings of a view.
        b: (b, d) of the other view.
        log_u: (b,) log of the estimates before, -inf where there is none yet.
        temperature: (b,) positive.
        gamma: Weight of the batch in (0, 1].

    Returns:
        (b,) losses, the sum over both views; (b,) log of the estimates after; (b,) derivatives, the mean over both views.

    Example:
        >>> a = b = torch.eye(3)
        >>> none, half = torch.full((3,), -torch.inf), torch.full((3,), 0.5)
        >>> losses, log_u, _ = global_contrast(a, b, none, half, 1.0)
        >>> losses.tolist(), log_u.exp().tolist()  # negatives are orthogonal, and the positive is the same
        ([-2.0, -2.0, -2.0], [1.0, 1.0, 1.0])
    """
    n = len(a)
    u = F.normalize(torch.cat([a, b]), dim=1, eps=1e-12)
    cosines = u @ u.T
    with torch.no_grad():
        own = torch.eye(n, dtype=torch.bool, device=u.device).repeat(2, 2)
        logits = cosines / temperature.to(u.dtype).repeat(2)[:, None]
        log_g = logits.masked_fill(own, -torch.inf).logsumexp(1) - math.log(2 * n - 2)
        before = log_u.to(u.dtype).repeat(2)
        moved = torch.logaddexp(before + _log(1 - gamma), log_g + math.log(gamma))
        after = torch.where(before == -torch.inf, log_g, moved)
        weights = ((logits - after[:, None]).exp() / (2 * n - 2)).masked_fill(own, 0)
        derivative = (after - (weights * logits).sum(1)).reshape(2, n).mean(0)
        estimate = torch.logaddexp(after[:n], after[n:]) - math.log(2)
    losses = (weights * cosines).sum(1).reshape(2, n).sum(0) - 2 * cosines.diagonal(n)
    return losses, estimate, derivative


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf
