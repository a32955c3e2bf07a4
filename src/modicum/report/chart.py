"""What the chart of the page needs: a look for every method, its points, and the same in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modicum.report.content import ReportContent, Row
from modicum.report.format import escape, metric
from modicum.report.tables import COLUMNS

__all__ = ["chart_data", "chart_label", "legend", "looks"]

SYMBOLS = {
    "circle": "●",
    "square": "■",
    "diamond": "◆",
    "triangle-up": "▲",
    "star": "★",
    "hexagon": "⬢",
    "triangle-down": "▼",
}
OPEN = {"diamond-open": "◇", "square-open": "□", "triangle-up-open": "△", "circle-open": "○"}
DASHES = ("solid", "dash", "dot", "dashdot")
COLORS = 10


def looks(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """How each method looks in the chart: a color and a symbol of its own, controls in gray and black with dashes."""
    by_method = {r.method: r for r in rows}
    controls = [m for m, r in by_method.items() if r.control]
    others = [m for m, r in by_method.items() if not r.control]
    found: list[dict[str, Any]] = []
    for i, m in enumerate(controls):
        symbol = list(OPEN)[i % len(OPEN)]
        color = "--text" if i % 2 == 0 else "--gray"
        found.append(
            {"method": m, "color": color, "symbol": symbol, "glyph": OPEN[symbol], "dash": DASHES[i % len(DASHES)]}
        )
    for i, m in enumerate(others):
        symbol = list(SYMBOLS)[i % len(SYMBOLS)]
        found.append(
            {"method": m, "color": f"--s{i % COLORS}", "symbol": symbol, "glyph": SYMBOLS[symbol], "dash": "solid"}
        )
    return [
        {**look, "note": by_method[look["method"]].title, "control": by_method[look["method"]].control}
        for look in found
    ]


def legend(series: Mapping[str, Any]) -> str:
    """The entry of a method: a button that hides it, or plain text for a control, which cannot be hidden."""
    glyph = f'<span aria-hidden="true" style="color:var({series["color"]})">{series["glyph"]}</span> {escape(series["method"])}'
    note = escape(series["note"])
    if series["control"]:
        return f'<li><span class="series control" title="{note}; always shown">{glyph}</span></li>'
    method = escape(series["method"])
    return f'<li><button type="button" class="series" data-series="{method}" title="{note}" aria-pressed="true">{glyph}</button></li>'


def chart_data(content: ReportContent, series: list[dict[str, Any]]) -> dict[str, Any]:
    """What the script of the page draws."""
    points = [
        {
            "method": r.method,
            "head": f"{r.method} at {r.budget}",
            "note": r.title,
            "keep": r.keep,
            "recommended": r.recommended,
            "x": {"flops": r.flops, "seconds": r.seconds, "samples": float(r.samples)},
            "y": {"test": [r.test_mean, r.test_std], "valid": [r.valid_mean, r.valid_std]},
            "cells": _told(r, content.metric),
        }
        for r in content.rows
    ]
    return {"metric": content.metric, "target": content.target, "series": series, "points": points}


def _told(row: Row, name: str) -> list[str]:
    """Every column in words that stand alone: `… choosing` is told with the column that it is part of."""
    lines: list[str] = []
    for column in COLUMNS:
        text = column.text(row, name)
        if column.heading.startswith("…"):
            lines[-1] = (
                f"{lines[-1].removesuffix(')')}{', ' if lines[-1].endswith(')') else ' ('}{column.heading[2:]} {text})"
            )
        else:
            lines.append(f"{column.heading}: {text}")
    return lines


def chart_label(content: ReportContent) -> str:
    """The chart in words, for readers who do not see it."""
    reached = sum(r.reaches_target for r in content.rows)
    text = (
        f"Chart of {content.metric} against cost: {len(content.rows)} points, {reached} of them reach the target of "
        f"{metric(content.target, content.metric)}. "
    )
    best = [r for r in content.rows if r.recommended]
    if best:
        text += f"Recommended: {best[0].method} at {best[0].budget}, {metric(best[0].test_mean, content.metric)} on the test split. "
    return escape(text + "The table of all results holds every number.")
