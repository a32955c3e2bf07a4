"""The page of scores: what each sample is worth, what that is good for, and which labels to look at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modicum.arrays import NumPy
from modicum.report.content import DataSummary, Gallery, ScoreSummary
from modicum.report.data_map import map_section
from modicum.report.format import count, escape, percent
from modicum.report.lines import Line, line_chart
from modicum.report.page import document, framed, none
from modicum.report.pictures import galleries, histograms
from modicum.report.tables import options, plain_table

__all__ = ["CurveSummary", "DetectionSummary", "ScoresContent", "scores_page"]

MEANING = {
    "value": "A value is higher for a sample more worth keeping.",
    "difficulty": "A difficulty is higher for a harder sample; hard samples are rare ones, or wrong ones.",
}
SHOWN = 10  # classes that have a histogram of their own


@dataclass(frozen=True)
class CurveSummary:
    """Test metric of a learner by the share of samples that are kept.

    Args:
        shares: Places.
        best: With the first of the ranking kept.
        worst: With the last kept.
        random: With random samples kept, the mean.
        deviation: Its standard deviation.
        metric: `accuracy` or `R²`.
        learner: What was trained.
    """

    shares: tuple[float, ...]
    best: tuple[float, ...]
    worst: tuple[float, ...]
    random: tuple[float, ...]
    deviation: tuple[float, ...]
    metric: str
    learner: str


@dataclass(frozen=True)
class DetectionSummary:
    """How labels known to be wrong were found; see `modicum.comparison.scoring.Detection`."""

    wrong: int
    of: int
    precision: float
    auroc: float
    found: tuple[float, ...]
    inspected: tuple[float, ...]


@dataclass(frozen=True)
class ScoresContent:
    """Everything on the page.

    Args:
        title: Of the page.
        sentence: The answer.
        detail: How sure it is, and what it cost.
        facts: Heading, number and explanation of the few numbers that matter.
        data: The data set.
        score: The spread of all scores, by class.
        curves: What they are good for; None where it was not asked.
        detection: Where some labels are known to be wrong.
        columns: Other numbers of every sample; those of cartography are drawn as a map.
        wrong: Positions of the samples whose labels are known to be wrong.
        galleries: Samples worth a look.
        rows: Of the most suspicious samples: what the columns are called -> text.
        classes: A row for each class: what the columns are called -> number or text.
        settings: Of the run.
        command: That repeats it.
    """

    title: str
    sentence: str
    detail: str
    facts: tuple[tuple[str, str, str], ...]
    data: DataSummary
    score: ScoreSummary
    curves: CurveSummary | None = None
    detection: DetectionSummary | None = None
    columns: Mapping[str, NumPy] = field(default_factory=dict)
    wrong: tuple[int, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    rows: tuple[Mapping[str, str], ...] = ()
    classes: tuple[Mapping[str, Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""


def scores_page(content: ScoresContent) -> str:
    """The HTML document of scores, complete in itself; it works without scripts.

    Args:
        content: What to show; everything that a data set could have named is escaped.

    Returns:
        The text of an HTML file of 50 kB and its pictures; write it as UTF-8.
    """
    first, last = ("best", "worst") if content.score.kind == "value" else ("hardest", "easiest")
    names = [part.name for part in content.score.counts if part.name]
    parts = {
        **framed(content),
        "curves_text": _curves_text(content.curves, first, last),
        "curves": _curves(content.curves, first, last) if content.curves else none("No curves were asked for."),
        "detection": _detection(content.detection) if content.detection else "",
        "map": map_section(content.columns, content.wrong),
        "meaning": f"{MEANING[content.score.kind]} The unit is: {escape(content.score.unit)}.",
        "classes": options(names),
        "histograms": histograms([content.score, *_per_class(content.score)]),
        "galleries": galleries(content.galleries) or none("There are no samples to show."),
        "table": plain_table(content.rows, "The most suspicious samples"),
        "class_table": plain_table(
            [{k: _number(v) for k, v in row.items()} for row in content.classes], "Scores by class"
        ),
    }
    wrong = {"wrong": "Wrong labels"} if content.detection else {}
    sections = {"curves": "Curves", **wrong, "scores": "Scores", "samples": "Samples", "classes": "Classes"}
    return document("scores.html", parts, {**sections, "settings": "Settings"})


def _curves_text(curves: CurveSummary | None, first: str, last: str) -> str:
    if curves is None:
        return ""
    return (
        f"A learner ({escape(curves.learner)}) is trained on the {first} so many samples, on the {last}, and on random "
        f"ones, and tested. Read from left to right, samples are added {first} (or {last}) first; read from right to left, "
        f"they are removed {last} (or {first}) first. The band is one standard deviation over random orders. The test split "
        "only reports: nothing was chosen on it."
    )


def _curves(curves: CurveSummary, first: str, last: str) -> str:
    number = percent if curves.metric == "accuracy" else "{:.3f}".format
    lines = [
        Line(f"{first} kept", curves.best, "var(--accent)"),
        Line(f"{last} kept", curves.worst, "var(--minus)"),
        Line("random kept", curves.random, "var(--gray)", dash=True, spread=curves.deviation),
    ]
    half = min(range(len(curves.shares)), key=lambda i: abs(curves.shares[i] - 0.5))
    label = (
        f"Test {curves.metric} by the share of samples kept. At {percent(curves.shares[half])}: {number(curves.best[half])} "
        f"with the {first}, {number(curves.worst[half])} with the {last}, {number(curves.random[half])} with random ones."
    )
    return line_chart(
        curves.shares,
        lines,
        "share of the training samples kept",
        f"test {curves.metric}",
        number,
        _whole,
        label,
        tick=_whole if curves.metric == "accuracy" else None,
    )


def _detection(found: DetectionSummary) -> str:
    lines = [
        Line("most suspicious first", found.found, "var(--accent)"),
        Line("in random order", found.inspected, "var(--gray)", dash=True),
        Line(
            "a perfect order",
            [min(1.0, share * found.of / found.wrong) for share in found.inspected],
            "var(--s0)",
            dash=True,
        ),
    ]
    label = f"Share of the wrong labels found by the share of samples inspected; AUROC {found.auroc:.3f}."
    chart = line_chart(
        found.inspected,
        lines,
        "share of samples inspected",
        "share of wrong labels found",
        percent,
        _whole,
        label,
        False,
    )
    return (
        '<section id="wrong" aria-labelledby="wrong-title"><h2 id="wrong-title">Wrong labels that are known</h2>'
        f"<p>{count(found.wrong)} of {count(found.of)} labels are known to be wrong. Among the {count(found.wrong)} most "
        f"suspicious samples {percent(found.precision)} are. A wrong label is more suspicious than a right one with "
        f"probability {found.auroc:.3f} (AUROC). The scores were made without knowing any of this.</p>{chart}</section>"
    )


def _per_class(score: ScoreSummary) -> list[ScoreSummary]:
    """A histogram for each class, on the axis of all."""
    named = [part for part in score.counts if part.name]
    if not 1 < len(named) <= SHOWN:
        return []
    return [ScoreSummary(f"class {part.name}", score.kind, "", score.edges, (part,)) for part in named]


def _whole(share: float) -> str:
    return f"{100 * share:.0f} %"


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    return str(value)
