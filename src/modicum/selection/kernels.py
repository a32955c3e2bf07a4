"""Similarities between samples: given as a matrix, or made from features row by row when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import NumPy, center_of, unit_rows
from modicum.arrays import features as checked_features
from modicum.errors import DataError

__all__ = ["KERNELS", "Kernel", "check_squares", "kernel_of"]

KERNELS = ("cosine", "rbf")
BLOCK = 1 << 22  # entries of a block
ADDED = 1 << 18  # entries that are made double to be added up, which stay in the cache
SIDE = 1024  # rows and columns of a block that is compared with its transpose


@dataclass(frozen=True, eq=False)
class Kernel:
    """A symmetric matrix K of similarities between n samples, of which rows are asked for.

    `cosine` is `(1 + cos(x, y)) / 2`, where the cosine with a row of zeros is 0; `rbf` is `exp(-||x - y||^2 / s)` with s
    the mean of all the squared distances.

    Args:
        name: `precomputed`, `cosine` or `rbf`.
        rows: (n, d) features made ready, or (n, n) the matrix itself.
        scale: s of `rbf`.
    """

    name: str
    rows: Tensor
    scale: float = 1.0

    def __len__(self) -> int:
        return len(self.rows)

    def block(self, at: Tensor) -> Tensor:
        """(b, n) rows of K, which are new memory."""
        mine = self.rows[at]
        if self.name == "precomputed":
            return mine
        if self.name == "cosine":
            return torch.mm(mine, self.rows.T).mul_(0.5).add_(0.5).clamp_(0, 1)
        squares = torch.linalg.vecdot(self.rows, self.rows)
        apart = torch.addmm(squares, mine, self.rows.T, alpha=-2).add_(squares[at, None]).clamp_(min=0)
        apart[torch.arange(len(at), device=apart.device), at] = 0
        return apart.mul_(-1 / self.scale).exp_()

    def row(self, at: int) -> Tensor:
        """(n,) one row of K."""
        return self.rows[at] if self.name == "precomputed" else self.block(torch.tensor([at]).to(self.rows.device))[0]

    @property
    def diagonal(self) -> Tensor:
        """(n,) similarities of the samples to themselves."""
        if self.name == "precomputed":
            return self.rows.diagonal()
        squares = torch.linalg.vecdot(self.rows, self.rows)
        return (1 + squares) / 2 if self.name == "cosine" else torch.ones_like(squares)

    def sums(self) -> Tensor:
        """(n,) float64 sums of the rows; n d operations for `cosine`, n^2 d in blocks for `rbf`."""
        if self.name == "rbf":
            parts = torch.split(torch.arange(len(self), device=self.rows.device), max(1, BLOCK // len(self)))
            return torch.cat([self.block(part).double().sum(1) for part in parts])
        # of blocks that were made double first: torch is ten times slower at adding up in another dtype
        blocks = torch.split(self.rows, max(1, ADDED // self.rows.shape[1]))
        if self.name == "precomputed":
            return torch.cat([block.double().sum(1) for block in blocks])
        total = torch.stack([block.double().sum(0) for block in blocks]).sum(0)
        return (len(self) + torch.cat([block.double() @ total for block in blocks])) / 2

    def whole(self) -> Kernel:
        """The same with the matrix in memory."""
        if self.name == "precomputed":
            return self
        n = len(self)
        matrix = self.rows.new_empty((n, n))
        step = max(1, BLOCK // n)
        for start in range(0, n, step):
            at = torch.arange(start, min(start + step, n), device=matrix.device)
            matrix[start : start + step] = self.block(at)
        return Kernel("precomputed", matrix)

    def double(self) -> Kernel:
        """The same in float64."""
        return replace(self, rows=self.rows.double())


def check_squares(name: str, rows: Tensor | NumPy) -> None:
    """Refuse rows (n, d) whose squared distances are more than their kind of number can hold.

    Raises:
        DataError: They are.
    """
    given: Any = rows
    most = float(abs(given).max())
    kind: Any = torch.finfo(given.dtype) if isinstance(rows, Tensor) else np.finfo(given.dtype)
    if most > (float(kind.max) / (8 * rows.shape[1])) ** 0.5:
        raise DataError(f"{name} reaches {most:.3g}, whose squares overflow {rows.dtype}; divide it by a number first")


def kernel_of(name: str, array: Any, kernel: str | None, negative: bool = False) -> Kernel:
    """The similarities that a matrix holds, or that features have.

    Args:
        name: Of the argument, for errors.
        array: (n, n) similarities or (n, d) features, a tensor or an array.
        kernel: `precomputed`, `cosine` or `rbf`; when None a square matrix is `precomputed`, any other `cosine`.
        negative: Whether similarities below zero are right.

    Raises:
        DataError: Another kernel; a matrix of similarities that is not square, symmetric, finite and not negative;
            features that are not finite.
    """
    if kernel not in (None, "precomputed", *KERNELS):
        raise DataError(f"kernel={kernel!r}; expected None, 'precomputed', 'cosine' or 'rbf'")
    shape = tuple(getattr(array, "shape", ()))
    if kernel == "precomputed" or (kernel is None and len(shape) == 2 and shape[0] == shape[1]):
        return Kernel("precomputed", _similarity(name, array, negative, told=kernel is not None))
    plain = checked_features(name, array)
    on_cpu = not isinstance(array, Tensor) or array.device.type == "mps"  # which has no float64
    device = torch.device("cpu") if on_cpu else array.device
    if kernel == "rbf":
        check_squares(name, plain)
        rows = torch.from_numpy(plain - center_of(plain).astype(plain.dtype)).to(device)
        spread = float(2 * rows.double().var(0, correction=0).sum())
        return Kernel("rbf", rows, spread if spread > 0 else 1.0)
    return Kernel("cosine", torch.from_numpy(unit_rows(name, plain, zeros=True)).to(device))


def _similarity(name: str, array: Any, negative: bool, told: bool) -> Tensor:
    """The matrix, read once in pairs of blocks that lie across the diagonal from each other."""
    else_features = "" if told else "; if these are features, say kernel='cosine' or 'rbf'"
    if isinstance(array, Tensor):
        matrix = array.detach().cpu() if array.device.type == "mps" else array.detach()
    else:
        whole = isinstance(array, np.ndarray) and array.ndim == 2
        plain = checked_features(name, array[:1] if whole else array)  # of the kind of numbers and the dimensions
        copied = not array.flags.writeable or min(array.strides) < 0
        matrix = torch.from_numpy(np.ascontiguousarray(array.astype(plain.dtype, copy=copied)))
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.numel():
        raise DataError(f"{name} has shape {tuple(matrix.shape)}; expected (n, n) similarities, not empty")
    if matrix.dtype not in (torch.float32, torch.float64):
        matrix = matrix.float() if matrix.is_floating_point() else matrix.double()
    n, least, apart, most = len(matrix), torch.inf, 0.0, 0.0
    for start in range(0, n, SIDE):
        for other in range(start, n, SIDE):
            one = matrix[start : start + SIDE, other : other + SIDE]
            two = matrix[other : other + SIDE, start : start + SIDE].T
            low, high = (float(value) for value in one.aminmax())
            least, most = min(least, low), max(most, high)
            if not (abs(low) < torch.inf and abs(high) < torch.inf):
                raise DataError(f"{name} holds {low if low != low else high}; expected finite similarities")
            if not torch.equal(one, two):
                difference = float((one - two).abs().max())
                apart = difference if difference != difference else max(apart, difference)
    if not apart <= 1e-5 * max(most, -least):
        raise DataError(
            f"{name} is not symmetric: entries differ from those across the diagonal by up to {apart:.3g}{else_features}"
        )
    if least < 0 and not negative:
        raise DataError(
            f"{name} has the entry {least:.4g}; expected similarities >= 0, such as (1 + cosine) / 2{else_features}"
        )
    return matrix
