"""The tables of the page: all results, rank correlations, and what is kept of each class."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from modicum.report.content import KeepRate, ReportContent, Row
from modicum.report.format import count, escape, percent, plus_minus, quantity, ratio, seconds

__all__ = [
    "COLUMNS",
    "against",
    "correlation_table",
    "distinct",
    "framed_table",
    "keep_tables",
    "keep_warnings",
    "options",
    "plain_table",
    "results_table",
]


class Column(NamedTuple):
    """A column of the table of results: its heading, what is read, and what it sorts by."""

    heading: str
    text: Callable[[Row, str], str]
    key: Callable[[Row], float | str]


COLUMNS = (
    Column("Family", lambda r, m: r.family, lambda r: r.family),
    Column("Budget", lambda r, m: r.budget, lambda r: r.keep),
    Column("Test", lambda r, m: plus_minus(r.test_mean, r.test_std, m), lambda r: r.test_mean),
    Column("Validation", lambda r, m: plus_minus(r.valid_mean, r.valid_std, m), lambda r: r.valid_mean),
    Column("Against random", lambda r, m: against(r, m), lambda r: r.random_gap),
    Column("Target", lambda r, m: "reached" if r.reaches_target else "missed", lambda r: -int(r.reaches_target)),
    Column("Cost of full", lambda r, m: ratio(r.cost_ratio), lambda r: r.cost_ratio),
    Column("FLOPs", lambda r, m: quantity(r.flops, "FLOP"), lambda r: r.flops),
    Column("… choosing", lambda r, m: quantity(r.flops_choose, "FLOP"), lambda r: r.flops_choose),
    Column("… training", lambda r, m: quantity(r.flops_train, "FLOP"), lambda r: r.flops_train),
    Column("Time", lambda r, m: seconds(r.seconds), lambda r: r.seconds),
    Column("… choosing", lambda r, m: seconds(r.seconds_choose), lambda r: r.seconds_choose),
    Column("… training", lambda r, m: seconds(r.seconds_train), lambda r: r.seconds_train),
    Column("Samples visited", lambda r, m: count(r.samples), lambda r: r.samples),
    Column("Labels", lambda r, m: count(r.labels), lambda r: r.labels),
    Column("Kept", lambda r, m: percent(r.keep), lambda r: r.keep),
    Column("Peak memory", lambda r, m: quantity(r.peak_bytes, "B"), lambda r: r.peak_bytes),
    Column("Parameters", lambda r, m: count(r.parameters), lambda r: r.parameters),
    Column("Seeds", lambda r, m: str(r.n_seeds), lambda r: r.n_seeds),
)


def distinct(values: Sequence[str]) -> list[str]:
    """Each value once, in the order of first appearance."""
    return list(dict.fromkeys(values))


def against(row: Row, metric: str) -> str:
    """The difference from a random subset of the same size, in plain words where there is none to speak of."""
    if not math.isfinite(row.random_gap):
        return "–"
    chance = f"p = {row.random_p:.2g}" if math.isfinite(row.random_p) else "one seed"
    if row.random_gap <= 0 or row.random_p >= 0.05:
        return f"not better ({chance})"
    gap = f"{100 * row.random_gap:.1f} points" if metric == "accuracy" else f"{row.random_gap:.3f}"
    return f"+{gap} ({chance})"


def options(values: Sequence[str]) -> str:
    """The options of a select element."""
    return "".join(f'<option value="{escape(v)}">{escape(v)}</option>' for v in values)


def results_table(content: ReportContent) -> str:
    """Every row with every column; headings become sort buttons when scripts run."""
    heads = "".join(f'<th scope="col">{_sort_button(c.heading)}</th>' for c in COLUMNS)
    body = "\n".join(_result(row, content.metric) for row in content.rows)
    return (
        '<table id="results"><caption>Every method at every budget, mean ± standard deviation over seeds. '
        "FLOPs, time and samples count choosing and training together.</caption>"
        f'<thead><tr><th scope="col">{_sort_button("Method")}</th>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table>'
    )


def _sort_button(text: str) -> str:
    return f'<button type="button" class="sort">{escape(text)}</button>'


def _result(row: Row, metric: str) -> str:
    badges = ' <span class="badge pick">recommended</span>' if row.recommended else ""
    badges += ' <span class="badge">control</span>' if row.control else ""
    cells = "".join(
        f'<td data-key="{escape(_key(c.key(row)))}"{_reach(c, row)}>{escape(c.text(row, metric))}</td>' for c in COLUMNS
    )
    name = f"{escape(row.method)}{badges}<br><small>{escape(row.title)}</small>"
    mark = ' class="pick"' if row.recommended else ""
    search = escape(f"{row.method} {row.title} {row.family} {row.budget}".lower())
    return (
        f'<tr{mark} data-family="{escape(row.family)}" data-budget="{escape(row.budget)}" data-search="{search}">'
        f'<th scope="row" data-key="{escape(row.method.lower())}">{name}</th>{cells}</tr>'
    )


def _key(value: float | str) -> float | str:
    return "" if isinstance(value, float) and not math.isfinite(value) else value


def _reach(column: Column, row: Row) -> str:
    if column.heading != "Target":
        return ""
    return ' class="yes"' if row.reaches_target else ' class="no"'


def correlation_table(content: ReportContent) -> str:
    """Spearman rank correlations as a table whose cells are tinted."""
    names = [s.method for s in content.scores]
    heads = "".join(f'<th scope="col"><span>{escape(n)}</span></th>' for n in names)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(_tint(v, f"{v:.2f}") for v in values)}</tr>'
        for name, values in zip(names, content.correlation, strict=True)
    )
    return (
        '<div class="scroll" role="region" tabindex="0" aria-label="Rank correlation of the scores">'
        '<table class="heat"><caption>Spearman rank correlation of the scores as each method gives them: 1 is the same '
        "order, −1 the reverse. A value and a difficulty that agree are negatively correlated.</caption>"
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _tint(value: float, text: str, mark: str = "") -> str:
    if not math.isfinite(value):
        return "<td>–</td>"
    sign = "minus" if value < 0 or mark else "plus"
    share = 60 if mark else min(abs(value), 1.0) * 60
    return f'<td class="{sign}" style="--tint:{share:.0f}%">{mark}{text}</td>'


def keep_tables(rates: Sequence[KeepRate]) -> str:
    """One table per budget: methods down, classes across."""
    return "".join(
        f'<div class="scroll" role="region" tabindex="0" aria-label="Classes kept at {escape(budget)}" '
        f'data-panel="keep" data-budget="{escape(budget)}">'
        f"{_keep_table(budget, [r for r in rates if r.budget == budget])}</div>"
        for budget in distinct([r.budget for r in rates])
    )


def _keep_table(budget: str, rates: Sequence[KeepRate]) -> str:
    classes = distinct([r.class_name for r in rates])
    found = {(r.method, r.class_name): r for r in rates}
    heads = "".join(f'<th scope="col">{escape(c)}</th>' for c in classes)
    most = max((r.rate for r in rates if math.isfinite(r.rate)), default=0) or 1
    body = "".join(
        f'<tr><th scope="row">{escape(m)}</th>{"".join(_keep_cell(found.get((m, c)), most) for c in classes)}</tr>'
        for m in distinct([r.method for r in rates])
    )
    return (
        f'<table class="heat keep"><caption>Share of each class that is kept at a budget of {escape(budget)}'
        f'</caption><thead><tr><th scope="col">Method</th>{heads}</tr></thead><tbody>{body}</tbody></table>'
    )


def _keep_cell(rate: KeepRate | None, most: float) -> str:
    if rate is None:
        return "<td>–</td>"
    mark = '<span aria-hidden="true">▾ </span><span class="unseen">low: </span>' if rate.warning else ""
    return _tint(rate.rate / most, percent(rate.rate), mark)


def keep_warnings(rates: Sequence[KeepRate], most: int = 6) -> str:
    """The classes that a method nearly drops, as a list; the worst first."""
    low = sorted((r for r in rates if r.warning), key=lambda r: r.rate)
    if not low:
        return '<p class="calm">No class falls below half of the average.</p>'
    lines = "".join(
        f"<li><b>{escape(r.method)}</b> at {escape(r.budget)} keeps {percent(r.rate)} of class "
        f"<b>{escape(r.class_name)}</b></li>"
        for r in low[:most]
    )
    rest = f"<li>and {len(low) - most} more, marked ▾ in the tables</li>" if len(low) > most else ""
    return f'<div class="notice"><p>Nearly dropped, below half of the average:</p><ul>{lines}{rest}</ul></div>'


def framed_table(heads: Sequence[str], body: str, caption: str) -> str:
    """A table from its headings and the HTML of its rows; it scrolls where there is too little room."""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table class="plain">'
        f"<caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def plain_table(rows: Sequence[Mapping[str, str]], caption: str) -> str:
    """Rows of texts, the first of each as its head; nothing for no rows."""
    if not rows:
        return ""
    body = ""
    for row in rows:
        cells = [escape(text) for text in row.values()]
        body += f'<tr><th scope="row">{cells[0]}</th>{"".join(f"<td>{cell}</td>" for cell in cells[1:])}</tr>'
    return framed_table(list(rows[0]), body, caption)
