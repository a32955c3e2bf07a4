"""The theory of pruning, simulated: teachers, probes and max-margin students of a finite number of inputs."""

from __future__ import annotations

import math

import numpy as np
import torch

from modicum.arrays import NumPy, real
from modicum.context import generator
from modicum.errors import DataError, ModicumError
from modicum.selection.pruning_theory import RULES

__all__ = ["max_margin", "simulate_pruning"]


def max_margin(x: NumPy, y: NumPy) -> NumPy:
    """The homogeneous hard-margin machine: the shortest w with `y_i w.x_i >= 1` for all i.

    A least-distance problem, and so (Lawson, Hanson) one of non-negative least squares that ends after finitely many
    steps: with u >= 0 minimizing `|| [y x]^T u ||^2 + (1 - sum u)^2` and residual r, `w = r_x / -r_1`. Exact up to
    rounding. Time about that of factorizing the support vectors once each.

    Args:
        x: (n, d) finite numbers.
        y: (n,) labels, -1 or 1.

    Returns:
        (d,) weights; the margin is `1 / ||w||`.

    Raises:
        DataError: Shapes do not fit, labels are others, or no w separates the samples.

    Example:
        >>> max_margin(np.array([[2.0, 0.0], [-4.0, 0.0]]), np.array([1.0, -1.0])).round(6).tolist()
        [0.5, 0.0]

    Reference:
        Lawson, Hanson, Solving Least Squares Problems, 1974, chapter 23.
    """
    from scipy.optimize import nnls

    rows = real("x", x, (2,), "(n, d)").astype(np.float64)
    signs = real("y", y, (1,), "(n,)").astype(np.float64)
    if len(signs) != len(rows) or not np.isin(signs, (-1, 1)).all():
        raise DataError(f"y has shape {signs.shape}; expected ({len(rows)},) with labels -1 and 1")
    constraints = rows * signs[:, None]
    system = np.vstack([constraints.T, np.ones(len(rows))])
    goal = np.zeros(len(system))
    goal[-1] = 1
    used, distance = nnls(system, goal, maxiter=50 * max(system.shape))
    if distance < 1e-9:
        raise DataError(f"no w has y w.x > 0 for all {len(rows)} samples; a hard margin needs samples that separate")
    residual = system @ used - goal
    weights: NumPy = residual[:-1] / -residual[-1]
    return weights


def simulate_pruning(
    alpha_total: float,
    keep: float = 1.0,
    angle: float = 0.0,
    rule: str = "random",
    dimensions: int = 150,
    runs: int = 4,
    seed: int = 0,
) -> NumPy:
    """Test errors of students of the perceptron model, to hold the theory against.

    In each run a teacher and a probe at the angle, `round(alpha_total d)` Gaussian samples labeled by the teacher, the
    share `keep` of them with the least (`hardest`) or greatest (`easiest`) `|probe.x|` or a random one, and the student
    of greatest margin on those. With d = 150 keeping the hardest comes out 0.005 to 0.01 below the limit of many inputs.

    Args:
        alpha_total: Samples before pruning, per dimension, > 0.
        keep: Share that is kept, in (0, 1].
        angle: Between probe and teacher in radians, in [0, pi / 2].
        rule: `hardest`, `easiest` or `random`.
        dimensions: Inputs d >= 2.
        runs: Repetitions.
        seed: Of everything that is drawn.

    Returns:
        (runs,) errors `arccos(R) / pi`, exact for each student.

    Raises:
        ModicumError: An argument is out of its range.

    Example:
        >>> errors = simulate_pruning(4.0, dimensions=60)
        >>> errors.shape, bool(abs(errors.mean() - 0.114) < 0.03)
        ((4,), True)

    Reference:
        Sorscher, Geirhos, Shekhar, Ganguli, Morcos, Beyond neural scaling laws: beating power law scaling via data
        pruning, 2022, arXiv 2206.14486.
    """
    for name, right, value, expected in (
        ("alpha_total", 0 < alpha_total < math.inf, alpha_total, "a number > 0"),
        ("keep", 0 < keep <= 1, keep, "a share in (0, 1]"),
        ("angle", 0 <= angle <= math.pi / 2 + 1e-12, angle, "radians in [0, pi / 2]"),
        ("rule", rule in RULES, rule, "'hardest', 'easiest' or 'random'"),
        ("dimensions", isinstance(dimensions, int) and dimensions >= 2, dimensions, "an integer >= 2"),
        ("runs", isinstance(runs, int) and runs >= 1, runs, "an integer >= 1"),
    ):
        if not right:
            raise ModicumError(f"{name}={value!r}; expected {expected}")
    errors = np.empty(runs)
    for run in range(runs):
        draw = generator(seed, "simulate-pruning", run)
        x = torch.randn(
            max(1, round(alpha_total * dimensions)), dimensions, generator=draw, dtype=torch.float64
        ).numpy()
        # the law of x is the same in all directions, so the teacher may be the first axis
        y = np.where(x[:, 0] >= 0, 1.0, -1.0)
        score = np.abs(x[:, 0] * math.cos(angle) + x[:, 1] * math.sin(angle))
        order = {"hardest": np.argsort(score), "easiest": np.argsort(-score), "random": np.arange(len(x))}[RULES[rule]]
        kept = order[: max(1, round(keep * len(x)))]
        w = max_margin(x[kept], y[kept])
        errors[run] = math.atan2(float(np.linalg.norm(w[1:])), float(w[0])) / math.pi
    return errors
