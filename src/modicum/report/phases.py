"""The phase diagram of pruning as an SVG drawing that needs no script, with a place on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from modicum.errors import DataError
from modicum.report.format import escape

__all__ = ["phase_chart"]

RULES = ("random", "hardest", "easiest")
COLORS = ("var(--gray)", "var(--s1)", "var(--s0)")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 340, 64, 16, 26, 46
LEAD = 0.5  # relative lead at which a color is full


def phase_chart(
    alphas: Sequence[float], keeps: Sequence[float], errors: Any, place: tuple[float, float, float] | None = None
) -> str:
    """A figure: each cell has the color of the rule with the least error, stronger where it leads by more.

    Args:
        alphas: (a,) samples per dimension, rising evenly in their logarithms, a >= 2.
        keeps: (k,) shares kept, rising.
        errors: (a, k, 3) of random, hardest, easiest.
        place: Low end, estimate and high end of a data set on the horizontal axis.

    Returns:
        HTML.

    Raises:
        DataError: The errors have another shape.

    Example:
        >>> chart = phase_chart([1.0, 8.0], [0.5], [[[0.33, 0.41, 0.25]], [[0.11, 0.06, 0.07]]])
        >>> chart.count("<title>"), "hardest" in chart
        (2, True)
    """
    table = np.asarray(errors, dtype=np.float64)
    if table.shape != (len(alphas), len(keeps), 3) or len(alphas) < 2:
        raise DataError(f"errors have shape {table.shape}; expected ({len(alphas)}, {len(keeps)}, 3) with a >= 2")
    logs = np.log2(np.asarray(alphas))
    edges = np.concatenate(
        [[1.5 * logs[0] - 0.5 * logs[1]], (logs[1:] + logs[:-1]) / 2, [1.5 * logs[-1] - 0.5 * logs[-2]]]
    )

    def across(log: float) -> float:
        inside = min(max(log, edges[0]), edges[-1])
        return float(LEFT + (WIDTH - LEFT - RIGHT) * (inside - edges[0]) / (edges[-1] - edges[0]))

    tall = (HEIGHT - TOP - BOTTOM) / len(keeps)
    cells = ""
    for column in range(len(alphas)):
        left, right = across(edges[column]), across(edges[column + 1])
        for row in range(len(keeps)):
            best, lead = _best(table[column, row])
            up = HEIGHT - BOTTOM - (row + 1) * tall
            numbers = ", ".join(f"{name} {table[column, row, i]:.3f}" for i, name in enumerate(RULES))
            cells += (
                f'<rect x="{left:.1f}" y="{up:.1f}" width="{right - left:.1f}" height="{tall:.1f}" '
                f'style="fill:{COLORS[best]}" opacity="{0.12 + 0.73 * lead:.2f}"><title>{alphas[column]:.3g} samples a '
                f"dimension, {100 * keeps[row]:.3g} % kept: {numbers}</title></rect>"
            )
    axes = "".join(
        f'<text class="tick" x="{across(log):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{2.0**log:.4g}</text>'
        for log in range(math.ceil(edges[0]), math.floor(edges[-1]) + 1, max(1, round((edges[-1] - edges[0]) / 8)))
    )
    every = max(1, math.ceil(len(keeps) / 10))
    axes += "".join(
        f'<text class="tick" x="{LEFT - 8}" y="{HEIGHT - BOTTOM - (row + 0.5) * tall + 4:.1f}" text-anchor="end">'
        f"{100 * keeps[row]:.3g} %</text>"
        for row in range(0, len(keeps), every)
    )
    axes += (
        f'<text class="title" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">samples per '
        "effective dimension, before pruning</text>"
    )
    label = "Phase diagram: the rule with the least error by samples per dimension and share kept."
    return (
        f'<figure class="lines"><figcaption>share kept</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(label + _said(place))}"><g shape-rendering="crispEdges">{cells}</g>{axes}{_marked(place, across)}</svg>{_legend(place)}'
        f"{_numbers(alphas, keeps, table)}</figure>"
    )


def _best(errors: Any) -> tuple[int, float]:
    """The rule with the least error, random where all are alike, and how far the second is behind, from 0 to 1."""
    best = int(np.argmin(errors - 1e-9 * (np.arange(3) == 0)))
    second = float(np.delete(errors, best).min())
    return best, min(1.0, max(0.0, (second / max(float(errors[best]), 1e-12) - 1) / LEAD))


def _marked(place: tuple[float, float, float] | None, across: Any) -> str:
    if place is None:
        return ""
    low, at, high = (across(math.log2(max(alpha, 1e-12))) for alpha in place)
    flip = at > WIDTH / 2
    return (
        f'<polygon style="fill:var(--text)" opacity="0.18" points="{low:.1f},{TOP} {high:.1f},{TOP} '
        f'{high:.1f},{HEIGHT - BOTTOM} {low:.1f},{HEIGHT - BOTTOM}"/>'
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" style="stroke:var(--text)" stroke-width="2.5"/>'
        f'<text class="title" style="fill:var(--text)" x="{at:.1f}" y="{TOP - 8}" '
        f'text-anchor="{"end" if flip else "start"}">this data set: {place[1]:.3g}</text>'
    )


def _said(place: tuple[float, float, float] | None) -> str:
    return "" if place is None else f" This data set is at {place[1]:.3g}, between {place[0]:.3g} and {place[2]:.3g}."


def _legend(place: tuple[float, float, float] | None) -> str:
    entries = "".join(
        f'<li class="series"><svg width="18" height="12" aria-hidden="true"><rect width="18" height="12" '
        f'style="fill:{color}" opacity="0.85"/></svg>{name} kept</li>'
        for name, color in zip(RULES, COLORS)
    )
    if place is not None:
        entries += (
            '<li class="series"><svg width="18" height="12" aria-hidden="true"><line x1="9" x2="9" y1="0" y2="12" '
            'style="stroke:var(--text)" stroke-width="2.5"/></svg>this data set</li>'
        )
    return f'<ul class="legend" aria-label="Colors of the diagram">{entries}</ul>'


def _numbers(alphas: Sequence[float], keeps: Sequence[float], table: Any) -> str:
    heads = "".join(f'<th scope="col">{100 * keep:.3g} %</th>' for keep in keeps)
    body = ""
    for column, alpha in enumerate(alphas):
        cells = "".join(f"<td>{RULES[_best(table[column, row])[0]]}</td>" for row in range(len(keeps)))
        body += f'<tr><th scope="row">{alpha:.3g}</th>{cells}</tr>'
    return (
        '<details class="numbers"><summary>The rules in a table</summary><div class="scroll" role="region" tabindex="0" '
        'aria-label="Best rule by samples per dimension and share kept"><table class="plain"><thead><tr><th scope="col">'
        f"samples a dimension</th>{heads}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )
