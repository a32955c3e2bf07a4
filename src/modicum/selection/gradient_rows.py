"""Gradients of single samples as rows: whole, or as the two factors of those of a last layer, which are never formed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modicum.arrays import tensor
from modicum.errors import DataError

__all__ = ["GradientRows", "gradient_rows", "target_of"]

BLOCK = 1 << 24  # entries of a block of products


@dataclass(frozen=True, eq=False)
class GradientRows:
    """n gradients `g_i = left_i right_i^T`, or `g_i = left_i` without a second factor.

    `<g_i, g_j> = <left_i, left_j> <right_i, right_j>`, and with a matrix G of the same shape as a gradient
    `<g_i, G> = left_i^T G right_i`.

    Args:
        left: (n, p) gradients, or (n, c) first factors.
        right: (n, d) second factors, or None.

    Example:
        >>> rows = GradientRows(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
        >>> rows.gram(torch.tensor([1])).tolist(), rows.combined().tolist()
        ([[2.0], [4.0]], [[1.0, 3.0]])
    """

    left: Tensor
    right: Tensor | None = None

    def __len__(self) -> int:
        return len(self.left)

    @property
    def columns(self) -> int:
        """Numbers that a sample takes."""
        return self.left.shape[1] + (0 if self.right is None else self.right.shape[1])

    @property
    def size(self) -> int:
        """Operations of a product of one gradient with a direction, over two."""
        return self.left.shape[1] * (1 if self.right is None else self.right.shape[1])

    def __getitem__(self, at: Tensor | slice) -> GradientRows:
        return GradientRows(self.left[at], None if self.right is None else self.right[at])

    def centered(self) -> GradientRows:
        """Less their mean, where they are whole: as far from each other, and far from zero no digits are lost."""
        return self if self.right is not None else GradientRows(self.left - self.left.mean(0))

    def squares(self) -> Tensor:
        """(n,) squared norms."""
        squared: Tensor = torch.linalg.vecdot(self.left, self.left)
        return squared if self.right is None else squared * torch.linalg.vecdot(self.right, self.right)

    def gram(self, at: Tensor) -> Tensor:
        """(n, k) inner products with the gradients at these positions."""
        return self.against(self[at])

    def column(self, j: int) -> Tensor:
        """(n,) inner products with one of the gradients."""
        products = self.left @ self.left[j]
        return products if self.right is None else products.mul_(self.right @ self.right[j])

    def against(self, others: GradientRows) -> Tensor:
        """(n, k) inner products with other gradients."""
        products = self.left @ others.left.mT
        return products if self.right is None or others.right is None else products.mul_(self.right @ others.right.mT)

    def combined(self, weights: Tensor | None = None) -> Tensor:
        """`sum_i w_i g_i`, of shape (p,) or (c, d); the plain sum without weights."""
        left = self.left if weights is None else self.left * weights[:, None]
        return left.sum(0) if self.right is None else left.mT @ self.right

    def products(self, direction: Tensor) -> Tensor:
        """(n,) inner products with a direction, of shape (p,) or (c, d)."""
        if self.right is None:
            return self.left @ direction
        products: Tensor = torch.linalg.vecdot(self.left, self.right @ direction.mT)
        return products

    def distances(self, squares: Tensor, at: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Slices of the samples and their Euclidean distances (b, k) to the gradients at these positions.

        Args:
            squares: (n,) as `squares` gives them.
            at: (k,) positions; the distance of a sample to itself is zero to the bit.
        """
        chosen, own = self[at], squares[at]
        rows = max(1, BLOCK // max(1, len(at)))
        for start in range(0, len(self), rows):
            here = slice(start, min(start + rows, len(self)))
            found = self[here].against(chosen).mul_(-2).add_(squares[here, None]).add_(own).clamp_(min=0).sqrt_()
            inside = ((at >= here.start) & (at < here.stop)).nonzero().flatten()
            found[at[inside] - start, inside] = 0
            yield here, found


def gradient_rows(name: str, gradients: Any) -> GradientRows:
    """Checked gradients.

    Args:
        name: Of the argument, for errors.
        gradients: (n, p), or the two factors (n, c) and (n, d).

    Raises:
        DataError: Other shapes, empty, not numbers, not finite, or so large that squares are not; the entry is named.
    """
    if not isinstance(gradients, tuple):
        return _squarable(
            name, GradientRows(tensor(name, gradients, (2,), "(n, p), one row a sample, or a pair of factors"))
        )
    if len(gradients) != 2:
        raise DataError(f"{name} has {len(gradients)} parts; expected two factors, (n, c) and (n, d)")
    left = tensor(f"{name}[0]", gradients[0], (2,), "(n, c), one row a sample")
    right = tensor(f"{name}[1]", gradients[1], (2,), "(n, d), one row a sample")
    if len(left) != len(right):
        raise DataError(
            f"{name} are factors of shapes {tuple(left.shape)} and {tuple(right.shape)}; expected as many rows in both"
        )
    wide = torch.promote_types(left.dtype, right.dtype)
    return _squarable(name, GradientRows(left.to(wide), right.to(left.device, wide)))


def _squarable(name: str, rows: GradientRows) -> GradientRows:
    fine = (rows.squares() * len(rows) ** 2).isfinite()  # no product with the sum of all is larger
    if not bool(fine.all()):
        at = int((~fine).nonzero()[0])
        raise DataError(
            f"{name}[{at}] is too long to be squared in {rows.left.dtype}; scale the gradients, or give float64"
        )
    return rows


def target_of(rows: GradientRows, target: Any) -> Tensor:
    """A direction to match, checked: the sum of the gradients where None is given.

    Raises:
        DataError: It has another shape than a gradient, or is not finite.
    """
    if target is None:
        return rows.combined()
    shape = (rows.left.shape[1],) if rows.right is None else (rows.left.shape[1], rows.right.shape[1])
    checked = tensor("target", target, (len(shape),), f"{shape}, like one gradient").to(rows.left)
    if checked.shape != shape:
        raise DataError(f"target has shape {tuple(checked.shape)}; expected {shape}, like one gradient")
    return checked
