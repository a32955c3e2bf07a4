"""The data map: every sample by how sure the model was of its label and how much that varied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from modicum.arrays import NumPy
from modicum.errors import DataError
from modicum.report.format import count, escape

__all__ = ["data_map", "map_section"]

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 12, 46
SHOWN = 3000  # points, about 45 kB
GROUPS = (("never or seldom right", "--s8"), ("right now and then", "--s3"), ("nearly always right", "--s0"))
REGIONS = (
    ("← easy to learn", 0.24, 0.96, "start"),
    ("ambiguous", 0.49, 0.5, "end"),
    ("← hard to learn", 0.24, 0.02, "start"),
)


def data_map(
    confidence: NumPy, variability: NumPy, correctness: NumPy, marked: Sequence[int] = (), seed: int = 0
) -> str:
    """A figure of confidence against variability that needs no script, colored by how often samples were right.

    Points are drawn to a tenth of a pixel, each color as one path. Of more than 3,000 samples a random 3,000 are drawn,
    and the caption says so; those that are marked are always drawn.

    Args:
        confidence: (n,) in [0, 1], see `modicum.valuation.cartography`.
        variability: (n,) in [0, 1/2].
        correctness: (n,) share of the epochs in which the sample was right.
        marked: Positions of samples that get a ring, such as those whose labels are known to be wrong.
        seed: Of the samples that are drawn.

    Returns:
        HTML, with the colors of the page.

    Raises:
        DataError: Lengths differ, there are no samples, or a number is out of range.

    Example:
        >>> figure = data_map(np.array([0.9, 0.4]), np.array([0.1, 0.4]), np.array([1.0, 0.4]))
        >>> figure.count("<path class=\\"dots"), "2 samples" in figure
        (2, True)
    """
    n = len(confidence)
    for name, column, most in (
        ("confidence", confidence, 1.0),
        ("variability", variability, 0.5),
        ("correctness", correctness, 1.0),
    ):
        if np.shape(column) != (n,) or not n:
            raise DataError(f"{name} has shape {np.shape(column)}; expected ({n},), at least one sample")
        if not bool(np.all((column >= -1e-6) & (column <= most + 1e-6))):
            raise DataError(f"{name} has numbers outside [0, {most:g}] or that are not numbers")
    at = np.arange(n)
    if n > SHOWN:
        some = np.random.default_rng(seed).permutation(n)[:SHOWN]
        at = np.union1d(some, np.asarray(marked, dtype=np.int64))
    share = np.asarray(correctness, dtype=np.float64)
    group = np.digitize(share, (0.2, 0.8), right=False)
    x, y = _across(np.asarray(variability)), _up(np.asarray(confidence))
    dots = "".join(
        f'<path class="dots" stroke="var({color})" d="{_dots(x[part], y[part])}"/>'
        for number, (_, color) in enumerate(GROUPS)
        if len(part := at[group[at] == number])
    )
    rings = "".join(f'<circle cx="{x[i]:.1f}" cy="{y[i]:.1f}" r="5.5"/>' for i in marked)
    counts = np.bincount(group, minlength=len(GROUPS))
    legend = "".join(
        f'<li><span aria-hidden="true" style="color:var({color})">●</span> {name} '
        f"<small>{count(int(counts[number]))}</small></li>"
        for number, (name, color) in enumerate(GROUPS)
    )
    if len(marked):
        legend += f'<li><span aria-hidden="true">○</span> marked <small>{count(len(marked))}</small></li>'
    label = (
        f"Data map of {count(n)} samples: {count(int(counts[2]))} nearly always right, "
        f"{count(int(counts[1]))} now and then, {count(int(counts[0]))} seldom or never; median confidence "
        f"{float(np.median(confidence)):.2f}, median variability {float(np.median(variability)):.2f}."
    )
    drawn = f"{count(len(at))} of them, drawn at random. " if len(at) < n else ""
    return (
        f'<figure class="data-map"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}" '
        f'style="width:100%;max-width:{WIDTH}px;height:auto">{_axes()}'
        f'<g fill="none" stroke-width="4.2" stroke-linecap="round" stroke-opacity="0.55">{dots}</g>'
        f'<g fill="none" stroke="var(--text)" stroke-width="1.3">{rings}</g>{_names()}</svg>'
        f'<ul class="legend" style="display:flex;flex-wrap:wrap;justify-content:flex-start;gap:.2rem 1.2rem">{legend}</ul>'
        f"<figcaption><small>{count(n)} samples. {drawn}Confidence is the mean probability of the "
        "label, variability its standard deviation; nothing can be right of the dashed line.</small></figcaption></figure>"
    )


def _across(variability: NumPy) -> NumPy:
    found: NumPy = LEFT + (WIDTH - LEFT - RIGHT) * np.clip(variability, 0, 0.5) / 0.5
    return found


def _up(confidence: NumPy) -> NumPy:
    found: NumPy = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * np.clip(confidence, 0, 1)
    return found


def _dots(x: NumPy, y: NumPy) -> str:
    """A path of points, each drawn by the round ends of a line of no length."""
    return "".join(f"M{a:.1f},{b:.1f}h0" for a, b in zip(x.tolist(), y.tolist()))


def _axes() -> str:
    """Grid, ticks, titles, and the line that the variability cannot pass: sqrt(c (1 - c))."""
    low, high = float(_up(np.array(0.0))), float(_up(np.array(1.0)))
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        place = float(_up(np.array(tick)))
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place:.1f}" y2="{place:.1f}" stroke="var(--line)"/>')
        parts.append(_text(LEFT - 8, place + 4, f"{tick:g}", "end"))
    ticks = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    parts += [_text(float(_across(np.array(tick))), low + 18, f"{tick:g}", "middle") for tick in ticks]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "variability", "middle"))
    middle = (low + high) / 2
    parts.append(_text(14, middle, "confidence", "middle", f' transform="rotate(-90 14 {middle:.1f})"'))
    sure = np.linspace(0, 1, 81)
    bound = zip(_across(np.sqrt(sure * (1 - sure))).tolist(), _up(sure).tolist())
    walk = "L".join(f"{a:.1f},{b:.1f}" for a, b in bound)
    parts.append(f'<path d="M{walk}" fill="none" stroke="var(--gray)" stroke-dasharray="4 4"/>')
    return "".join(parts)


def _names() -> str:
    """The regions of the map, over the points."""
    return "".join(
        _text(
            float(_across(np.array(varies))),
            float(_up(np.array(sure))),
            name,
            anchor,
            ' font-weight="600" paint-order="stroke" stroke="var(--page)" stroke-width="4" stroke-linejoin="round"',
            "--text",
        )
        for name, varies, sure, anchor in REGIONS
    )


def _text(x: float, y: float, text: str, anchor: str, more: str = "", color: str = "--gray") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="13" fill="var({color})"{more}>{text}</text>'
    )


def map_section(columns: Mapping[str, NumPy], marked: Sequence[int] = ()) -> str:
    """The section of a page with the map, or nothing where the numbers for it are not there.

    Args:
        columns: `confidence`, `variability` and `correctness` of every sample, among others.
        marked: See `data_map`.
    """
    if not {"confidence", "variability", "correctness"} <= set(columns):
        return ""
    drawn = data_map(columns["confidence"], columns["variability"], columns["correctness"], marked)
    return (
        '<section id="map" aria-labelledby="map-title"><h2 id="map-title">The data map</h2><p>How sure the model was of the '
        "label of each sample on average while it was trained, and how much that varied. Samples it is never sure of are "
        f"hard, or labeled wrong.</p>{drawn}</section>"
    )
