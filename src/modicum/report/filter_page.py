"""The page of a quality filter: how good the kept samples are, whether the probabilities are right, and examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modicum.report.content import DataSummary, Gallery, ScoreSummary
from modicum.report.format import count, percent
from modicum.report.lines import Line, line_chart
from modicum.report.page import document, framed, none
from modicum.report.pictures import galleries, histograms

__all__ = ["FilterContent", "filter_page"]


@dataclass(frozen=True)
class FilterContent:
    """Everything on the page.

    Args:
        title: Of the page.
        sentence: The answer.
        detail: What stands behind it.
        facts: Heading, number and explanation of the few numbers that matter.
        data: The data set.
        spread: Of the probabilities.
        shares: Share kept, rising.
        precision: Share of good ones among the held-out samples before each cut.
        low: Lower ends of the 95 % intervals.
        high: Upper ends.
        kept: The share that was kept.
        target: The precision that was asked for, or None.
        predicted: Mean probability of each group of held-out samples, rising.
        came: Share of good ones in each.
        came_low: Lower ends of the 95 % intervals.
        came_high: Upper ends.
        held_out: How many samples these are.
        galleries: Samples worth a look.
        settings: Of the run.
        command: That repeats it.
    """

    title: str
    sentence: str
    detail: str
    facts: tuple[tuple[str, str, str], ...]
    data: DataSummary
    spread: ScoreSummary
    shares: tuple[float, ...]
    precision: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    kept: float
    target: float | None
    predicted: tuple[float, ...]
    came: tuple[float, ...]
    came_low: tuple[float, ...]
    came_high: tuple[float, ...]
    held_out: int
    galleries: tuple[Gallery, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""


def filter_page(content: FilterContent) -> str:
    """The HTML document of a filter, complete in itself; it works without scripts.

    Args:
        content: What to show; everything that a data set could have named is escaped.

    Returns:
        The text of an HTML file; write it as UTF-8.
    """
    parts = {
        **framed(content),
        "precision_text": (
            f"Of {count(content.held_out)} judged samples that the classifier did not learn from, the share of good ones "
            "among those that would be kept. The dashed lines are 95 % intervals, each for its own share: the more is kept, "
            "the more judged samples say how good it is."
        ),
        "precision": _precision(content),
        "calibration_text": (
            "The same held-out samples, in groups of like probability: where the curve is below the diagonal, the "
            "classifier is too sure of them."
        ),
        "calibration": _calibration(content) if len(content.came) > 1 else none("Too few samples were held out."),
        "meaning": "The probability of being good of every sample, as the classifier sees it.",
        "histograms": histograms([content.spread]),
        "galleries": galleries(content.galleries) or none("There are no samples to show."),
    }
    sections = {"precision": "Precision", "calibration": "Calibration", "scores": "Probabilities"}
    return document("filter.html", parts, {**sections, "samples": "Samples", "settings": "Settings"})


def _precision(content: FilterContent) -> str:
    lines = [
        Line("share of good ones", content.precision, "var(--accent)"),
        Line("lower bound", content.low, "var(--accent)", dash=True),
        Line("upper bound", content.high, "var(--accent)", dash=True),
    ]
    if content.target is not None:
        lines.append(Line("asked for", [content.target] * len(content.shares), "var(--gray)", dash=True))
    near = min(range(len(content.shares)), key=lambda i: abs(content.shares[i] - content.kept))
    label = (
        f"Share of good samples by the share kept. At {percent(content.shares[near])}, near what was kept: "
        f"{percent(content.precision[near])}, from {percent(content.low[near])} to {percent(content.high[near])}."
    )
    return line_chart(
        content.shares, lines, "share of the samples kept", "share of good ones", percent, _whole, label, tick=_whole
    )


def _calibration(content: FilterContent) -> str:
    lines = [
        Line("share of good ones", content.came, "var(--accent)"),
        Line("lower bound", content.came_low, "var(--accent)", dash=True),
        Line("upper bound", content.came_high, "var(--accent)", dash=True),
        Line("a perfect classifier", content.predicted, "var(--gray)", dash=True),
    ]
    off = sum(abs(a - b) for a, b in zip(content.predicted, content.came, strict=True)) / len(content.came)
    label = f"Share of good samples by predicted probability; on average {percent(off)} apart."
    return line_chart(
        content.predicted, lines, "predicted probability", "share of good ones", percent, _short, label, tick=_whole
    )


def _short(share: float) -> str:
    return f"{100 * share:.3g} %"


def _whole(share: float) -> str:
    return f"{100 * share:.0f} %"
