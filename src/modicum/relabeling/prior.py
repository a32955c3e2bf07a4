"""A prior model: any network whose output of a sample is worth knowing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.context import Context
from modicum.dataset import Dataset
from modicum.errors import DataError
from modicum.models import Network, features
from modicum.training.evaluate import forward

__all__ = ["Prior"]


@dataclass(frozen=True, eq=False)
class Prior:
    """A network that gives every sample a vector, and the images that it wants.

    Images are resized so that the shorter side fits, cut in the center, and repeated to three channels or averaged to
    one where the network wants that; nothing is augmented.

    Args:
        encoder: From a batch to (b, d); of a `modicum.models.Network` the representation before its last layer is taken.
            It runs in evaluation mode, without gradients.
        name: For people; of the kind of the encoder when empty.
        shape: (channels, height, width) that it wants; as the data are when empty.
        mean: Subtracted from pixels in [0, 1], per channel; the standardization of the data is used when empty.
        std: Divided by afterwards.

    Example:
        >>> from modicum.dataset import Info
        >>> data = Dataset(torch.rand(6, 1, 8, 8), info=Info("unlabeled", "image"))
        >>> prior = Prior(nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5)), shape=(3, 4, 4))
        >>> prior.features(data, Context()).shape
        torch.Size([6, 5])
    """

    encoder: nn.Module = field(repr=False)
    name: str = ""
    shape: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", type(self.encoder).__name__)

    @property
    def digest(self) -> str:
        """sha256 of its weights, its structure and what it wants of images."""
        digest = hashlib.sha256(f"{self.encoder!r} {self.shape} {self.mean} {self.std}".encode())
        for name, value in self.encoder.state_dict().items():
            if isinstance(value, Tensor):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                digest.update(np.ascontiguousarray(raw.numpy()).data)
        return digest.hexdigest()

    def prepare(self, inputs: Tensor, data: Dataset) -> Tensor:
        """Inputs of some samples, in the units in which the data store them, as the network wants them."""
        if not self.mean or data.info.modality != "image":
            x = data.prepare(inputs, inputs.device)
        else:
            pixels = inputs.float() / (1 if data.inputs.is_floating_point() else 255)
            mean, std = (torch.tensor(v, device=inputs.device).reshape(-1, 1, 1) for v in (self.mean, self.std))
            x = (_channels(pixels, len(mean)) - mean) / std
        if not self.shape or data.info.modality != "image":
            return x
        channels, *size = self.shape
        return _fitted(_channels(x, channels), size)

    def features(self, data: Dataset, ctx: Context) -> Tensor:
        """(n, d) float32 output for every sample, on the CPU; the pass is charged to `ctx.ledger` as choosing.

        Raises:
            DataError: The output is no vector a sample, or is not finite.
        """
        network = self.encoder.to(ctx.device)
        plain = data.replace(info=replace(data.info, mean=(), std=()))

        def function(module: nn.Module, stored: Tensor) -> Tensor:
            x = self.prepare(stored, data)
            out = features(module, x) if isinstance(module, Network) else module(x)
            if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != len(x):
                got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
                raise DataError(
                    f"prior {self.name!r} gives {got} for {len(x)} samples; expected a tensor of shape ({len(x)}, d): "
                    "pool or flatten its output"
                )
            return out

        what = f"prior {self.name}"
        found = forward(network, plain, ctx, function=function, phase="choose", what=what, batch_size=256)
        bad = (~found.isfinite()).any(1)
        if bool(bad.any()):
            raise DataError(
                f"prior {self.name!r} gives numbers that are not finite, first of sample "
                f"{data.ids[int(bad.nonzero()[0])].item()!r}; expected finite numbers, look at its weights and inputs"
            )
        return found


def _channels(x: Tensor, channels: int) -> Tensor:
    if x.shape[1] == channels:
        return x
    if channels == 1:
        return x.mean(1, keepdim=True)
    if x.shape[1] == 1:
        return x.expand(-1, channels, -1, -1)
    raise DataError(f"images have {x.shape[1]} channels, but the prior wants {channels}; expected 1 or as many")


def _fitted(x: Tensor, size: list[int]) -> Tensor:
    """Resized so that the image covers the size, then cut in the center."""
    height, width = x.shape[2:]
    if [height, width] == size:
        return x
    factor = max(size[0] / height, size[1] / width)
    whole = [max(s, round(side * factor)) for s, side in zip(size, (height, width))]
    x = F.interpolate(x.contiguous(), whole, mode="bilinear", align_corners=False, antialias=True)
    top, left = (whole[0] - size[0]) // 2, (whole[1] - size[1]) // 2
    return x[:, :, top : top + size[0], left : left + size[1]]
