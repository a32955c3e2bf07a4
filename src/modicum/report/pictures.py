"""The pictures of the page that need no script: cost bars, score histograms, galleries; and thumbnails for them."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from modicum.errors import DataError
from modicum.report.content import Gallery, Item, Row, ScoreSummary
from modicum.report.format import count, escape, quantity, seconds
from modicum.report.tables import distinct

if TYPE_CHECKING:
    import numpy as np

__all__ = ["cost_panels", "galleries", "histograms", "thumbnail"]

PICTURE_BYTES = 1_000_000  # all galleries together, so that the page stays within about 6 MB
WIDTH, HEIGHT = 240, 72
HIGHER = {"value": "worth more →", "difficulty": "harder →", "": ""}


def thumbnail(array: np.ndarray[Any, Any], low: float = 0.0, high: float = 255.0, largest: int = 96) -> bytes:
    """A picture as PNG.

    Values are clipped to [low, high] and mapped linearly to [0, 255]; NaN becomes low.

    Args:
        array: Pixels (c, h, w) with one channel (gray) or three (red, green, blue), or (h, w); integers or floats.
        low: The stored value that is black.
        high: The stored value that is full brightness.
        largest: Longest side of the result in pixels; a larger picture is shrunk, a smaller one kept as it is.

    Returns:
        The bytes of a PNG file.

    Raises:
        DataError: The shape is not that of a picture, or the range is empty.

    Example:
        >>> import numpy as np
        >>> thumbnail(np.zeros((1, 8, 8), np.uint8))[1:4]
        b'PNG'
    """
    import numpy as np
    from PIL import Image

    pixels = np.asarray(array)
    if pixels.ndim == 2:
        pixels = pixels[None]
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or pixels.size == 0:
        raise DataError(f"array has shape {np.shape(array)}; expected (1, h, w), (3, h, w) or (h, w)")
    if not high > low:
        raise DataError(f"low={low} and high={high} leave no range; expected low < high")
    unit = (np.nan_to_num(pixels.astype(np.float64), nan=low).clip(low, high) - low) / (high - low)
    stored = np.rint(unit * 255).astype(np.uint8)
    picture = Image.fromarray(stored[0] if len(stored) == 1 else np.ascontiguousarray(stored.transpose(1, 2, 0)))
    if max(picture.size) > largest:
        picture.thumbnail((largest, largest))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def cost_panels(rows: Sequence[Row]) -> str:
    """Bars of what choosing and training cost, one panel per budget and unit; scripts show one panel at a time."""
    methods = [r.method for r in rows]
    always = {r.method for r in rows if r.control and methods.count(r.method) == 1}
    budgets = distinct([r.budget for r in rows if r.method not in always]) or distinct([r.budget for r in rows])
    panels = []
    for budget in budgets:
        shown = [r for r in rows if r.budget == budget or r.method in always]
        panels.append(_panel(budget, "FLOPs", shown, lambda r: (r.flops_choose, r.flops_train), _flop))
        panels.append(_panel(budget, "time", shown, lambda r: (r.seconds_choose, r.seconds_train), seconds))
    return "".join(panels)


def _flop(value: float) -> str:
    return quantity(value, "FLOP")


def _panel(
    budget: str,
    unit: str,
    rows: Sequence[Row],
    parts: Callable[[Row], tuple[float, float]],
    text: Callable[[float], str],
) -> str:
    known = [r for r in rows if math.isfinite(sum(parts(r)))]
    known.sort(key=lambda r: sum(parts(r)))
    largest = max((sum(parts(r)) for r in known), default=0) or 1
    bars = "".join(_bar(row, *parts(row), largest, text) for row in known)
    return (
        f'<div data-panel="cost" data-budget="{escape(budget)}" data-unit="{unit}">'
        f'<h3 class="quiet">{unit[0].upper()}{unit[1:]} at a budget of {escape(budget)}</h3><ul class="bars">{bars}</ul></div>'
    )


def _bar(row: Row, choose: float, train: float, largest: float, text: Callable[[float], str]) -> str:
    kind = ' class="control"' if row.control else ' class="pick"' if row.recommended else ""
    return (
        f'<li{kind}><span class="name" title="{escape(row.title)}">{escape(row.method)}</span>'
        f'<span class="track" aria-hidden="true"><i class="choose" style="width:{100 * choose / largest:.2f}%"></i>'
        f'<i class="train" style="width:{100 * train / largest:.2f}%"></i></span>'
        f'<span class="sum"><b>{text(choose + train)}</b> <small>choosing {text(choose)}</small></span></li>'
    )


def histograms(scores: Sequence[ScoreSummary]) -> str:
    """One small histogram per method; an outline per class waits for the reader to choose it."""
    return "".join(_histogram(s) for s in scores)


def _histogram(score: ScoreSummary) -> str:
    totals = [sum(bins) for bins in zip(*(part.counts for part in score.counts))]
    low, high = (f"{score.edges[0]:.3g}", f"{score.edges[-1]:.3g}") if score.edges else ("–", "–")
    outlines = "".join(
        f'<path class="one" data-class="{escape(part.name)}" d="{_steps(part.counts)}"/>'
        for part in score.counts
        if part.name
    )
    label = (
        f"{score.method}: {count(sum(totals))} scores from {low} to {high}, most of them near {_mode(score, totals)}"
    )
    return (
        f'<figure class="histogram"><figcaption><b>{escape(score.method)}</b> '
        f"<span>{escape(', '.join(filter(None, (score.kind, score.unit))))}</span></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f'<path class="all" d="{_steps(totals)}"/>{outlines}</svg>'
        f'<p class="ends"><span>{low}</span><span>{HIGHER[score.kind]}</span><span>{high}</span></p></figure>'
    )


def _mode(score: ScoreSummary, totals: Sequence[int]) -> str:
    if not totals:
        return "–"
    top = max(range(len(totals)), key=totals.__getitem__)
    return f"{(score.edges[top] + score.edges[top + 1]) / 2:.3g}"


def _steps(counts: Sequence[int]) -> str:
    """An SVG path around bars that fill the picture, each drawn to the height of the tallest."""
    tallest = max(counts, default=0) or 1
    step = WIDTH / max(len(counts), 1)
    walk = "".join(f"V{HEIGHT * (1 - c / tallest):.1f}H{step * (i + 1):.1f}" for i, c in enumerate(counts))
    return f"M0,{HEIGHT}{walk}V{HEIGHT}Z"


def galleries(shown: Sequence[Gallery]) -> str:
    """Every gallery, the first two unfolded; pictures beyond the size of the page are counted, not shown."""
    left = PICTURE_BYTES
    parts = []
    for number, gallery in enumerate(shown):
        items = []
        for item in gallery.items:
            left -= len(item.png or b"") + len(item.text or "")
            if left >= 0:
                items.append(item)
        parts.append(_gallery(gallery, items, number < 2))
    return "".join(parts)


def _gallery(gallery: Gallery, items: Sequence[Item], unfolded: bool) -> str:
    groups = [(label, list(group)) for label, group in groupby(items, key=lambda i: i.label)]
    if len(groups) > 1 and len(items) >= 2 * len(groups):
        body = "".join(
            f'<div class="strip"><h4>{escape(label)}</h4>{_grid(group, False)}</div>' for label, group in groups
        )
        body = f'<div class="strips">{body}</div>'
    else:
        body = _grid(items, True)
    missing = len(gallery.items) - len(items)
    rest = f'<p class="calm">{count(missing)} more are left out to keep this page small.</p>' if missing else ""
    return (
        f'<details class="gallery"{" open" if unfolded else ""}><summary><h3>{escape(gallery.title)}</h3></summary>'
        f"<p>{escape(gallery.caption)}</p>{body}{rest}</details>"
    )


def _grid(items: Sequence[Item], labels: bool) -> str:
    return f'<ul class="grid">{"".join(_item(item, labels) for item in items)}</ul>'


def _item(item: Item, label: bool) -> str:
    picture = ""
    if item.png is not None:
        alt = escape(f"sample {item.id}, label {item.label}{', ' + item.note if item.note else ''}")
        data = base64.b64encode(item.png).decode("ascii")
        picture = f'<img src="data:image/png;base64,{data}" alt="{alt}">'
    text = f"<blockquote>{escape(item.text)}</blockquote>" if item.text is not None else ""
    name = f"<b>{escape(item.label)}</b> " if label else ""
    note = f"<span>{escape(item.note)}</span> " if item.note else ""
    wide = ' class="wide"' if item.text is not None else ""
    return f"<li{wide}><figure>{picture}{text}<figcaption>{name}{note}<small>{escape(item.id)}</small></figcaption></figure></li>"
