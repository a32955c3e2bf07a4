"""Averages over the samples that a pruning rule keeps of a teacher's, by Gauss-Legendre quadrature on graded panels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from modicum.arrays import NumPy

__all__ = ["Averages", "Nodes", "averages", "nodes"]

FAR = 8.0  # standard deviations, beyond which nothing counts
ORDER, ORDER_IN_PLANE = 8, 6  # nodes a panel
LINE = (*(2.0**power for power in range(-16, -1)), 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, FAR)
PLANE = (*(2.0**power for power in range(-11, -1)), 0.5, 1.0, 1.75, 2.5, 3.5, 5.0, FAR)
ACROSS = (0.0, *(2.0**power for power in range(-11, -2)), 0.35, 0.45, 0.55, 0.7, 1.0)  # of the way from u = 0


@dataclass(frozen=True, eq=False)
class Nodes:
    """Places and weights.

    Args:
        u: (k,) fields of the teacher, with the sign of the label: positive.
        w: (k,) fields across the teacher in the plane of the probe, with the sign of the label.
        weights: (k,) that sum to 1.
        flat: Whether the probe is the teacher, so that w does not matter.
    """

    u: NumPy
    w: NumPy
    weights: NumPy
    flat: bool


@dataclass(frozen=True, eq=False)
class Averages:
    """Of `(m^2 + r^2) Phi(m / r) + m r phi(m / r)`, the mean of `(m - r g)_+^2` over g, for `m = 1 - p u - q w`.

    Args:
        value: The average.
        slope: (3,) its derivatives by p, q, r.
        bend: (3, 3) its second derivatives.
        support: The average of Phi(m / r).
    """

    value: float
    slope: NumPy
    bend: NumPy
    support: float


def averages(where: Nodes, point: NumPy) -> Averages:
    """The averages at (p, q, r)."""
    from scipy.special import ndtr

    p, q, r = (float(x) for x in point)
    m = 1 - p * where.u - (0.0 if where.flat else q * where.w)
    x = m / r
    below = ndtr(x)
    density = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    mass, bell = where.weights * below, where.weights * density
    first = m * mass + r * bell
    support, value = float(mass.sum()), float(m @ first + r * r * mass.sum())
    columns = np.stack([where.u, where.w])
    slope = np.array([*(-2 * columns @ first), 2 * r * support])
    bend = np.empty((3, 3))
    bend[:2, :2] = 2 * (columns * mass) @ columns.T
    bend[2, :2] = bend[:2, 2] = -2 * columns @ bell
    bend[2, 2] = 2 * support - 2 * float(x @ bell)
    return Averages(value, slope, bend, support)


@lru_cache(maxsize=64)
def nodes(keep: float, angle: float, rule: str) -> Nodes:
    """Where the kept samples are.

    With probe field z and s across it, `u = z cos - s sin` and `w = z sin + s cos`. The rule bounds |z|; the label is
    given by u > 0, that is `s < z / tan`. At angle 0, z is u, and w is not needed.
    """
    from scipy.special import ndtri

    low, high = 0.0, FAR
    if rule == "hardest" and keep < 1:
        high = float(ndtri((1 + keep) / 2))
    elif rule == "easiest" and keep < 1:
        low = -float(ndtri(keep / 2))
    if angle == 0:
        z, weight = _panels(LINE, low, high, ORDER)
        return Nodes(z, np.zeros_like(z), 2 * weight * _bell(z) / keep, True)
    z, weight = _panels(PLANE, low, high, ORDER_IN_PLANE)
    z, weight = np.concatenate([z, -z]), np.concatenate([weight, weight])
    end = np.minimum(z / math.tan(angle), FAR)
    share, part = _panels(ACROSS, 0.0, 1.0, ORDER_IN_PLANE)
    reach = np.maximum(end + FAR, 0.0)
    s = end[:, None] - share * reach[:, None]
    weights = 2 / keep * (weight * _bell(z) * reach)[:, None] * part * _bell(s)
    counts = weights > 1e-18
    where = np.broadcast_to(z[:, None], s.shape)[counts], s[counts]
    u = np.maximum(where[0] * math.cos(angle) - where[1] * math.sin(angle), 0.0)
    return Nodes(u, where[0] * math.sin(angle) + where[1] * math.cos(angle), weights[counts], False)


def _panels(breaks: tuple[float, ...], low: float, high: float, order: int) -> tuple[NumPy, NumPy]:
    """Gauss-Legendre nodes and weights on the panels between low and high."""
    graded = () if low == 0 else (low + b for b in breaks if b < 0.25)  # the least margins of the easiest are there
    edges = np.array([low, *sorted(b for b in {*breaks, *graded} if low < b < high), high])
    x, weight = np.polynomial.legendre.leggauss(order)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + x)).ravel(), (half * weight).ravel()


def _bell(x: NumPy) -> NumPy:
    density: NumPy = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return density
