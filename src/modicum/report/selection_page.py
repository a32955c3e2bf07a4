"""The page of a selection: whether it was worth it, what was kept, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modicum.arrays import NumPy
from modicum.report.content import DataSummary, Gallery, ScoreSummary
from modicum.report.data_map import map_section
from modicum.report.format import count, escape, percent
from modicum.report.page import document, framed, none
from modicum.report.pictures import galleries, histograms
from modicum.report.tables import plain_table

__all__ = ["SelectionContent", "selection_page"]

REASONS = 12  # that are listed


@dataclass(frozen=True)
class SelectionContent:
    """Everything on the page.

    Args:
        title: Of the page.
        sentence: The answer.
        detail: The numbers behind it.
        facts: Heading, number and explanation of the few numbers that matter.
        data: The data set.
        checks: A row for the selection and each control: what the columns are called -> text; empty when unchecked.
        columns: Other numbers of every sample; those of cartography are drawn as a map.
        spread: How the values of the kept and of the dropped samples are spread; None where there are none.
        galleries: Samples worth a look.
        classes: A row for each class: class, samples, kept, share, warning.
        reasons: Reason, status and number of samples, the most frequent first.
        settings: Of the run.
        command: That repeats it.
    """

    title: str
    sentence: str
    detail: str
    facts: tuple[tuple[str, str, str], ...]
    data: DataSummary
    checks: tuple[Mapping[str, str], ...] = ()
    columns: Mapping[str, NumPy] = field(default_factory=dict)
    spread: ScoreSummary | None = None
    galleries: tuple[Gallery, ...] = ()
    classes: tuple[Mapping[str, Any], ...] = ()
    reasons: tuple[tuple[str, str, int], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""


def selection_page(content: SelectionContent) -> str:
    """The HTML document of a selection, complete in itself; it works without scripts.

    Args:
        content: What to show; everything that a data set could have named is escaped.

    Returns:
        The text of an HTML file of 50 kB and its pictures; write it as UTF-8.
    """
    parts = {
        **framed(content),
        "checks": plain_table(content.checks, "The selection and its controls")
        or none("No models were trained to check the selection."),
        "map": map_section(content.columns),
        "spread": _spread(content.spread) if content.spread else none("The method gives samples no number."),
        "reasons": _reasons(content.reasons),
        "galleries": galleries(content.galleries) or none("There are no samples to show."),
        "low": _low(content.classes),
        "classes": plain_table([_class_row(row) for row in content.classes], "What is kept of each class")
        or none("There are no classes to count."),
    }
    sections = {
        "check": "Check",
        "values": "Values",
        "samples": "Samples",
        "classes": "Classes",
        "settings": "Settings",
    }
    return document("selection.html", parts, sections)


def _spread(spread: ScoreSummary) -> str:
    each = [
        ScoreSummary(part.name, spread.kind, spread.unit, spread.edges, (part,))
        for part in spread.counts
        if sum(part.counts)
    ]
    return f'<div class="histograms">{histograms(each)}</div>'


def _reasons(reasons: tuple[tuple[str, str, int], ...]) -> str:
    known = [row for row in reasons if row[0]]
    if not known:
        return ""
    rows = [{"reason": text, "status": status, "samples": count(n)} for text, status, n in known[:REASONS]]
    left = len(known) - len(rows)
    more = f'<p class="calm">{count(left)} more reasons are in the table of samples.</p>' if left else ""
    return plain_table(rows, "Why") + more


def _class_row(row: Mapping[str, Any]) -> dict[str, str]:
    share = percent(row["share"]) + (" (low)" if row["warning"] else "")
    return {"class": row["class"], "samples": count(row["samples"]), "kept": count(row["kept"]), "share kept": share}


def _low(classes: tuple[Mapping[str, Any], ...]) -> str:
    low = [row for row in classes if row["warning"]]
    if not low:
        return none("Every class keeps at least half of the share of all.") if classes else ""
    named = ", ".join(f"{escape(row['class'])} ({percent(row['share'])})" for row in low[:6])
    more = f" and {count(len(low) - 6)} more" if len(low) > 6 else ""
    return (
        f'<div class="notice" role="note"><p>These classes keep less than half of the share of all: {named}{more}. A model '
        "trained on the selection may do badly on them: a class floor (class_balance) keeps more.</p></div>"
    )
