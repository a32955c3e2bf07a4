"""The page of a comparison, put together from its parts; it loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Protocol

from modicum.report.chart import chart_data, chart_label, legend, looks
from modicum.report.content import DataSummary, ReportContent
from modicum.report.format import count, escape, metric, plus_minus, quantity, ratio, script_json, seconds
from modicum.report.pictures import cost_panels, galleries, histograms
from modicum.report.tables import (
    correlation_table,
    distinct,
    keep_tables,
    keep_warnings,
    options,
    results_table,
)

__all__ = ["data_list", "document", "framed", "none", "notice", "page", "settings_lists"]

# before the first paint, so that a chosen theme does not flash and controls that need scripts show only where they work
BOOT = (
    "document.documentElement.classList.add('js');"
    "try{const t=localStorage.getItem('modicum-theme');if(t)document.documentElement.dataset.theme=t}catch{}"
)
SECTIONS = {
    "frontier": "Frontier",
    "table": "Results",
    "choosing": "Choosing",
    "scores": "Scores",
    "samples": "Samples",
    "classes": "Classes",
    "settings": "Settings",
}
VERDICTS = {"method": "A method pays here", "control": "A control is enough here", "none": "Nothing reaches the target"}


def page(content: ReportContent) -> str:
    """The HTML document of a comparison, complete in itself.

    Everything a reader or a data set could have named is escaped; a content security policy allows exactly the page's
    own scripts and no request, so that opening the file reaches nothing outside it.

    Args:
        content: What to show.

    Returns:
        The text of an HTML file of about 5 to 6 MB, 4.8 of them the plotting script; write it as UTF-8.

    Example:
        >>> from modicum.report.content import DataSummary, Recommendation, ReportContent
        >>> answer = Recommendation("Train on everything.", "Nothing was compared.", "none")
        >>> text = page(ReportContent("digits", DataSummary("digits", 10, 5, 5), "accuracy", 0.9, answer, ()))
        >>> text.startswith("<!doctype html>"), "Train on everything." in text
        (True, True)
    """
    from plotly.offline import get_plotlyjs

    drawn = {"plotly": get_plotlyjs(), "script": _read("page.js")}
    return document("page.html", _parts(content), SECTIONS, drawn, chart_data(content, looks(content.rows)))


def document(
    template: str,
    parts: Mapping[str, str],
    sections: Mapping[str, str],
    scripts: Mapping[str, str] | None = None,
    content: Any = None,
) -> str:
    """A page: the shell that all share around a template, and a policy that allows its scripts and nothing else.

    Args:
        template: File name in this folder, of what stands between header and footer.
        parts: Escaped text for each `{{name}}` in it, and the `title`.
        sections: What its sections are called, by their ids.
        scripts: What runs on the page beside what runs on every page.
        content: What the scripts read, as plain values.
    """
    scripts = scripts or {}
    first = {"boot": BOOT, "common": _read("common.js")}
    hashes = " ".join(f"'sha256-{_hash(s)}'" for s in [*first.values(), *scripts.values()])
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
    data = "" if content is None else f'<script type="application/json" id="content">{script_json(content)}</script>\n'
    shell = {
        "title": parts["title"],
        "policy": policy,
        "style": _read("page.css"),
        "nav": "".join(f'<li><a href="#{key}">{name}</a></li>\n' for key, name in sections.items()),
        "main": _filled(
            template, {"answer": _filled("answer.html", parts), "repeat": _filled("settings.html", parts), **parts}
        ),
        "scripts": data + "\n".join(f"<script>{script}</script>" for script in scripts.values()),
        **first,
    }
    return _filled("shell.html", shell)


def _filled(template: str, parts: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], _read(template))


def _read(name: str) -> str:
    return resources.files("modicum.report").joinpath(name).read_text("utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def _parts(content: ReportContent) -> dict[str, str]:
    rows = content.rows
    series = looks(rows)
    answer = content.recommendation
    classes = distinct([part.name for s in content.scores for part in s.counts if part.name])
    return {
        "title": escape(content.title),
        "sentence": escape(answer.sentence),
        "detail": escape(answer.detail),
        "verdict": f'<p class="verdict {answer.verdict}">{VERDICTS[answer.verdict]}</p>\n',
        "facts": _facts(content),
        "warnings": notice(content.data.warnings),
        "chart_label": chart_label(content),
        "legend": "".join(legend(s) for s in series),
        "families": options(distinct([r.family for r in rows])),
        "budgets": options(distinct([r.budget for r in rows])),
        "rows": count(len(rows)),
        "table": results_table(content),
        "cost": cost_panels(rows),
        "histograms": histograms(content.scores) or none("No method of this comparison scores samples."),
        "classes": options(classes),
        "correlation": correlation_table(content) if content.correlation else "",
        "galleries": galleries(content.galleries) or none("There are no samples to show."),
        "keep_warnings": keep_warnings(content.keep_rates) if content.keep_rates else none("Classes were not counted."),
        "keep": keep_tables(content.keep_rates),
        "data": data_list(content.data),
        "settings": settings_lists(content.settings),
        "more": f"<h3>What is not counted</h3>\n{_uncounted(content.uncounted)}\n",
        "command": escape(content.command),
    }


class Framed(Protocol):
    """What every page shows around its own sections."""

    @property
    def title(self) -> str: ...
    @property
    def sentence(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def facts(self) -> Sequence[tuple[str, str, str]]: ...
    @property
    def data(self) -> DataSummary: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def command(self) -> str: ...


def framed(content: Framed) -> dict[str, str]:
    """The parts of the answer at the top of a page and of the settings at its end, escaped."""
    return {
        "title": escape(content.title),
        "sentence": escape(content.sentence),
        "detail": escape(content.detail),
        "verdict": "",
        "facts": facts_list(content.facts),
        "warnings": notice(content.data.warnings),
        "data": data_list(content.data),
        "settings": settings_lists(content.settings),
        "command": escape(content.command),
        "more": "",
    }


def facts_list(facts: Sequence[tuple[str, str, str]]) -> str:
    """Heading, number and explanation of the few numbers that an answer stands on."""
    return "".join(
        f"<div><dt>{escape(head)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for head, value, note in facts
    )


def none(text: str) -> str:
    """A quiet sentence where there is nothing to show."""
    return f'<p class="calm">{text}</p>'


def notice(lines: Sequence[str]) -> str:
    """What a reader must know about the data."""
    if not lines:
        return ""
    return f'<div class="notice" role="note"><p>About the data:</p><ul>{_items(lines)}</ul></div>'


def _items(lines: Sequence[str]) -> str:
    return "".join(f"<li>{escape(line)}</li>" for line in lines)


def _facts(content: ReportContent) -> str:
    """The few numbers that the answer stands on."""
    name = content.metric
    facts = [("Target", metric(content.target, name), f"{name} to reach; choices are made on the validation split")]
    picked = [r for r in content.rows if r.recommended]
    full = [r for r in content.rows if r.method == "full" and not r.recommended]
    for heading, row in [("Recommended", r) for r in picked[:1]] + [("All the data", r) for r in full[:1]]:
        cost = f"{quantity(row.flops, 'FLOP')}, {seconds(row.seconds)}"
        where = "" if heading == "All the data" else f"{row.method} at {row.budget}: "
        facts.append((heading, plus_minus(row.test_mean, row.test_std, name), f"{where}{cost}"))
    if picked:
        facts.append(
            ("Recommended, cost", ratio(picked[0].cost_ratio), "the FLOPs of training on everything, choosing included")
        )
    return facts_list(facts)


def data_list(data: DataSummary) -> str:
    """The data set in a list."""
    names = ", ".join(data.classes)
    classes = f"{len(data.classes)}: {names}" if data.classes else "none"
    facts: dict[str, Any] = {"Data set": data.name, "Modality": data.modality or "not stated", "Classes": classes}
    facts |= {
        "Training samples": count(data.train),
        "Validation samples": count(data.valid),
        "Test samples": count(data.test),
    }
    notes = f"<ul>{_items(data.notes)}</ul>" if data.notes else ""
    return _list(facts) + notes


def _list(values: Mapping[str, Any]) -> str:
    return (
        f"<dl>{''.join(f'<div><dt>{escape(k)}</dt><dd>{escape(_plain(v))}</dd></div>' for k, v in values.items())}</dl>"
    )


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    if value is None:
        return "not set"
    return ", ".join(_plain(v) for v in value) if isinstance(value, (list, tuple)) else str(value)


def settings_lists(settings: Mapping[str, Any]) -> str:
    """The settings in lists, one for each group of them."""
    groups = {k: v for k, v in settings.items() if isinstance(v, Mapping)}
    single = {k: v for k, v in settings.items() if k not in groups}
    text = f"<div><h3>Comparison</h3>{_list(single)}</div>" if single else ""
    return text + "".join(f"<div><h3>{escape(k[:1].upper() + k[1:])}</h3>{_list(v)}</div>" for k, v in groups.items())


def _uncounted(names: Sequence[str]) -> str:
    if not names:
        return none("Every operation that ran has a formula and is in the FLOPs above.")
    return f"<p>These operations have no formula, so the FLOPs above leave them out:</p><ul class='tags'>{_items(names)}</ul>"
