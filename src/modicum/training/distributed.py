"""Several processes under `torchrun` that give the answer of one at equal global batch."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from modicum.context import Context
from modicum.errors import TrainingError
from modicum.store import Stateful, pack, unpack

__all__ = ["Group", "join"]


def join(device: str = "cpu") -> Group | None:
    """The processes that `torchrun` started, or None for a process by itself.

    Args:
        device: Where the tensors are: `cuda` processes talk by NCCL, others by Gloo.

    Example:
        >>> join() is None
        True
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
        return None
    if not dist.is_initialized():
        cuda = torch.device(device).type == "cuda"
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if cuda else "gloo")
        atexit.register(_leave)
    return Group(dist.get_rank(), dist.get_world_size(), torch.device(device))


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


class Group:
    """What a process does for its share of every batch.

    Process r of w takes the samples r, r + w, ... of a global batch of size b. Its loss is w / b times the sum of its
    weighted losses, so that the mean of the gradients over the processes, which DDP forms, is the gradient of the mean
    over the batch. A process without a sample takes the first one with weight zero.

    Args:
        rank: Number of this process.
        world: Number of processes.
        device: Where the tensors are.
    """

    def __init__(self, rank: int, world: int, device: torch.device) -> None:
        self.rank, self.world, self.device = rank, world, device
        self.reduced_bytes = 0

    @property
    def bytes_sent(self) -> int:
        """Bytes that this process has sent: a ring all-reduce sends 2 (w - 1) / w of what it reduces."""
        return 2 * (self.world - 1) * self.reduced_bytes // self.world

    def context(self, ctx: Context) -> Context:
        """The context of this process: only the first one writes files and shows progress."""
        return ctx if self.rank == 0 else ctx.with_(store=None, show=False)

    def wrap(self, model: nn.Module) -> DistributedDataParallel:
        """The model with gradients averaged over the processes.

        Raises:
            TrainingError: Batch normalization on a device where the processes cannot share its statistics.
        """
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
            raise TrainingError(
                f"{type(model).__name__} has batch normalization, whose statistics would be those of one process's "
                "share of the batch; use instance or group normalization, or one process"
            )
        self.gradient_bytes = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
        ids = [torch.cuda.current_device()] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)

    def part(self, size: int) -> Tensor:
        """Positions of this process's samples in a global batch of this size."""
        mine = torch.arange(size)[self.rank :: self.world]
        return mine if len(mine) else torch.zeros(1, dtype=torch.int64)

    def loss(self, losses: Tensor, weights: Tensor | None, size: int) -> Tensor:
        """The loss of this process's share.

        Args:
            losses: (k,) losses of the samples of `part`.
            weights: (k,) their weights, or None.
            size: Of the global batch.

        Returns:
            w / b times the weighted sum.
        """
        self.reduced_bytes += self.gradient_bytes
        if self.rank >= size:
            return losses.sum() * 0
        return (losses if weights is None else losses * weights).sum() * (self.world / size)

    def whole(self, values: Tensor, size: int) -> Tensor:
        """The rows of the global batch from the rows of every process."""
        rows = torch.zeros(size, *values.shape[1:], dtype=values.dtype, device=values.device)
        if self.rank < size:
            rows[self.part(size).to(values.device)] = values
        return self.sum(rows)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes, in place."""
        dist.all_reduce(values)
        self.reduced_bytes += values.numel() * values.element_size()
        return values

    def loop(self, ctx: Context, name: str, total: int, run: Stateful, work: object) -> Iterator[int]:
        """The steps of `ctx.loop`; what the first process resumes from, the others take over from it."""
        steps: Iterator[int] = ctx.loop(name, total, [run], work)
        first = next(steps, total) if self.rank == 0 else 0
        content = pack(run.state_dict()) if self.rank == 0 and 0 < first < total else b""
        sizes = torch.tensor([first, len(content)], device=self.device)
        dist.broadcast(sizes, 0)
        first, length = map(int, sizes.tolist())
        if length:
            bytes_ = torch.zeros(length, dtype=torch.uint8, device=self.device)
            if self.rank == 0:
                bytes_.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
            dist.broadcast(bytes_, 0)
            if self.rank > 0:
                state: Any = unpack(bytes_.cpu().numpy().tobytes())
                run.load_state_dict(state)
        if self.rank > 0:
            yield from range(first, total)
        elif first < total:
            yield first
            yield from steps
