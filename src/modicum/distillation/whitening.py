"""ZCA: inputs made uncorrelated with as little change as possible, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from modicum.dataset import Dataset, Splits
from modicum.errors import DataError, ModicumError

__all__ = ["Whitening", "whitened", "zca"]

BLOCK = 4096  # samples at a time


@dataclass(frozen=True, eq=False)
class Whitening:
    """A fitted whitening `z = (x - mean) W` of flattened inputs and its inverse.

    Args:
        mean: (d,) mean of the training inputs.
        forward: (d, d) W, symmetric.
        inverse: (d, d) W^-1, symmetric.
        eps: What was added to the variances.
        scale: Inputs are divided by it first: 255 for uint8 images.
    """

    mean: Tensor
    forward: Tensor
    inverse: Tensor
    eps: float
    scale: float = 1.0

    def whiten(self, x: Tensor) -> Tensor:
        """(n, *shape) stored inputs -> (n, *shape) whitened, float32."""
        flat = x.float().flatten(1) / self.scale
        return ((flat - self.mean) @ self.forward).reshape(x.shape)

    def undo(self, z: Tensor) -> Tensor:
        """(n, *shape) whitened -> (n, *shape) in the units of the stored inputs."""
        return ((z.float().flatten(1) @ self.inverse + self.mean) * self.scale).reshape(z.shape)

    def apply(self, data: Dataset) -> Dataset:
        """The data with whitened inputs.

        Raises:
            DataError: Inputs have another size.
        """
        size = data.inputs[:1].flatten(1).shape[1]
        if size != len(self.mean):
            raise DataError(
                f"inputs have {size} numbers each; expected {len(self.mean)}, as the whitening was fitted on"
            )
        rows = [self.whiten(inputs) for _, inputs in data.batches(BLOCK)] or [data.inputs.float()]
        return data.replace(inputs=torch.cat(rows), info=replace(data.info, mean=(), std=()))


def zca(images: Tensor, eps: float = 0.1) -> Whitening:
    """Fit the whitening on images.

    With mean m and covariance `S = Xc^T Xc / (n - 1) = U diag(s) U^T` of flattened images in [0, 1],
    `W = U diag((s + eps)^(-1/2)) U^T` and `W^-1 = U diag((s + eps)^(1/2)) U^T`, fitted in float64.

    Args:
        images: (n, *shape) with n >= 2; uint8 images are divided by 255, floating ones taken as they are.
        eps: Added to the variances: directions in which images hardly differ are not blown up.

    Returns:
        The whitening; memory is 2 d^2 floats for images of d numbers.

    Raises:
        ModicumError: eps is not positive.
        DataError: Fewer than two images, or they are not finite.

    Example:
        >>> x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.tensor([1.0, 2, 3, 4]))
        >>> z = zca(x, eps=1e-6).whiten(x)
        >>> bool((z.T.cov() - torch.eye(4)).abs().max() < 1e-3)
        True

    Reference:
        Nguyen et al., Dataset Distillation with Infinitely Wide Convolutional Networks, 2021, arXiv 2107.13034.
    """
    if not 0 < eps < float("inf"):
        raise ModicumError(f"eps={eps!r}; expected a number > 0")
    if images.ndim < 2 or len(images) < 2:
        raise DataError(f"images is {tuple(images.shape)}; expected (n, *shape) with n >= 2")
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    parts = [slice(start, start + BLOCK) for start in range(0, len(images), BLOCK)]
    mean = sum((images[p].double().flatten(1).sum(0) for p in parts), torch.zeros(())) / (scale * len(images))
    if not bool(mean.isfinite().all()):
        raise DataError("images are not finite; remove or fill the numbers that are not")
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for part in parts:
        centered = images[part].double().flatten(1) / scale - mean
        covariance.addmm_(centered.T, centered)
    values, vectors = torch.linalg.eigh(covariance / (len(images) - 1))
    spread = values.clamp(min=0) + eps
    forward, inverse = ((vectors * spread**power) @ vectors.T for power in (-0.5, 0.5))
    return Whitening(mean.float(), forward.float(), inverse.float(), eps, scale)


def whitened(data: Splits, eps: float = 0.1) -> tuple[Splits, Whitening]:
    """All splits whitened by the statistics of the training split.

    Args:
        data: Images.
        eps: Added to the variances.

    Returns:
        The splits with floating inputs, and the whitening.

    Example:
        >>> import modicum
        >>> white, fitted = whitened(modicum.load("iris"))
        >>> bool((fitted.undo(white.test.inputs) - modicum.load("iris").test.inputs).abs().max() < 1e-4)
        True
    """
    fitted = zca(data.train.inputs, eps)
    return Splits(*(fitted.apply(part) for part in data)), fitted
