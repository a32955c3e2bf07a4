"""The squares of a product of two embeddings off its diagonal, by the cheaper of two routes."""

from __future__ import annotations

from torch import Tensor

__all__ = ["off_diagonal_squares"]


def off_diagonal_squares(a: Tensor, b: Tensor) -> Tensor:
    """The sum of the squares of the entries of A^T B off its diagonal.

    With fewer rows than columns, as |A^T B|^2 = <A A^T, B B^T> without what lies on the diagonal: n x n instead of d x d
    matrices, which for 128 images and 2,048 dimensions is a sixteenth of the work and of the memory.

    Args:
        a: (n, d) floating.
        b: (n, d).

    Returns:
        A scalar.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])
        >>> float(off_diagonal_squares(a, b))  # (1 * 4)^2 + (2 * 3)^2
        52.0
    """
    if len(a) >= a.shape[1]:
        return (a.T @ b).fill_diagonal_(0).square().sum()
    left = a @ a.T
    right = left if a is b else b @ b.T
    return (left * right).sum() - (a * b).sum(0).square().sum()
