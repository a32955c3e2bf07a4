"""How many of a ranking can be kept so that a share of them is good, by a random part of them that was judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from modicum.arrays import NumPy, class_indices, real
from modicum.errors import DataError, ModicumError

__all__ = ["Cut", "clopper_pearson", "count_for_precision", "precision_at"]

CUTS = 10  # places of a ranking that are looked at


@dataclass(frozen=True)
class Cut:
    """A place in a ranking, and what is known about the samples before it.

    Args:
        count: How many samples stand before it.
        judged: How many of these were judged.
        good: How many of the judged ones are good.
        precision: Their share; NaN without any.
        low: Lower confidence bound of the share of good ones among all `count`.
        high: Upper bound.
        level: Confidence of the bounds.
    """

    count: int
    judged: int
    good: int
    precision: float
    low: float
    high: float
    level: float


def clopper_pearson(good: int, judged: int, level: float = 0.95, side: str = "both") -> tuple[float, float]:
    """The exact confidence interval of a share: those shares under which the count is not improbable.

    With side `lower` the bound L solves `P(Binomial(judged, L) >= good) = 1 - level`, which is the `1 - level` quantile of
    Beta(good, judged - good + 1); with `both` either end takes half of `1 - level`. It covers at least `level` for every
    share and every number; for samples drawn without replacement from few it is wider than need be.

    Args:
        good: Successes.
        judged: Trials.
        level: Confidence in (0, 1).
        side: `both`, `lower` or `upper`.

    Returns:
        Lower and upper bound; 0 and 1 where nothing is known.

    Raises:
        ModicumError: The counts or the level make no sense.

    Example:
        >>> [round(x, 4) for x in clopper_pearson(8, 10)]
        [0.4439, 0.9748]
        >>> round(clopper_pearson(29, 29, side="lower")[0], 4)
        0.9019

    Reference:
        Clopper and Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial, 1934,
        Biometrika 26.
    """
    from scipy.special import betaincinv

    if not 0 <= good <= judged:
        raise ModicumError(f"good={good} of judged={judged}; expected 0 <= good <= judged")
    if not 0 < level < 1:
        raise ModicumError(f"level={level}; expected a confidence in (0, 1)")
    if side not in ("both", "lower", "upper"):
        raise ModicumError(f"side={side!r}; expected 'both', 'lower' or 'upper'")
    alpha = (1 - level) / 2 if side == "both" else 1 - level
    low = 0.0 if good == 0 or side == "upper" else float(betaincinv(good, judged - good + 1, alpha))
    high = 1.0 if good == judged or side == "lower" else float(betaincinv(good + 1, judged - good, 1 - alpha))
    return low, high


def precision_at(count: int, scores: Any, at: Any, labels: Any, level: float = 0.95) -> Cut:
    """The share of good samples among those of the highest scores, by the judged ones among them.

    Args:
        count: How many of the highest scores; it must not have been chosen by these labels.
        scores: (n,) of all samples; of equal ones those that come first stand first.
        at: (m,) positions of the samples that were judged, drawn at random from all and not read by the scores.
        labels: (m,) 1 for good, 0 for bad.
        level: Confidence of the two-sided interval (see `clopper_pearson`).

    Returns:
        The cut.

    Raises:
        DataError: Shapes or positions do not fit.

    Example:
        >>> cut = precision_at(4, np.arange(8.0), np.array([7, 6, 0]), np.array([1, 1, 0]))
        >>> cut.judged, cut.good, cut.precision
        (2, 2, 1.0)
    """
    ranks, good = _ranked(scores, at, labels)
    if not 1 <= count <= len(real("scores", scores, (1,), "(n,)")):
        raise DataError(f"count={count}; expected an integer from 1 to the number of samples")
    inside = ranks < count
    m, g = int(inside.sum()), int(good[inside].sum())
    return Cut(count, m, g, g / m if m else float("nan"), *clopper_pearson(g, m, level), level)


def count_for_precision(
    scores: Any, at: Any, labels: Any, target: float, level: float = 0.95, cuts: int = CUTS
) -> Cut | None:
    """The largest number of the highest scores of which, with confidence `level`, a share `target` is good.

    The ranking is cut at the shares `1/cuts, 2/cuts, ..., 1`. Cuts before which so few samples were judged that even all
    good would not do with an equal part of `alpha = 1 - level` are left out, which looks at no label; the J others share
    alpha equally. From the
    smallest to the largest, the hypothesis that the precision before the cut is below the target is rejected when the
    lower Clopper-Pearson bound of confidence `1 - alpha_j` reaches it, and what it had is handed on to the next:
    `alpha_j = alpha / J + (alpha_(j-1) if rejected else 0)`. By this fallback procedure the probability that any rejected
    hypothesis is true, and so that the answer misses the target, is at most alpha, whichever cut is then taken.

    Args:
        scores: (n,) of all samples, higher is better; of equal ones those that come first stand first.
        at: (m,) positions of judged samples, drawn at random from all and not read by the scores: the promise stands on
            both.
        labels: (m,) 1 for good, 0 for bad.
        target: Share of good ones to reach, in (0, 1).
        level: Confidence of the promise.
        cuts: How many places are looked at.

    Returns:
        The largest cut that was shown to reach the target, with the bound that showed it; None where none was.

    Raises:
        DataError: Shapes or positions do not fit.
        ModicumError: Target or level out of range.

    Example:
        >>> scores = np.linspace(1, 0, 1000)
        >>> judged = np.arange(0, 1000, 5)
        >>> cut = count_for_precision(scores, judged, (judged < 500).astype(int), target=0.9)
        >>> cut.count, cut.judged, round(cut.low, 3)
        (500, 100, 0.961)

    Reference:
        Wiens and Dmitrienko, The fallback procedure for evaluating a single family of hypotheses, 2005, Journal of
        Biopharmaceutical Statistics 15; Angelopoulos et al., Learn then test: calibrating predictive algorithms to achieve
        risk control, 2021, arXiv 2110.01052.
    """
    ranks, good = _ranked(scores, at, labels)
    n = len(np.asarray(scores))
    if not 0 < target < 1:
        raise ModicumError(f"target={target}; expected a share of good samples in (0, 1)")
    if not 0 < level < 1:
        raise ModicumError(f"level={level}; expected a confidence in (0, 1)")
    if isinstance(cuts, bool) or cuts < 1:
        raise ModicumError(f"cuts={cuts!r}; expected an integer >= 1")
    places = sorted({max(1, round(n * i / cuts)) for i in range(1, cuts + 1)})
    within = {k: (int((ranks < k).sum()), int(good[ranks < k].sum())) for k in places}
    feasible = [k for k in places if _enough(within[k][0], target, 1 - level)]
    while feasible and not all(_enough(within[k][0], target, (1 - level) / len(feasible)) for k in feasible):
        feasible = [k for k in feasible if k != min(feasible)]  # the least have the fewest judged samples
    found, had = None, 0.0
    for k in feasible:
        m, g = within[k]
        alpha = (1 - level) / len(feasible) + had
        low = clopper_pearson(g, m, 1 - alpha, "lower")[0]
        had = alpha if low >= target else 0.0
        if low >= target:
            found = Cut(k, m, g, g / m, low, clopper_pearson(g, m, 1 - alpha, "upper")[1], 1 - alpha)
    return found


def _enough(judged: int, target: float, alpha: float) -> bool:
    """Whether so many judged samples, all good, would show the target."""
    return judged > 0 and alpha ** (1 / judged) >= target


def _ranked(scores: Any, at: Any, labels: Any) -> tuple[NumPy, NumPy]:
    """The place of each judged sample among all, the highest score first, and whether it is good."""
    values = real("scores", scores, (1,), "(n,)").astype(np.float64)
    positions = class_indices("at", at)
    if positions.max() >= len(values) or len(np.unique(positions)) < len(positions):
        raise DataError(f"at reaches {int(positions.max())}; expected different positions below {len(values)}")
    good = class_indices("labels", labels, len(positions))
    if good.max() > 1:
        raise DataError(f"labels has the entry {int(good.max())}; expected 1 for good and 0 for bad")
    place = np.empty(len(values), dtype=np.int64)
    place[np.argsort(-values, kind="stable")] = np.arange(len(values))
    return place[positions], good
