"""The theory of pruning: what a perceptron learns from the hardest, the easiest or random samples of a teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, overload

import numpy as np

from modicum.arrays import NumPy
from modicum.errors import ModicumError
from modicum.selection.perceptron_averages import Averages, Nodes, averages, nodes

__all__ = ["RULES", "PerceptronSolution", "perceptron_solution", "pruning_theory"]

RULES = {"random": "random", "hardest": "hardest", "easiest": "easiest", "hard": "hardest", "easy": "easiest"}
EXACT = 1e-11  # of the conditions of the optimum, relative to the squared length of the student


@dataclass(frozen=True)
class PerceptronSolution:
    """The max-margin student of a teacher, trained on the kept samples.

    Args:
        error: Test error `arccos(R) / pi`, in [0, 1/2].
        overlap: `R`, the cosine between student and teacher.
        probe_overlap: `rho`, the cosine between student and probe.
        margin: `kappa`, the margin of a student of length one.
        support: Share of the kept samples that are support vectors; at most 1 / alpha.
    """

    error: float
    overlap: float
    probe_overlap: float
    margin: float
    support: float


def perceptron_solution(
    alpha_total: float, keep: float = 1.0, angle: float = 0.0, rule: str = "random"
) -> PerceptronSolution:
    """The student in the limit of many inputs, with all that the theory says about it.

    Inputs `x ~ N(0, I_N)` have the labels `y = sign(T.x)` of a teacher. A probe at an angle to the teacher gives every
    sample the score `|probe.x|`, small for hard ones, and a share `keep` of `alpha_total N` samples is kept:
    `alpha = keep alpha_total`. The student has the largest margin `kappa` on those. With `u = |T.x|`, `w = y e.x` for the
    unit vector e orthogonal to T in the plane of the probe, and a student with parts a, b along T, e and `c` across it, it
    minimizes `p^2 + q^2 + r^2`, where `(p, q, r) = (a, b, c) / kappa`, under

        alpha E[ (m^2 + r^2) Phi(m / r) + m r phi(m / r) ] <= r^2,    m = 1 - p u - q w

    over the kept samples; `R = p / sqrt(p^2 + q^2 + r^2)`. This is convex, and at angle 0 the same as the two equations
    of the paper.

    Args:
        alpha_total: Samples before pruning, per input dimension, in (0, 1000].
        keep: Share that is kept, in (0, 1].
        angle: Between probe and teacher in radians, in [0, pi / 2].
        rule: `hardest`, `easiest` (`hard` and `easy` for short) or `random`.

    Raises:
        ModicumError: An argument is out of its range.

    Example:
        >>> found = perceptron_solution(4.0)
        >>> round(found.error, 4), round(found.support, 4)
        (0.1137, 0.2338)

    Reference:
        Sorscher, Geirhos, Shekhar, Ganguli, Morcos, Beyond neural scaling laws: beating power law scaling via data
        pruning, 2022, arXiv 2206.14486; Thrampoulidis, Oymak, Hassibi, The Gaussian min-max theorem in the presence of
        convexity, 2014, arXiv 1408.4837.
    """
    for name, value in (("alpha_total", alpha_total), ("keep", keep), ("angle", angle)):
        try:
            float(value)
        except (TypeError, ValueError):
            raise ModicumError(f"{name}={value!r} is a {type(value).__name__}; expected a number") from None
    chosen = _checked(float(alpha_total), float(keep), float(angle), rule)
    return _solution(float(alpha_total), float(keep), float(angle), chosen)


@overload
def pruning_theory(alpha_total: float, keep: float = ..., angle: float = ..., rule: str = ...) -> float: ...
@overload
def pruning_theory(alpha_total: NumPy, keep: float = ..., angle: float = ..., rule: str = ...) -> NumPy: ...
def pruning_theory(alpha_total: Any, keep: float = 1.0, angle: float = 0.0, rule: str = "random") -> Any:
    """The test error of a perceptron trained on what a pruning rule keeps.

    `arccos(R) / pi` of `perceptron_solution`: keeping the hardest wins where samples are plentiful, keeping the easiest
    where they are scarce, and at an angle of 0 and half of the samples the two cross between 4 and 8 samples a dimension.

    Args:
        alpha_total: Samples before pruning, per input dimension, in (0, 1000]; or an array of such numbers.
        keep: Share that is kept, in (0, 1].
        angle: Between the probe that scores and the teacher, in radians, in [0, pi / 2].
        rule: `hardest`, `easiest` (`hard` and `easy` for short) or `random`.

    Returns:
        The error in [0, 1/2], an array for an array.

    Raises:
        ModicumError: An argument is out of its range.

    Example:
        >>> [round(pruning_theory(8.0, 0.5, 0.0, rule), 3) for rule in ("random", "hardest", "easiest")]
        [0.114, 0.061, 0.068]
        >>> pruning_theory(np.array([1.0, 4.0])).round(3).tolist()
        [0.266, 0.114]

    Reference:
        Sorscher, Geirhos, Shekhar, Ganguli, Morcos, Beyond neural scaling laws: beating power law scaling via data
        pruning, 2022, arXiv 2206.14486.
    """
    if isinstance(alpha_total, np.ndarray):
        found = [perceptron_solution(float(a), keep, angle, rule).error for a in alpha_total.ravel()]
        return np.array(found).reshape(alpha_total.shape)
    return perceptron_solution(alpha_total, keep, angle, rule).error


def _checked(alpha_total: float, keep: float, angle: float, rule: str) -> str:
    if not 0 < alpha_total <= 1000:
        raise ModicumError(f"alpha_total={alpha_total!r}; expected samples per dimension in (0, 1000]")
    if not 0 < keep <= 1:
        raise ModicumError(f"keep={keep!r}; expected a share in (0, 1]")
    if not 0 <= angle <= math.pi / 2 + 1e-12:
        raise ModicumError(f"angle={angle!r}; expected radians in [0, pi / 2]: 20 degrees are math.radians(20)")
    if not isinstance(rule, str) or rule not in RULES:
        raise ModicumError(f"rule={rule!r}; expected 'hardest', 'easiest' or 'random'")
    return RULES[rule]


@lru_cache(maxsize=20_000)
def _solution(alpha_total: float, keep: float, angle: float, rule: str) -> PerceptronSolution:
    alpha = keep * alpha_total
    if rule == "random" or keep == 1:
        keep, angle_used, rule = 1.0, 0.0, "random"
    else:
        angle_used = angle if angle > 1e-6 else 0.0
    where = nodes(keep, angle_used, rule)
    point = _optimum(alpha, where)
    parts = averages(where, point)
    p, q, r = point
    length = float(np.sqrt(p * p + q * q + r * r))
    # of an arc cosine near 1 the sine is exact where the cosine is not
    error = float(np.arctan2(np.hypot(q, r), p)) / math.pi
    rho = float(p * math.cos(angle) + q * math.sin(angle)) / length
    return PerceptronSolution(error, float(p) / length, rho, 1 / length, parts.support)


def _optimum(alpha: float, where: Nodes) -> NumPy:
    """Minimize p^2 + q^2 + r^2 - mu log(-psi) for falling mu, with psi = sqrt(alpha S) - r, which is convex, until Newton's
    method on the conditions of the optimum arrives from there."""
    point = np.array([1.0, 0.0, 1.0])
    while _psi(alpha, averages(where, point), point) >= 0:
        point[0] *= 2
        point[2] *= 1.2
    mu = 0.1 * float(point @ point)
    while mu > 1e-7 * float(point @ point):
        for _ in range(50):
            parts = averages(where, point)
            psi, slope, bend = _psi_and_slopes(alpha, parts, point)
            gradient = 2 * point - mu * slope / psi
            hessian = 2 * np.eye(3) - mu * bend / psi + mu * np.outer(slope, slope) / psi**2
            step = -_solved(hessian, gradient, where.flat)
            fall = float(gradient @ step)
            if -fall < 0.1 * mu:
                break
            size, value = 1.0, float(point @ point) - mu * math.log(-psi)
            for _ in range(60):
                trial = point + size * step
                if trial[2] > 0:
                    there = _psi(alpha, averages(where, trial), trial)
                    if there < 0 and float(trial @ trial) - mu * math.log(-there) <= value + 0.1 * size * fall:
                        break
                size /= 2
            point = trial
        point, arrived = _polished(alpha, where, point)
        if arrived:
            break
        mu /= 100
    return point


def _polished(alpha: float, where: Nodes, start: NumPy) -> tuple[NumPy, bool]:
    """Newton's method on the conditions of the optimum: its gradient is along that of alpha S - r^2, which is 0.

    They hold at one place only, as the problem is convex; where it does not get there, the start is given back.
    """
    point = start
    parts = averages(where, point)
    multiplier = 1 / max(1e-12, 1 - alpha * parts.support)
    first = math.inf
    for turn in range(14):
        slope, bend = alpha * parts.slope, alpha * parts.bend
        slope[2] -= 2 * point[2]
        bend[2, 2] -= 2
        gap = alpha * parts.value - point[2] ** 2
        residual = np.append(2 * point + multiplier * slope, gap)
        off, scale = float(np.abs(residual).max()), max(1.0, float(point @ point))
        if off < EXACT * scale and multiplier > 0:
            return point, True
        first = min(first, off)
        if off > 1e3 * first or (turn == 5 and off > 0.1 * first):
            break
        matrix = np.zeros((4, 4))
        matrix[:3, :3] = 2 * np.eye(3) + multiplier * bend
        matrix[:3, 3] = matrix[3, :3] = slope
        step = -_solved(matrix, residual, where.flat)
        size = min(1.0, 0.5 * point[2] / -step[2]) if step[2] < 0 else 1.0
        point, multiplier = point + size * step[:3], multiplier + size * step[3]
        parts = averages(where, point)
    return start, False


def _psi(alpha: float, parts: Averages, point: NumPy) -> float:
    return math.sqrt(alpha * parts.value) - float(point[2])


def _psi_and_slopes(alpha: float, parts: Averages, point: NumPy) -> tuple[float, NumPy, NumPy]:
    root = math.sqrt(parts.value)
    slope = math.sqrt(alpha) * parts.slope / (2 * root)
    bend = math.sqrt(alpha) * (parts.bend / (2 * root) - np.outer(parts.slope, parts.slope) / (4 * root**3))
    slope[2] -= 1
    return math.sqrt(alpha) * root - float(point[2]), slope, bend


def _solved(matrix: NumPy, right: NumPy, flat: bool) -> NumPy:
    """Where the probe is the teacher, nothing depends on q, which stays 0."""
    if not flat:
        return np.linalg.solve(matrix, right)
    rest = [i for i in range(len(right)) if i != 1]
    found = np.zeros(len(right))
    found[rest] = np.linalg.solve(matrix[np.ix_(rest, rest)], right[rest])
    return found
