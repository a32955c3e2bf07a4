"""Losses on their way to a sampler: checked, shared between processes, and kept until they are looked at."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from modicum.errors import DataError

__all__ = ["Observed", "everywhere", "of_all"]


class Observed:
    """Losses of samples that are looked at once an epoch only, so that an accelerator never waits.

    Args:
        n: Number of samples.

    Example:
        >>> seen = Observed(3)
        >>> seen.add(torch.tensor([2, 0]), torch.tensor([0.5, 1.5]))
        >>> seen.take()
        (tensor([2, 0]), tensor([0.5000, 1.5000]))
        >>> seen.take() is None
        True
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.parts: list[tuple[Tensor, Tensor]] = []

    def add(self, indices: Tensor, losses: Tensor) -> None:
        """Keep the losses (b,) of the samples at these positions (b,).

        Raises:
            DataError: One loss for the whole batch, shapes that do not fit, or positions that are no integers.
        """
        _check(indices, losses)
        self.parts.append((indices, losses.detach().clone()))

    def take(self) -> tuple[Tensor, Tensor] | None:
        """All positions and losses since the last time, in order and on the CPU; None if there are none.

        Raises:
            DataError: A position that no sample has.
        """
        if not self.parts:
            return None
        indices = torch.cat([at for at, _ in self.parts]).cpu().long()
        losses = torch.cat([values for _, values in self.parts]).cpu()
        self.parts = []
        _check_range(indices, self.n)
        return indices, losses


def _check(indices: Tensor, losses: Tensor) -> None:
    if losses.ndim != 1 or losses.shape != indices.shape:
        raise DataError(
            f"losses has shape {tuple(losses.shape)} for indices of shape {tuple(indices.shape)}; expected one loss "
            "a sample: use reduction='none'"
        )
    if indices.is_floating_point() or indices.dtype == torch.bool:
        raise DataError(f"indices has dtype {indices.dtype}; expected the positions of the samples, integers")


def _check_range(indices: Tensor, n: int) -> None:
    outside = (indices < 0) | (indices >= n)
    if bool(outside.any()):
        raise DataError(
            f"indices has {int(indices[outside][0])}; expected positions from 0 to {n - 1}, as there are {n} samples: "
            "the place of a sample in the data set, not its id"
        )


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def everywhere(values: Tensor) -> tuple[Tensor, int, int]:
    """Rows of all processes of `torch.distributed`, one process after another.

    Args:
        values: (b, ...) of this process; b may differ between processes.

    Returns:
        The rows (m, ...) of all, where those of this process begin, and how many processes there are.

    Example:
        >>> everywhere(torch.tensor([1.0, 2.0]))
        (tensor([1., 2.]), 0, 1)
    """
    world = _processes()
    if world == 1:
        return values, 0, 1
    rank = dist.get_rank()
    own = torch.tensor([len(values)], device=values.device)
    every = [torch.empty_like(own) for _ in range(world)]
    dist.all_gather(every, own)
    sizes = [int(size) for size in every]
    padded = torch.zeros(max(sizes), *values.shape[1:], dtype=values.dtype, device=values.device)
    padded[: len(values)] = values
    parts = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes)]), sum(sizes[:rank]), world


def of_all(indices: Tensor, losses: Tensor, n: int) -> tuple[Tensor, Tensor, float]:
    """Positions and losses of the batch of all processes, and how many processes there are for a sample of it.

    With D processes and m samples the third is D / m: so many times the sum of the losses of a process, averaged over the
    processes as data-parallel training does, is the mean over the batch.

    Args:
        indices: (b,) positions of the samples of this process.
        losses: (b,) their losses, without gradients.
        n: Number of samples in the data set.

    Raises:
        DataError: One loss for the whole batch, shapes that do not fit, or positions that no sample has.

    Example:
        >>> of_all(torch.tensor([4, 7]), torch.tensor([1.0, 2.0]), n=8)
        (tensor([4, 7]), tensor([1., 2.]), 0.5)
    """
    _check(indices, losses)
    if indices.device.type == "cpu":  # elsewhere it is looked at when it gets here
        _check_range(indices, n)
    if _processes() == 1:
        return indices, losses, 1 / max(1, len(losses))
    whole, _, world = everywhere(torch.stack([indices.to(losses.device, torch.float64), losses.double()], 1))
    return whole[:, 0].long(), whole[:, 1].to(losses.dtype), world / max(1, len(whole))
