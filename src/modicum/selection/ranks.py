"""What the rules on scores share: scores without infinities, and class floors on any sequence of samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from modicum.arrays import NumPy, to_numpy
from modicum.errors import DataError
from modicum.scores import Budget, Scores

__all__ = ["finite", "first_of"]


def finite(name: str, scores: Any) -> NumPy:
    """Scores as finite float64 numbers: infinity is one more than the largest finite score, less infinity one less than
    the least, as for forgetting events of a sample that was never learned.

    Args:
        name: Of the argument, for errors.
        scores: (n,) numbers.

    Returns:
        (n,) a copy.

    Raises:
        DataError: Another shape, empty, not numbers, or NaN.

    Example:
        >>> finite("scores", np.array([0.0, np.inf, 3.0])).tolist()
        [0.0, 4.0, 3.0]
    """
    plain = to_numpy(name, scores)
    if plain.ndim != 1 or not len(plain) or plain.dtype.kind not in "iubf":
        raise DataError(
            f"{name} has shape {plain.shape} and dtype {plain.dtype}; expected numbers (n,), one a sample, not empty"
        )
    values = plain.astype(np.float64)
    if np.isnan(values).any():
        raise DataError(
            f"{name}[{int(np.isnan(values).argmax())}] is nan; expected a number: drop or score that sample"
        )
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
    values[values == np.inf], values[values == -np.inf] = high + 1, low - 1
    return values


def first_of(sequence: NumPy, budget: Budget, labels: NumPy | None = None, class_balance: float = 0.0) -> NumPy:
    """The first samples of a sequence of all of them, with the class floors of `modicum.Scores.kept`.

    Args:
        sequence: (n,) positions, the first to keep first.
        budget: How much.
        labels: (n,) class indices by position, for floors and budgets per class.
        class_balance: See `Scores.kept`.

    Returns:
        (k,) sorted positions.

    Raises:
        BudgetError: The budget does not fit, or labels are missing.

    Example:
        >>> first_of(np.array([2, 0, 1]), Budget(keep=2), np.array([0, 1, 0]), class_balance=1.0).tolist()
        [1, 2]
    """
    n = len(sequence)
    places = np.empty(n)
    places[sequence] = -np.arange(n)
    return Scores(places, np.arange(n), "rank", "value", "ranks", labels).kept(budget, class_balance=class_balance)
