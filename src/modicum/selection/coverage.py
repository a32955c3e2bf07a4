"""How well a set stands for all samples: gains of facility location, dense, row by row, or sparse."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import NumPy
from modicum.selection.kernels import Kernel

__all__ = ["Coverage", "SparseCoverage"]

BLOCK = 1 << 21  # entries of a block
SPARSE = 1 / 16  # share of the entries that can still gain below which only they are kept
SMALL = 500  # samples below which it is not worth it


class Coverage:
    """`f(S) = sum_i max_{j in S} K_ij` by the rows of a kernel.

    As the set grows, an entry of K counts only while it is above the best similarity of its sample to the set. Once few
    are, the rest of a matrix in memory is put aside (`SparseCoverage`): the same gains from less.

    Args:
        kernel: The similarities.
        counted: (n,) samples whose coverage counts; all when None.
        shrink: Whether `take` may go over to the entries that can still gain.
    """

    together = 512

    def __init__(self, kernel: Kernel, counted: Tensor | None = None, shrink: bool = True) -> None:
        self.kernel, self.counted = kernel, counted
        self.shrink = shrink and kernel.name == "precomputed" and counted is None and len(kernel) >= SMALL
        self.best = kernel.rows.new_zeros(len(kernel) if counted is None else int(counted.sum()))
        self.tolerance = 1e-6 if kernel.rows.dtype == torch.float32 else 1e-10
        self.taken = 0

    def __len__(self) -> int:
        return len(self.kernel)

    def _block(self, at: Tensor) -> Tensor:
        block = self.kernel.block(at)
        return block if self.counted is None else block[:, self.counted]

    def first(self) -> list[float]:
        """The sums of the rows."""
        if self.counted is not None:
            return self.gains(list(range(len(self))))
        sums: list[float] = self.kernel.sums().tolist()
        return sums

    def gains(self, at: list[int]) -> list[float]:
        """`sum_i max(0, K_ij - best_i)`: of a matrix row by row in a buffer that stays in the cache, else in blocks."""
        found: list[float] = []
        if self.kernel.name == "precomputed" and self.counted is None and self.best.device.type == "cpu":
            rows, best = self.kernel.rows.numpy(), self.best.numpy()
            buffer = np.empty_like(best)
            for j in at:
                np.subtract(rows[j], best, out=buffer)
                found.append(float(np.add.reduce(np.maximum(buffer, 0.0, out=buffer))))
            return found
        positions = torch.tensor(at, device=self.best.device)
        step = max(1, BLOCK // len(self))
        for start in range(0, len(at), step):
            found += self._block(positions[start : start + step]).sub_(self.best).clamp_(min=0).sum(1).tolist()
        return found

    def take(self, at: int) -> Coverage | SparseCoverage:
        """Cover by one more."""
        row = self.kernel.row(at)
        torch.maximum(self.best, row if self.counted is None else row[self.counted], out=self.best)
        self.taken += 1
        if not self.shrink or self.taken < 4 or self.taken & (self.taken - 1):
            return self
        some = self.kernel.rows[:: max(1, len(self) // 64)]
        return self if float((some > self.best).float().mean()) > SPARSE else self._shrunk()

    def _shrunk(self) -> SparseCoverage:
        rows, best, n = self.kernel.rows, self.best, len(self)
        counts, columns, values = [], [], []
        step = max(1, BLOCK // n)
        for start in range(0, n, step):
            block = rows[start : start + step]
            gain = (block > best).cpu().numpy()
            counts.append(np.count_nonzero(gain, axis=1))
            places = np.flatnonzero(gain)
            columns.append((places % n).astype(np.int32))
            values.append(block.cpu().numpy().ravel()[places].astype(np.float64))
        starts = np.append(0, np.cumsum(np.concatenate(counts)))
        covered = best.double().cpu().numpy()
        # the entries are no more exact than they were, so that the same gains are ties
        return SparseCoverage(starts, np.concatenate(columns), np.concatenate(values), covered, self.tolerance)


class SparseCoverage:
    """The same by the entries of K that are not zero, column by column.

    Args:
        starts: (n + 1,) where the entries of each candidate begin.
        samples: (e,) the sample that an entry is about.
        values: (e,) float64 its similarity to the candidate.
        best: (m,) float64 similarity of every sample to the set; changed.
        tolerance: Relative difference of gains that are a tie.
    """

    together = 1

    def __init__(self, starts: NumPy, samples: NumPy, values: NumPy, best: NumPy, tolerance: float = 1e-10) -> None:
        self.starts: list[int] = starts.tolist()
        self.samples, self.values, self.best, self.tolerance = samples, values, best, tolerance

    @classmethod
    def of(cls, matrix: Any) -> SparseCoverage:
        """From a SciPy matrix (samples, candidates)."""
        columns = matrix.tocsc()
        columns.sum_duplicates()
        return cls(columns.indptr, columns.indices, columns.data.astype(np.float64), np.zeros(columns.shape[0]))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def first(self) -> list[float]:
        """The sums of the columns."""
        columns = np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.starts))
        sums: list[float] = np.bincount(columns, self.values, len(self)).tolist()
        return sums

    def gains(self, at: list[int]) -> list[float]:
        """Of one candidate after the other, each from its own entries."""
        found = []
        for j in at:
            part = slice(self.starts[j], self.starts[j + 1])
            more = self.values[part] - self.best.take(self.samples[part])
            found.append(float(np.add.reduce(np.maximum(more, 0.0, out=more))))
        return found

    def take(self, at: int) -> SparseCoverage:
        """Cover by one more."""
        part = slice(self.starts[at], self.starts[at + 1])
        samples = self.samples[part]
        self.best[samples] = np.maximum(self.best[samples], self.values[part])
        return self
