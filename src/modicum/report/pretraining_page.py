"""The page of a pretraining run: what the encoder knows, what it takes to be alike, and what that cost."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from modicum.report.content import DataSummary, Item
from modicum.report.costs import CostRow, cost_table, uncounted_text
from modicum.report.format import count, escape, percent, plus_minus, quantity, seconds
from modicum.report.lines import Line, line_chart
from modicum.report.page import document, framed, none
from modicum.report.tables import distinct, framed_table, options

__all__ = [
    "MapSummary",
    "MomentSummary",
    "NeighborRow",
    "PretrainingContent",
    "ProbeSummary",
    "pretraining_page",
]

WIDTH, HEIGHT, EDGE = 640, 520, 14
TILES = 40


@dataclass(frozen=True)
class ProbeSummary:
    """What a probe found on a representation; see `modicum.pretraining.ProbeRow`."""

    data: str
    representation: str
    probe: str
    shots: int
    accuracy: float
    error: float | None
    labels: int
    seconds: float


@dataclass(frozen=True)
class MomentSummary:
    """A moment of the run; see `modicum.pretraining.CurvePoint`."""

    epoch: int
    samples: int
    flops: int
    seconds: float
    accuracy: float


@dataclass(frozen=True)
class NeighborRow:
    """A test sample and the training samples that its representation is nearest to.

    Args:
        query: The test sample.
        nearest: The most similar training samples, nearest first.
        wrong: Whether each of them is of another class.
    """

    query: Item
    nearest: tuple[Item, ...]
    wrong: tuple[bool, ...]


@dataclass(frozen=True)
class MapSummary:
    """Samples on a plane.

    Args:
        places: (x, y) of each within the unit square.
        labels: Class of each, as index.
        classes: Names.
        ids: Of the samples.
        kind: How they got there, for people.
        notes: Words of each sample, such as the beginning of a text; empty for none.
        sprite: All their pictures as one JPEG, 40 in a row; None for none.
        side: Of a picture in it.
    """

    places: tuple[tuple[float, float], ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    kind: str
    notes: tuple[str, ...] = ()
    sprite: bytes | None = None
    side: int = 0


@dataclass(frozen=True)
class PretrainingContent:
    """Everything on the page.

    Args:
        title: Of the page.
        sentence: The answer.
        detail: How sure it is, and what it cost.
        facts: Heading, number and explanation of the few numbers that matter.
        data: The data set.
        probes: What the probes found; empty where there are no labels.
        tested: Test samples.
        curve: Moments of the run.
        neighbors: Test samples and what is near to them.
        agreement: Share of the eight nearest neighbors that have the class of the sample, and of two random samples.
        plane: The map; None for none.
        costs: The parts, and what they add up to as the last.
        uncounted: Operations without a FLOP formula.
        settings: Of the run.
        command: That repeats it.
    """

    title: str
    sentence: str
    detail: str
    facts: tuple[tuple[str, str, str], ...]
    data: DataSummary
    probes: tuple[ProbeSummary, ...] = ()
    tested: Mapping[str, int] = field(default_factory=dict)
    curve: tuple[MomentSummary, ...] = ()
    neighbors: tuple[NeighborRow, ...] = ()
    agreement: tuple[float, float] | None = None
    plane: MapSummary | None = None
    costs: tuple[CostRow, ...] = ()
    uncounted: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""


def pretraining_page(content: PretrainingContent) -> str:
    """The HTML document of a pretraining run, complete in itself; without scripts only pointing at the map is lost.

    Args:
        content: What to show; everything that a data set could have named is escaped.

    Returns:
        The text of an HTML file of about a megabyte with 2,000 pictures on the map; write it as UTF-8.
    """
    plane = content.plane
    parts = {
        **framed(content),
        "probes_text": _probes_text(content),
        "probes": _probes(content) or none("There are no labels to probe with."),
        "curves_text": _curves_text(content),
        "curves": _curves(content) or none("There are fewer than two moments to draw a line through."),
        "neighbors_text": _neighbors_text(content),
        "neighbors": _neighbors(content.neighbors) or none("There are no samples to show."),
        "classes": options([plane.classes[c] for c in sorted({*plane.labels})]) if plane else "",
        "map_text": _map_text(plane),
        "map": _map(plane) if plane else none("There is no map."),
        "cost_text": _cost_text(content),
        "cost": cost_table(content.costs),
    }
    names = {"probes": "Probes", "curves": "Curves", "neighbors": "Neighbors", "map": "Map", "cost": "Cost"}
    script = resources.files("modicum.report").joinpath("pretraining.js").read_text("utf-8")
    shown = _shown(plane) if plane else {}
    return document("pretraining.html", parts, {**names, "settings": "Settings"}, {"script": script}, shown)


# -- probes ------------------------------------------------------------------------------------------------------------


def _probes_text(content: PretrainingContent) -> str:
    if not content.probes:
        return ""
    return (
        "Each probe is fit on labeled training samples and read once on the test split. The same probe on raw inputs and on "
        "the same network before training says what the learning itself brought. A number after ± is the standard error "
        f"over draws of the few labels; of the test split of {count(content.tested.get('', 0))} samples alone, two standard "
        f"errors are up to {_points(1 / math.sqrt(max(1, content.tested.get('', 1))))} points."
    )


def _points(gap: float) -> str:
    return f"{100 * gap:.1f}"


def _probes(content: PretrainingContent) -> str:
    text = ""
    for data in distinct([row.data for row in content.probes]):
        rows = [row for row in content.probes if row.data == data]
        size = content.tested.get(data)
        caption = "Test accuracy" + (f" on {count(size)} samples" if size else "")
        text += (f"<h3>Transferred to {escape(data)}</h3>" if data else "") + _probe_table(rows, caption)
    return text


def _probe_table(rows: Sequence[ProbeSummary], caption: str) -> str:
    shown = distinct([row.representation for row in rows])
    heads = [*shown, *(["points over the best control"] if len(shown) > 1 else []), "labels", "time"]
    body = ""
    for probe, shots in dict.fromkeys((row.probe, row.shots) for row in rows):
        found = {row.representation: row for row in rows if (row.probe, row.shots) == (probe, shots)}
        best = max(row.accuracy for row in found.values())
        cells = ""
        for name in shown:
            row = found.get(name)
            text = "–" if row is None else plus_minus(row.accuracy, _error(row), "accuracy")
            cells += f"<td{' class=yes' if row is not None and row.accuracy == best else ''}>{text}</td>"
        first = found.get(shown[0]) or next(iter(found.values()))
        if len(shown) > 1:
            others = [row.accuracy for name, row in found.items() if name != shown[0]]
            cells += f"<td>{100 * (first.accuracy - max(others)):+.1f}</td>" if others else "<td>–</td>"
        few = f" <small>{shots} label{'s' if shots > 1 else ''} a class</small>" if shots else ""
        cells += f"<td>{count(first.labels)}</td><td>{seconds(first.seconds)}</td>"
        body += f'<tr><th scope="row">{escape(probe)}{few}</th>{cells}</tr>'
    return framed_table(["probe", *heads], body, caption)


def _error(row: ProbeSummary) -> float:
    return math.nan if row.error is None else row.error


# -- curves ------------------------------------------------------------------------------------------------------------


def _curves_text(content: PretrainingContent) -> str:
    if len(content.curve) < 2:
        return ""
    return (
        "Accuracy of weighted nearest neighbors on the validation split while the encoder learned, against everything that "
        "was spent up to there: passes of teachers, priors and generators are in it, looking at the curve is not. Dashed "
        "lines are the controls, on the test split; they cost no learning."
    )


def _curves(content: PretrainingContent) -> str:
    if len(content.curve) < 2:
        return ""
    rows = content.curve
    accuracy = [row.accuracy for row in rows]
    lines = [Line("encoder", accuracy, "var(--accent)")]
    for color, name in (("var(--gray)", "untrained network"), ("var(--minus)", "raw inputs")):
        found = [p for p in content.probes if (p.data, p.representation, p.probe) == ("", name, "k-NN")]
        lines += [Line(f"{name} (test)", [p.accuracy] * len(rows), color, dash=True) for p in found[:1]]
    label = (
        f"k-NN accuracy from {percent(accuracy[0])} after epoch {rows[0].epoch} to {percent(accuracy[-1])} after epoch "
        f"{rows[-1].epoch}, against "
    )
    charts = [
        ([float(r.flops) for r in rows], "FLOPs of learning", lambda v: quantity(v, "FLOP")),
        ([r.seconds for r in rows], "time of learning", seconds),
    ]
    return "".join(
        line_chart(x, lines, title, "k-NN accuracy", percent, number, label + title, tick=_whole)
        for x, title, number in charts
    )


def _whole(share: float) -> str:
    return f"{100 * share:.3g} %"


# -- neighbors ---------------------------------------------------------------------------------------------------------


def _neighbors_text(content: PretrainingContent) -> str:
    text = "A test sample, and the training samples whose representation is most similar (cosine), nearest first."
    if not any(row.labels for row in content.costs if row.phase != "evaluate"):
        text += " The encoder never saw a label."
    if content.agreement is None:
        return text
    same, chance = content.agreement
    return (
        f"{text} Those of another class are marked. Over all of them {percent(same)} of the eight nearest have the class of "
        f"the sample; of two random samples {percent(chance)} do."
    )


def _neighbors(rows: Sequence[NeighborRow]) -> str:
    body = ""
    for row in rows:
        near = "".join(_near(item, wrong) for item, wrong in zip(row.nearest, row.wrong))
        body += f'<li><div class="query">{_shown_item(row.query)}</div><ol>{near}</ol></li>'
    return f'<ul class="nearest">{body}</ul>' if body else ""


def _near(item: Item, wrong: bool) -> str:
    mark = '<span class="mark">another class</span>' if wrong else ""
    return f"<li{' class=wrong' if wrong else ''}>{_shown_item(item, mark)}</li>"


def _shown_item(item: Item, mark: str = "") -> str:
    told = escape(f"sample {item.id}{f', label {item.label}' if item.label else ''}")
    picture = f"<blockquote>{escape(item.text or '')}</blockquote>"
    if item.png is not None:
        picture = f'<img src="data:image/png;base64,{base64.b64encode(item.png).decode("ascii")}" alt="{told}">'
    name = f"<b>{escape(item.label)}</b> " if item.label else ""
    return f"<figure>{picture}<figcaption>{name}{mark}<small>{escape(item.id)}</small></figcaption></figure>"


# -- the map -----------------------------------------------------------------------------------------------------------


def _map_text(plane: MapSummary | None) -> str:
    if plane is None:
        return ""
    colored = ", colored by class" if len({*plane.labels}) > 1 else ""
    text = f"{count(len(plane.places))} test samples by their representation ({escape(plane.kind)}){colored}. "
    if plane.kind == "t-SNE":
        text += "Near neighbors are near; distances between groups and their sizes mean nothing. "
    return text + '<span class="needs-js">Point at one, or tap it, to see which it is.</span>'


def _at(place: tuple[float, float]) -> tuple[float, float]:
    return (
        round(EDGE + (WIDTH - 2 * EDGE) * place[0], 1),
        round(HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * place[1], 1),
    )


def _map(plane: MapSummary) -> str:
    groups, legend = "", ""
    there = sorted({*plane.labels})
    for c in there:
        dots = "".join(
            '<circle cx="{}" cy="{}" r="3"/>'.format(*_at(place))
            for place, y in zip(plane.places, plane.labels)
            if y == c
        )
        color = f"var(--s{c % 10})"
        groups += f'<g class="dots" data-class="{escape(plane.classes[c])}" style="fill:{color}">{dots}</g>'
        legend += f'<li class="series"><i style="background:{color}"></i>{escape(plane.classes[c])}</li>'
    label = f"Map of {count(len(plane.places))} samples of {len(there)} classes by {plane.kind}."
    picture = ""
    if plane.sprite is not None:
        picture = f"background-image:url(data:image/jpeg;base64,{base64.b64encode(plane.sprite).decode('ascii')})"
    names = f'<ul class="legend" aria-label="Colors of the classes">{legend}</ul>' if len(there) > 1 else ""
    return (
        f'<figure class="plane" id="places"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f'{groups}<circle class="ring" r="7" visibility="hidden"/></svg>'
        f'<div class="tip" hidden><div class="picture" style="{picture}"></div><p></p></div>{names}</figure>'
    )


def _shown(plane: MapSummary) -> dict[str, Any]:
    points = [[*_at(place), c, i] for place, c, i in zip(plane.places, plane.labels, plane.ids)]
    sheet = None if plane.sprite is None else {"side": plane.side, "across": TILES}
    return {"points": points, "classes": plane.classes, "notes": plane.notes, "sprite": sheet}


# -- cost --------------------------------------------------------------------------------------------------------------


def _cost_text(content: PretrainingContent) -> str:
    return f"{uncounted_text(content.uncounted)} Probes are no part of learning; drawing this page is not counted."
