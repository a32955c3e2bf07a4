"""The page of a mixture: the share of each source before and after, what was left out, and copies side by side."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modicum.report.content import DataSummary, Item
from modicum.report.format import count, escape, percent
from modicum.report.page import document, framed, none
from modicum.report.tables import plain_table

__all__ = ["Bar", "MixtureContent", "Pairs", "SourceRow", "mixture_page"]

COLORS = 10
LIMIT = 1_000_000  # bytes of pictures and texts


@dataclass(frozen=True)
class SourceRow:
    """A source.

    Args:
        name: Its name.
        samples: Training samples that it had.
        copies: Of those, what repeats others and was left out.
        not_drawn: What was not drawn.
        kept: What is in the mixture.
        weight: Its share of the visits of training.
        epochs: How often its samples are seen in a pass of as many visits as the mixture has samples.
        relevance: For the target, as a pilot found it; None where there was none.
    """

    name: str
    samples: int
    copies: int
    not_drawn: int
    kept: int
    weight: float
    epochs: float
    relevance: float | None = None


@dataclass(frozen=True)
class Bar:
    """A whole that is made of the sources.

    Args:
        name: What it is.
        note: How large it is.
        shares: Of each source.
    """

    name: str
    note: str
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Pairs:
    """Samples that were left out beside those that stand for them.

    Args:
        title: What they have in common.
        caption: What that means.
        total: How many there are.
        pairs: What stays, what was left out, and how near they are.
    """

    title: str
    caption: str
    total: int
    pairs: tuple[tuple[Item, Item, str], ...]


@dataclass(frozen=True)
class MixtureContent:
    """Everything on the page.

    Args:
        title: Of the page.
        sentence: The answer.
        detail: What stands behind it.
        facts: Heading, number and explanation of the few numbers that matter.
        data: The mixture.
        sources: Its sources.
        bars: Shares of the sources, before and after.
        counts: Copies by the source that they were in (rows) and the one of what stands for them: texts by column.
        pairs: Examples of what was left out.
        compared: How samples were compared, in a sentence; empty when they were not.
        pilot: What the pilot of the weights found, in a sentence; empty when there was none.
        settings: Of the run.
        command: That repeats it.
    """

    title: str
    sentence: str
    detail: str
    facts: tuple[tuple[str, str, str], ...]
    data: DataSummary
    sources: tuple[SourceRow, ...]
    bars: tuple[Bar, ...]
    counts: tuple[Mapping[str, str], ...] = ()
    pairs: tuple[Pairs, ...] = ()
    compared: str = ""
    pilot: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""


def mixture_page(content: MixtureContent) -> str:
    """The HTML document of a mixture, complete in itself; it works without scripts.

    Args:
        content: What to show; everything that a data set could have named is escaped.

    Returns:
        The text of an HTML file of 50 kB and its pictures; write it as UTF-8.
    """
    parts = {
        **framed(content),
        "bars": _bars(content.bars, [row.name for row in content.sources]),
        "sources": plain_table(
            [_source(row, any(r.relevance is not None for r in content.sources)) for row in content.sources],
            "Every source",
        ),
        "pilot": f"<p>{escape(content.pilot)}</p>" if content.pilot else "",
        "compared": f"<p>{escape(content.compared)}</p>" if content.compared else "",
        "counts": _counts(content),
        "pairs": _galleries(content.pairs),
    }
    sections = {"sources": "Sources", "copies": "Copies", "settings": "Settings"}
    return document("mixture.html", parts, sections)


def _source(row: SourceRow, weighed: bool) -> dict[str, str]:
    cells = {
        **{"source": row.name, "samples": count(row.samples), "copies": count(row.copies)},
        **{"not drawn": count(row.not_drawn), "kept": count(row.kept), "share of the visits": percent(row.weight)},
        "epochs in a pass": f"{row.epochs:.3g}",
    }
    if weighed:
        cells["relevance"] = "–" if row.relevance is None else f"{row.relevance:.3g}"
    return cells


def _bars(bars: Sequence[Bar], names: Sequence[str]) -> str:
    keys = "".join(
        f'<li class="series control"><span style="color:var(--s{i % COLORS})" aria-hidden="true">■</span> {escape(name)}</li>'
        for i, name in enumerate(names)
    )
    drawn = "".join(_bar(bar, names) for bar in bars)
    return f'<ul class="bars">{drawn}</ul><div class="legend"><ul aria-label="Colors of the sources">{keys}</ul></div>'


def _bar(bar: Bar, names: Sequence[str]) -> str:
    told = ", ".join(f"{name} {percent(share)}" for name, share in zip(names, bar.shares, strict=True))
    pieces = "".join(
        f'<i style="width:{100 * share:.2f}%;background:var(--s{i % COLORS})"></i>'
        for i, share in enumerate(bar.shares)
    )
    return (
        f'<li><span class="name">{escape(bar.name)}</span><span class="track" role="img" '
        f'aria-label="{escape(told)}" title="{escape(told)}">{pieces}</span><span class="sum">{escape(bar.note)}</span></li>'
    )


def _counts(content: MixtureContent) -> str:
    if not content.compared:
        return none("Nobody looked for copies.")
    return plain_table(
        content.counts, "Samples left out, by their source and the source of what stands for them"
    ) or none("Nothing repeats.")


def _galleries(groups: Sequence[Pairs]) -> str:
    left, parts = LIMIT, []
    for number, group in enumerate(groups):
        shown = []
        for kept, gone, how in group.pairs:
            left -= sum(len(item.png or b"") + len(item.text or "") for item in (kept, gone))
            if left >= 0:
                shown.append(f"<li><p>{escape(how)}</p><div>{_side(kept, 'stays')}{_side(gone, 'left out')}</div></li>")
        wide = " wide" if any(item.text is not None for pair in group.pairs for item in pair[:2]) else ""
        more = group.total - len(shown)
        rest = f'<p class="calm">{count(more)} more are in the table of samples.</p>' if more else ""
        parts.append(
            f'<details class="gallery"{" open" if number < 2 else ""}><summary><h3>{escape(group.title)} '
            f"({count(group.total)})</h3></summary><p>{escape(group.caption)}</p>"
            f'<ul class="twins{wide}">{"".join(shown)}</ul>{rest}</details>'
        )
    return "".join(parts)


def _side(item: Item, role: str) -> str:
    shown = f"<blockquote>{escape(item.text)}</blockquote>" if item.text is not None else ""
    if item.png is not None:
        data = base64.b64encode(item.png).decode("ascii")
        shown = f'<img src="data:image/png;base64,{data}" alt="{escape(f"sample {item.id}, {role}")}">'
    label = f"<b>{escape(item.label)}</b> " if item.label else ""
    return (
        f"<figure>{shown}<figcaption>{label}<span>{role}</span> <small>{escape(item.id)}</small></figcaption></figure>"
    )
