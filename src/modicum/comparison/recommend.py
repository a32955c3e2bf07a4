"""From a frontier to one honest sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from modicum.comparison.frontier import Recommendation, Row

__all__ = ["Gap", "gap", "recommend"]


@dataclass(frozen=True)
class Gap:
    """How much better one row is than another, and how sure that is.

    Args:
        mean: Mean difference of their scores.
        error: Its standard error; infinite where one seed leaves it unknown.
        freedom: Degrees of freedom of the error.
    """

    mean: float
    error: float
    freedom: float

    @property
    def lower(self) -> float:
        """One-sided 95 % lower confidence bound."""
        return self.mean - self._quantile(0.95) * self.error if np.isfinite(self.error) else -np.inf

    @property
    def interval(self) -> tuple[float, float]:
        """Two-sided 95 % confidence interval."""
        half = self._quantile(0.975) * self.error if np.isfinite(self.error) else np.inf
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float:
        """Two-sided p-value of no difference; NaN where the error is unknown."""
        from scipy.stats import t

        if not np.isfinite(self.error):
            return float("nan")
        if self.error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return float(2 * t.sf(abs(self.mean) / self.error, self.freedom))

    def _quantile(self, q: float) -> float:
        from scipy.stats import t

        return float(t.ppf(q, self.freedom))


def gap(ours: Row, theirs: Row | float, split: Literal["valid", "test"] = "valid") -> Gap:
    """The difference of two rows, paired by seed and by sample.

    With d_si the difference for seed s and sample i (right is 1, wrong is 0), the mean over n seeds and m samples has the
    squared standard error `var_s(mean_i d) / n + var_i(mean_s d) / m`: other seeds and other samples would both have
    given other numbers. The deviation over seeds is taken as at least 1 / m, the step in which an accuracy moves. The
    degrees of freedom are Welch's and Satterthwaite's. Of R² only the seeds are known.

    Args:
        ours: One row.
        theirs: Another, of which the common seeds are taken; or a number to compare with.
        split: On which scores.

    Example:
        >>> from modicum.comparison.frontier import Point, pack_bits, summarize
        >>> from modicum.ledger import Ledger
        >>> def row(method, scores):
        ...     return summarize([Point(method, "10%", s, 0.1, 9, x, x, Ledger()) for s, x in enumerate(scores)])[0]
        >>> found = gap(row("a", [0.5, 0.7, 0.9]), row("b", [0.4, 0.7, 0.8]))
        >>> round(found.mean, 4), round(found.lower, 4)
        (0.0667, -0.0307)
    """
    common = [s for s in ours.seeds if isinstance(theirs, (int, float)) or s in theirs.seeds]
    mine = [ours.seeds.index(s) for s in common]
    scores, right = np.array(getattr(ours, split))[mine], getattr(ours, f"{split}_right")[mine].astype(float)
    if isinstance(theirs, Row):
        yours = [theirs.seeds.index(s) for s in common]
        scores = scores - np.array(getattr(theirs, split))[yours]
        right = right - getattr(theirs, f"{split}_right")[yours]
    else:
        scores = scores - theirs
    n, m = len(common), right.shape[1]
    if n < 2:
        return Gap(float(scores.mean()) if n else float("nan"), float("inf"), 1.0)
    of_seeds = max(float(scores.var(ddof=1)), 1 / m**2 if m else 0.0) / n
    of_samples = float(right.mean(0).var(ddof=1)) / m if m > 1 else 0.0
    whole = of_seeds + of_samples
    share = of_seeds / whole if whole > 0 else 1.0
    freedom = 1 / (share**2 / (n - 1) + (1 - share) ** 2 / max(1, m - 1))
    return Gap(float(scores.mean()), float(np.sqrt(whole)), freedom)


def recommend(
    rows: Sequence[Row], metric: str = "accuracy", margin: float = 0.005, target: float | None = None
) -> Recommendation:
    """The cheapest row that reaches the target on the validation split, if nothing simpler does as well.

    A row reaches the target *surely* when the one-sided 95 % lower bound of its `gap` to the full runs is at least
    `-margin` (of its score: at least `target`), and *likely* when the mean is. The cheapest row that surely reaches it is
    taken, or else the cheapest that likely does. The cost is the FLOPs of choosing and training together. The controls
    take part, and a method has to be surely better than every control that costs no more: else the best of those is
    recommended, for a user would get as much without it.

    Args:
        rows: With one for `full`.
        metric: `accuracy` or `R²`.
        margin: How far below the full runs is still good enough.
        target: A score to reach, instead.

    Returns:
        The recommendation, with the numbers of the test split.
    """
    full = next((row for row in rows if row.method == "full"), None)
    if full is None:
        return Recommendation("Nothing can be said yet: the full run is missing.", "", "none", None, float("nan"))
    goal = float(np.mean(full.valid)) - margin if target is None else target
    asked = f"the target of {_score(goal, metric)} on the validation split" + (
        f" (full data less {_points(margin, metric)})" if target is None else ""
    )
    if len(full.seeds) < 2:
        sentence = "One seed cannot show that anything is as good as the full data: run at least two."
        return Recommendation(sentence, f"Needed: {asked}.", "none", None, goal)
    others = sorted((row for row in rows if row is not full), key=lambda row: row.cost)
    gaps = {row.name: gap(row, full if target is None else target) for row in others}
    slack = margin if target is None else 0.0
    sure = frozenset(row.name for row in others if gaps[row.name].lower >= -slack)
    likely = [row for row in others if row.cost < 1 and gaps[row.name].mean >= -slack]
    reached = [row for row in likely if row.name in sure] or likely
    if not reached:
        sentence = "Keep training on the full data: at these budgets nothing cheaper reaches the target."
        return Recommendation(sentence, _nearest(others, goal, metric, asked), "none", None, goal, sure)
    best, passed = reached[0], None
    if not best.control:
        equals = [c for c in others if c.control and c.cost <= best.cost and gap(best, c).lower <= 0]
        if equals:
            best, passed = max(equals, key=lambda c: (float(np.mean(c.valid)), -c.cost)), best
    certainty = _certainty(best, gaps[best.name], best.name in sure, full, metric, asked)
    result = _result(best, full, metric)
    if best.control:
        methods = [row for row in reached if not row.control]
        if passed is not None:
            rest = f"{_upper(passed.name)}, at {_percent(passed.cost)} with choosing paid for, is not surely better."
        elif methods:
            cost = _percent(methods[0].cost)
            rest = f"The cheapest method that does, {methods[0].name}, costs {cost} with choosing paid for."
        else:
            rest = "No method that selects, distils or skips does so for less than full training."
        verb = "beats" if best.name in sure else "surely beats"
        return Recommendation(
            f"Nothing {verb} {_plain(best)} here: {result}.", f"{certainty} {rest}", "control", best, goal, sure
        )
    share = best.choose["flops"] / max(1.0, best.choose["flops"] + best.train["flops"])
    rival = next((row for row in reached if row.control), None)
    against = (
        f"The cheapest control that does, {rival.name}, costs {_percent(rival.cost)}: the saving over it is "
        f"{_percent(1 - best.cost / rival.cost)}."
        if rival
        else "No control but the full data does."
    )
    verb = "Use" if best.name in sure else "Probably use"
    sentence = f"{verb} {best.name}: {result}, choosing included."
    return Recommendation(
        sentence, f"{certainty} Choosing is {_percent(share)} of its cost. {against}", "method", best, goal, sure
    )


def _result(row: Row, full: Row, metric: str) -> str:
    found = gap(row, full, "test")
    low, high = found.interval
    return (
        f"{_score(float(np.mean(row.test)), metric)} on the test split, {_signed(found.mean, metric)} against full data "
        f"(95 % interval {_signed(low, metric)} to {_signed(high, metric)}), for {_percent(row.cost)} of its FLOPs"
    )


def _certainty(row: Row, found: Gap, sure: bool, full: Row, metric: str, asked: str) -> str:
    if sure:
        return f"It is the cheapest that surely reaches {asked}."
    samples = f" and {full.valid_right.shape[1]} validation samples" if full.valid_right.shape[1] else ""
    there = _score(float(np.mean(row.valid)), metric)
    return (
        f"With {there} it likely reaches {asked}; {len(full.seeds)} seeds{samples} cannot make sure of it "
        f"(it may be {_points(found.mean - found.lower, metric)} lower)."
    )


def _nearest(others: Sequence[Row], goal: float, metric: str, asked: str) -> str:
    cheaper = [row for row in others if row.cost < 1]
    if not cheaper:
        return f"Needed: {asked}; nothing cheaper was tried."
    best = max(cheaper, key=lambda row: float(np.mean(row.valid)))
    return (
        f"Needed: {asked}. The nearest is {best.name} with {_score(float(np.mean(best.valid)), metric)} there; "
        f"it costs {_percent(best.cost)} of full training."
    )


def _plain(row: Row) -> str:
    amount = row.budget if row.budget.endswith("%") else f"a budget of {row.budget}"
    return {
        "short": f"a schedule shortened to {amount}",
        "random": f"a random subset of {amount}",
        "stratified": f"a stratified random subset of {amount}",
    }.get(row.method, row.name)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _score(value: float, metric: str) -> str:
    return f"{100 * value:.1f} %" if metric == "accuracy" else f"R² {value:.3f}"


def _points(value: float, metric: str) -> str:
    return f"{100 * value:.1f} points" if metric == "accuracy" else f"{value:.3f}"


def _signed(value: float, metric: str) -> str:
    text = f"{100 * value:+.1f} points" if metric == "accuracy" else f"{value:+.3f}"
    return text.replace("-", "\N{MINUS SIGN}")
