"""From a frontier to one honest sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modicum.comparison.frontier import Recommendation, Row, lower_bound

__all__ = ["difference", "lower_bound", "recommend"]


def difference(ours: Row, theirs: Row) -> tuple[float, float, float, float]:
    """Mean difference of test scores over the common seeds, paired, with a 95 % interval and a p-value.

    Args:
        ours: One row.
        theirs: Another; the seeds of both are matched.

    Returns:
        The mean difference, both ends of the interval and the two-sided p-value; NaN where one common seed leaves them
        unknown.
    """
    from scipy.stats import t

    common = [s for s in ours.seeds if s in theirs.seeds]
    gaps = np.array([ours.test[ours.seeds.index(s)] - theirs.test[theirs.seeds.index(s)] for s in common])
    mean, n = float(gaps.mean()) if len(gaps) else float("nan"), len(gaps)
    if n < 2:
        return mean, float("nan"), float("nan"), float("nan")
    error = float(gaps.std(ddof=1) / np.sqrt(n))
    half = float(t.ppf(0.975, n - 1)) * error
    p = 1.0 if error == 0 and mean == 0 else 0.0 if error == 0 else float(2 * t.sf(abs(mean) / error, n - 1))
    return mean, mean - half, mean + half, p


def recommend(
    rows: Sequence[Row], metric: str = "accuracy", margin: float = 0.005, target: float | None = None
) -> Recommendation:
    """The cheapest row whose lower confidence bound on the validation split reaches the target.

    The cost is the FLOPs of choosing and training together, and the controls take part, so a method is recommended
    only when it is cheaper than everything that a user would do instead.

    Args:
        rows: With one for `full`.
        metric: `accuracy` or `R²`.
        margin: How far below the mean of the full runs the target is.
        target: The target itself, instead.

    Returns:
        The recommendation, with the numbers of the test split.
    """
    full = next((row for row in rows if row.method == "full"), None)
    if full is None:
        return Recommendation("Nothing can be said yet: the full run is missing.", "", "none", None, float("nan"))
    goal = float(np.mean(full.valid)) - margin if target is None else target
    reached = sorted((r for r in rows if r is not full and r.bound >= goal), key=lambda r: r.cost)
    cheaper = [r for r in reached if r.cost < 1]
    best_control = next((r for r in reached if r.control), None)
    asked = f"the target of {_score(goal, metric)} on the validation split" + (
        f" (full data less {_points(margin, metric)})" if target is None else ""
    )
    if len(full.seeds) < 2:
        sentence = "One seed cannot show that anything is as good as the full data: run at least two."
        return Recommendation(sentence, f"Needed: {asked}.", "none", None, goal)
    if not cheaper:
        sentence = "Keep training on the full data: at these budgets nothing cheaper surely reaches the target."
        return Recommendation(sentence, _closest(rows, full, goal, metric, asked), "none", None, goal)
    best = cheaper[0]
    _, low, high, _ = difference(best, full)
    mean = float(np.mean(best.test) - np.mean(full.test))
    result = (
        f"{_score(float(np.mean(best.test)), metric)} on the test split, {_signed(mean, metric)} against full data "
        f"(95 % interval {_signed(low, metric)} to {_signed(high, metric)}), for {100 * best.cost:.0f} % of its FLOPs"
    )
    if best.control:
        sentence = f"Nothing beats {_plain(best)} here: {result}."
        others = [r for r in cheaper if not r.control]
        detail = f"It is the cheapest that surely reaches {asked}. " + (
            f"The cheapest method that does is {others[0].name}, at {100 * others[0].cost:.0f} % with choosing paid for."
            if others
            else "No method that selects, distils or prunes reaches it for less than full training."
        )
        return Recommendation(sentence, detail, "control", best, goal)
    sentence = f"Use {best.name}: {result}, choosing included."
    if best_control is not None and best_control.cost < 1:
        against = (
            f"The cheapest control that does, {best_control.name}, costs {100 * best_control.cost:.0f} %: "
            f"the saving over it is {100 * (1 - best.cost / best_control.cost):.0f} %."
        )
    else:
        against = "No control but the full data does."
    share = best.choose["flops"] / max(1.0, best.choose["flops"] + best.train["flops"])
    detail = f"It is the cheapest that surely reaches {asked}; choosing is {100 * share:.0f} % of its cost. {against}"
    return Recommendation(sentence, detail, "method", best, goal)


def _closest(rows: Sequence[Row], full: Row, goal: float, metric: str, asked: str) -> str:
    others = [r for r in rows if r is not full and r.cost < 1]
    if not others:
        return f"Needed: {asked}; nothing cheaper was tried."
    best = max(others, key=lambda r: r.bound)
    return (
        f"Needed: {asked}, with 95 % confidence. The nearest is {best.name}: {_score(float(np.mean(best.valid)), metric)} "
        f"there, but it may be as low as {_score(best.bound, metric)}; "
        f"it costs {100 * best.cost:.0f} % of full training."
    )


def _plain(row: Row) -> str:
    amount = row.budget if row.budget.endswith("%") else f"a budget of {row.budget}"
    return {
        "short": f"a schedule shortened to {amount}",
        "random": f"a random subset of {amount}",
        "stratified": f"a stratified random subset of {amount}",
    }.get(row.method, row.name)


def _score(value: float, metric: str) -> str:
    return f"{100 * value:.1f} %" if metric == "accuracy" else f"R² {value:.3f}"


def _points(value: float, metric: str) -> str:
    return f"{100 * value:.1f} points" if metric == "accuracy" else f"{value:.3f}"


def _signed(value: float, metric: str) -> str:
    return f"{100 * value:+.1f} points" if metric == "accuracy" else f"{value:+.3f}"
