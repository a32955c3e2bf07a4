"""The phase diagram of pruning: which samples theory would keep, by how many there are and how many may stay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modicum.arrays import NumPy
from modicum.errors import ModicumError
from modicum.selection.pruning_theory import pruning_theory

__all__ = ["PhaseDiagram", "crossing", "phase_diagram"]

RULES = ("random", "hardest", "easiest")
ALPHAS = tuple(float(2.0 ** (step / 2)) for step in range(-2, 14))
KEEPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, eq=False)
class PhaseDiagram:
    """Test errors of the perceptron theory on a grid.

    Args:
        alphas: (a,) samples before pruning per dimension.
        keeps: (k,) shares kept.
        angle: Between probe and teacher, in radians.
        errors: (a, k, 3) in [0, 1/2], of random, hardest, easiest.
    """

    alphas: NumPy
    keeps: NumPy
    angle: float
    errors: NumPy

    @property
    def best(self) -> NumPy:
        """(a, k) names of the rules with the least error."""
        names: NumPy = np.array(RULES)[np.argmin(self.errors, -1)]
        return names


def phase_diagram(
    alphas: Sequence[float] | NumPy = ALPHAS, keeps: Sequence[float] | NumPy = KEEPS, angle: float = 0.0
) -> PhaseDiagram:
    """The errors of the three rules on a grid.

    Args:
        alphas: Samples before pruning per dimension, in (0, 1000].
        keeps: Shares in (0, 1].
        angle: Between probe and teacher, in radians, in [0, pi / 2].

    Raises:
        ModicumError: An entry is out of its range, or there are none.

    Example:
        >>> phase_diagram([4.0, 8.0], [0.5]).best.tolist()
        [['easiest'], ['hardest']]
    """
    rows, columns = np.asarray(alphas, dtype=np.float64), np.asarray(keeps, dtype=np.float64)
    if rows.ndim != 1 or columns.ndim != 1 or not len(rows) or not len(columns):
        raise ModicumError(f"alphas and keeps have shapes {rows.shape} and {columns.shape}; expected (a,) and (k,)")
    errors = np.empty((len(rows), len(columns), 3))
    for column, keep in enumerate(columns.tolist()):
        for place, rule in enumerate(RULES):
            errors[:, column, place] = pruning_theory(rows, keep, angle, rule)
    return PhaseDiagram(rows, columns, float(angle), errors)


def crossing(keep: float, angle: float = 0.0, low: float = 0.5, high: float = 512.0) -> float:
    """The samples per dimension above which keeping the hardest beats keeping the easiest, to a percent.

    Args:
        keep: Share that is kept, in (0, 1).
        angle: Between probe and teacher, in radians.
        low: Where the search starts.
        high: Where it ends.

    Returns:
        The place; NaN where there is none between low and high.

    Raises:
        ModicumError: An argument is out of its range.

    Example:
        >>> 4 < crossing(0.5) < 8
        True
    """
    if not 0 < keep < 1:
        raise ModicumError(f"keep={keep!r}; expected a share in (0, 1)")

    def harder(alpha: float) -> bool:
        return pruning_theory(alpha, keep, angle, "hardest") < pruning_theory(alpha, keep, angle, "easiest")

    if harder(low) or not harder(high):
        return math.nan
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if harder(middle) else (middle, high)
    return math.sqrt(low * high)
