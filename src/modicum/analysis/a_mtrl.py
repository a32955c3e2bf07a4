"""Which sources matter for a target, and how many samples to take of each: active multi-task representation learning."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, NamedTuple

import numpy as np

from modicum.arrays import NumPy, class_indices, real
from modicum.data.parting import apportion
from modicum.errors import BudgetError, DataError, ModicumError

__all__ = ["STRATEGIES", "Relevance", "allocate_samples", "source_relevance", "spread_risk"]

STRATEGIES = ("l1", "l2", "uniform")
PENALTY = 1e-3  # of ||W'w||_inf, where the target is no combination of the sources
SPANNED = 1e-8  # of ||w||, the residual below which it is one


class Relevance(NamedTuple):
    """How the head of a target is made of those of the sources.

    Args:
        values: (M,) nu, with sign; |nu_m| says how much source m matters.
        residual: ||W nu - w|| / ||w||, the share of the target that the sources do not explain.
        penalty: lambda of the lasso; 0 where nu solves W nu = w exactly or by least squares.
    """

    values: NumPy
    residual: float
    penalty: float


def source_relevance(heads: Any, target: Any, norm: Literal[1, 2] = 1, penalty: float | None = None) -> Relevance:
    """The combination of source heads that makes the head of the target: `min ||nu||_q subject to W nu = w`.

    With q = 1 a linear program, whose solution has at most k entries that are not zero: it opens few sources. With
    q = 2 the pseudo-inverse `W^+ w`. With a penalty, or for q = 1 where w is outside the span of W, the lasso
    `min 1/2 ||W nu - w||^2 + lambda ||nu||_1`, which tends to the linear program (and not to the pseudo-inverse) as
    lambda goes to 0.

    Args:
        heads: W (k, M), a column for each source task, on one representation and with one regularization: their lengths
            count.
        target: w (k,) the head of the target task.
        norm: q, 1 or 2.
        penalty: lambda > 0 of the lasso; None for exact equality where there is one, and else 1e-3 ||W'w||_inf.

    Returns:
        nu, what is left unexplained, and the penalty that was used.

    Raises:
        DataError: Another shape, NaN, or a target head that is all zero.
        ModicumError: An unknown norm, a penalty that is not positive, or one with norm 2.

    Example:
        >>> heads = np.array([[1.0, 0.0, 0.6], [0.0, 1.0, 0.8]])
        >>> [source_relevance(heads, np.array([0.6, 0.8]), q).values.round(3).tolist() for q in (1, 2)]
        [[0.0, 0.0, 1.0], [0.3, 0.4, 0.5]]

    Reference:
        Wang et al., Improved Active Multi-Task Representation Learning via Lasso, 2023, arXiv 2306.02556.
    """
    w = real("heads", heads, (2,), "(k, M), a column for each source").astype(np.float64)
    t = real("target", target, (1,), "(k,)").astype(np.float64)
    if len(t) != len(w):
        raise DataError(f"target has {len(t)} entries; expected {len(w)}, one for each row of heads")
    if not t.any():
        raise DataError("target is all zero, so every source is equally irrelevant; train its head on more samples")
    if norm not in (1, 2):
        raise ModicumError(f"norm={norm!r}; expected 1 or 2")
    if penalty is not None and (norm == 2 or not 0 < penalty < math.inf):
        raise ModicumError(f"penalty={penalty!r} with norm={norm}; expected a number > 0, with norm 1 only")
    least = np.linalg.lstsq(w, t, rcond=None)[0]
    outside = float(np.linalg.norm(w @ least - t) / np.linalg.norm(t))
    if norm == 2:
        return Relevance(least, outside, 0.0)
    if penalty is None and outside <= SPANNED:
        exact = _program(w, t)
        if exact is not None:
            return Relevance(exact, float(np.linalg.norm(w @ exact - t) / np.linalg.norm(t)), 0.0)
    used = PENALTY * float(np.abs(w.T @ t).max()) if penalty is None else penalty
    values = _lasso(w, t, used) if used else np.zeros(w.shape[1])
    return Relevance(values, float(np.linalg.norm(w @ values - t) / np.linalg.norm(t)), used)


def spread_risk(relevance: Any, counts: Any) -> float:
    """What the allocation of samples leaves of the bound on the target's excess risk: `sum_m nu_m^2 / n_m`.

    The bound is sigma^2 (k d + k M) times this, for any nu with W nu = w. Over allocations of N samples it is least at
    n_m proportional to |nu_m|, where it is ||nu||_1^2 / N.

    Args:
        relevance: (M,) nu.
        counts: (M,) n_m samples of each source, at least 0.

    Returns:
        The sum; infinite where a source that matters has no samples.

    Raises:
        DataError: Another shape, or a negative count.

    Example:
        >>> spread_risk(np.array([0.3, 0.4, 0.5]), np.array([40.0, 40.0, 40.0]))
        0.0125

    Reference:
        Wang et al., Improved Active Multi-Task Representation Learning via Lasso, 2023, arXiv 2306.02556.
    """
    nu = real("relevance", relevance, (1,), "(M,)").astype(np.float64)
    n = real("counts", counts, (1,), "(M,)").astype(np.float64)
    if len(n) != len(nu) or (n < 0).any():
        raise DataError(f"counts are {n.tolist()}; expected {len(nu)} numbers >= 0, one for each entry of relevance")
    used = nu != 0
    with np.errstate(divide="ignore"):
        return float((nu[used] ** 2 / n[used]).sum())


def allocate_samples(
    relevance: Any,
    budget: int,
    minimum: int = 0,
    strategy: Literal["l1", "l2", "uniform"] = "l1",
    sizes: Any = None,
) -> NumPy:
    """How many samples of each source: `n_m = max(beta a_m, n_min)` with beta such that they add up to the budget.

    a_m is |nu_m| (`l1`, the best allocation for the bound `spread_risk`), nu_m^2 (`l2`) or 1 (`uniform`). Where sizes are
    given, n_m is at most the size and the rest goes to the others. Fractions are rounded by the largest remainder.

    Args:
        relevance: (M,) nu of `source_relevance`, or any numbers that say how much sources matter.
        budget: N samples in all.
        minimum: n_min of every source (no more than it has), so that none is lost to a wrong estimate.
        strategy: `l1`, `l2` or `uniform`.
        sizes: (M,) samples that each source has; as many as wanted when None.

    Returns:
        (M,) int64 counts that add up to the budget.

    Raises:
        DataError: Another shape, or NaN.
        BudgetError: The budget is below M times the minimum, or above what there is.
        ModicumError: An unknown strategy.

    Example:
        >>> allocate_samples(np.array([0.3, -0.4, 0.5]), 120).tolist()
        [30, 40, 50]

    Reference:
        Wang et al., Improved Active Multi-Task Representation Learning via Lasso, 2023, arXiv 2306.02556.
    """
    nu = np.abs(real("relevance", relevance, (1,), "(M,)").astype(np.float64))
    if strategy not in STRATEGIES:
        raise ModicumError(f"strategy={strategy!r}; expected {', '.join(map(repr, STRATEGIES))}")
    if budget != int(budget) or budget < 1 or minimum != int(minimum) or minimum < 0:
        raise BudgetError(f"budget={budget} and minimum={minimum}; expected whole numbers of samples, >= 1 and >= 0")
    budget, minimum = int(budget), int(minimum)
    most = np.full(len(nu), budget) if sizes is None else class_indices("sizes", sizes, len(nu))
    least = np.minimum(minimum, most)
    if budget < max(1, int(least.sum())) or budget > int(most.sum()):
        raise BudgetError(
            f"budget={budget} samples of {len(nu)} sources; expected {max(1, int(least.sum()))} (minimum={minimum} of "
            f"each) to {int(most.sum())} (what there is)"
        )
    shares = {"l1": nu, "l2": nu**2, "uniform": np.ones_like(nu)}[strategy]
    shares = shares if shares.any() else np.ones_like(shares)
    shares = np.maximum(shares / shares.max(), 1e-12)  # whatever matters nothing fills up what is left in the end

    def counts(beta: float) -> NumPy:
        clipped: NumPy = np.clip(beta * shares, least, most)
        return clipped

    low, high = 0.0, 1.0
    while counts(high).sum() < budget:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if counts(middle).sum() < budget else (low, middle)
    wanted = np.minimum(counts(high), most)
    extra = apportion(np.maximum(wanted - least, 0), int(budget - least.sum()), most - least)
    return least + extra


def _program(w: NumPy, t: NumPy) -> NumPy | None:
    """A vertex of the linear program; None where rounding makes it infeasible."""
    from scipy.optimize import linprog

    m, scale = w.shape[1], np.linalg.norm(t)
    found = linprog(
        np.ones(2 * m), A_eq=np.hstack([w, -w]) / scale, b_eq=t / scale, bounds=(0, None), method="highs-ds"
    )
    return None if not found.success else found.x[:m] - found.x[m:] + 0.0  # no -0


def _lasso(w: NumPy, t: NumPy, penalty: float) -> NumPy:
    """By the path of solutions from a large penalty down, exact; by coordinates where equal columns break the path."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import Lasso, lars_path

    k, scale, size = len(w), float(np.abs(w).max()) or 1.0, float(np.linalg.norm(t))
    a, b, alpha = w / scale, t / size, penalty / (scale * size)  # the solvers' tolerances are absolute
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        values = lars_path(a, b, method="lasso", alpha_min=alpha / k, max_iter=10 * sum(a.shape))[2][:, -1]
        pull = a.T @ (b - a @ values)
        off = np.abs(pull - alpha * np.sign(values))[values != 0].max(initial=0.0)
        if off > 1e-6 or np.abs(pull).max() > alpha + 1e-6:
            values = Lasso(alpha=alpha / k, fit_intercept=False, max_iter=200_000, tol=1e-10).fit(a, b).coef_
    found: NumPy = values * (size / scale)
    return found
