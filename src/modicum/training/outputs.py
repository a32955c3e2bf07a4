"""What a model's outputs say about a sample: margin, error and confidence, one number each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.errors import DataError

__all__ = ["centered_targets", "confidence_gap", "error_norm", "margin_of"]


def _at_targets(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """The targets as an index into the last dimension of the outputs, one for each leading position."""
    if outputs.ndim < 1 or outputs.shape[-1] < 2:
        raise DataError(f"{name} must have shape (..., c) with c >= 2 classes, got {tuple(outputs.shape)}")
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise DataError(f"targets must be integer class indices, got dtype {targets.dtype}")
    try:
        return targets.long().broadcast_to(outputs.shape[:-1]).unsqueeze(-1)
    except RuntimeError:
        raise DataError(
            f"targets of shape {tuple(targets.shape)} do not fit {name} of shape {tuple(outputs.shape)}; "
            f"expected one class index for each of {tuple(outputs.shape[:-1])}"
        ) from None


def centered_targets(targets: Tensor, classes: int) -> Tensor:
    """What outputs are compared with by squared error: one-hot rows less 1 / c, or soft targets as they are.

    Args:
        targets: (n,) class indices, or (n, c) numbers.
        classes: Number of classes c.

    Returns:
        (n, c) floating.

    Example:
        >>> centered_targets(torch.tensor([1]), 2)
        tensor([[-0.5000,  0.5000]])
    """
    return targets if targets.is_floating_point() else F.one_hot(targets, classes).float() - 1 / classes


def margin_of(logits: Tensor, targets: Tensor) -> Tensor:
    """By how much the logit of the target exceeds the largest other one.

    `z_y - max_{c != y} z_c`: positive when the prediction is right.

    Args:
        logits: (..., c) in any unit; the margin has the same unit.
        targets: (...) class indices; fewer leading dimensions are broadcast.

    Returns:
        (...) margins, in the dtype and on the device of the logits.

    Raises:
        DataError: Fewer than two classes, or the shapes do not fit.

    Example:
        >>> margin_of(torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0]]), torch.tensor([0, 2]))
        tensor([ 2., -1.])

    Reference:
        Pleiss et al., Identifying Mislabeled Data using the Area Under the Margin Ranking, 2020, arXiv 2001.10528.
    """
    at = _at_targets("logits", logits, targets)
    others = logits.scatter(-1, at, float("-inf")).amax(-1)
    return logits.gather(-1, at).squeeze(-1) - others


def error_norm(probabilities: Tensor, targets: Tensor) -> Tensor:
    """The distance of the predicted probabilities from the one-hot target.

    `||p - e_y||_2`, from 0 (sure and right) to sqrt(2) (sure and wrong).

    Args:
        probabilities: (..., c), each row summing to 1.
        targets: (...) class indices; fewer leading dimensions are broadcast.

    Returns:
        (...) distances, in the dtype and on the device of the probabilities.

    Raises:
        DataError: Fewer than two classes, or the shapes do not fit.

    Example:
        >>> error_norm(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
        tensor([0.0000, 1.4142])

    Reference:
        Paul, Ganguli, Dziugaite, Deep Learning on a Data Diet, 2021, arXiv 2107.07075.
    """
    at = _at_targets("probabilities", probabilities, targets)
    one = torch.ones((), dtype=probabilities.dtype, device=probabilities.device)
    norm: Tensor = torch.linalg.vector_norm(probabilities.scatter_add(-1, at, -one.expand(at.shape)), dim=-1)
    return norm


def confidence_gap(probabilities: Tensor) -> Tensor:
    """The largest probability less the second largest.

    `p_(1) - p_(2)`, from 0 (undecided) to 1 (sure); no label is needed.

    Args:
        probabilities: (..., c), each row summing to 1.

    Returns:
        (...) gaps, in the dtype and on the device of the probabilities.

    Raises:
        DataError: Fewer than two classes.

    Example:
        >>> confidence_gap(torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]]))
        tensor([0.2500, 1.0000])

    Reference:
        Coleman et al., Selection via Proxy, 2020, arXiv 1906.11829.
    """
    if probabilities.ndim < 1 or probabilities.shape[-1] < 2:
        raise DataError(f"probabilities must have shape (..., c) with c >= 2 classes, got {tuple(probabilities.shape)}")
    top = probabilities.topk(2, dim=-1).values
    return top[..., 0] - top[..., 1]
