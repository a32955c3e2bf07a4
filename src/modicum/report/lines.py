"""A line chart that needs no script: an SVG drawing with axes, lines, bands, and its numbers as a table below it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modicum.errors import DataError
from modicum.report.format import escape

__all__ = ["Line", "line_chart"]

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 12, 44
STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Args:
        name: For the legend and the table.
        y: Its heights, one for each place of the chart; those that are not finite are left out.
        color: A CSS color, such as `var(--s0)`.
        dash: Whether it is dashed, as controls are.
        spread: Half the height of the band around it, for each place.

    Raises:
        DataError: The band has another length than the line.
    """

    name: str
    y: Sequence[float]
    color: str
    dash: bool = False
    spread: Sequence[float] = ()

    def __post_init__(self) -> None:
        if self.spread and len(self.spread) != len(self.y):
            raise DataError(f"line {self.name!r} has {len(self.y)} heights but {len(self.spread)} spreads")


def line_chart(
    x: Sequence[float],
    lines: Sequence[Line],
    x_title: str,
    y_title: str,
    number: Callable[[float], str],
    x_number: Callable[[float], str],
    label: str,
    table: bool = True,
    tick: Callable[[float], str] | None = None,
) -> str:
    """A figure with a drawing, a legend, and the numbers in a table that unfolds.

    Args:
        x: Places along the horizontal axis, rising.
        lines: What is drawn.
        x_title: Under the horizontal axis.
        y_title: Of the vertical axis, above the drawing.
        number: Writes a height.
        x_number: Writes a place.
        label: What the drawing shows, for those who do not see it.
        table: Whether the numbers follow.
        tick: Writes a height along the axis; as `number` does when None.

    Returns:
        HTML.

    Raises:
        DataError: A line has another length than x.

    Example:
        >>> chart = line_chart([0, 1], [Line("up", [0, 1], "var(--s0)")], "x", "y", str, str, "a line that rises")
        >>> chart.count("<path"), "a line that rises" in chart
        (1, True)
    """
    for line in lines:
        if len(line.y) != len(x):
            raise DataError(f"line {line.name!r} has {len(line.y)} heights for {len(x)} places")
    seen = [y + sign * s for line in lines for y, s in _with_spread(line) for sign in (-1, 1) if math.isfinite(y)]
    y_ticks = ticks(min(seen, default=0.0), max(seen, default=1.0), 5)
    x_ticks = ticks(min(x), max(x), 6)
    low, high = min(y_ticks[0], *seen), max(y_ticks[-1], *seen)
    left, right = min(x), max(x)

    def across(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - left) / ((right - left) or 1)

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / ((high - low) or 1)

    grid = "".join(
        f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(t):.1f}" y2="{up(t):.1f}"/>'
        f'<text class="tick" x="{LEFT - 8}" y="{up(t) + 4:.1f}" text-anchor="end">{escape((tick or number)(t))}</text>'
        for t in y_ticks
    )
    grid += "".join(
        f'<text class="tick" x="{across(t):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{escape(x_number(t))}</text>'
        for t in x_ticks
        if left <= t <= right
    )
    grid += (
        f'<text class="title" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 6}" '
        f'text-anchor="middle">{escape(x_title)}</text>'
    )
    drawn = "".join(_drawn(x, line, across, up) for line in lines)
    legend = "".join(
        f'<li class="series"><svg width="26" height="10" aria-hidden="true"><line x1="1" x2="25" y1="5" y2="5" '
        f'style="stroke:{escape(line.color)}" stroke-width="3"{_dash(line)}/></svg>{escape(line.name)}</li>'
        for line in lines
    )
    numbers = _table(x, lines, x_title, number, x_number) if table else ""
    return (
        f'<figure class="lines"><figcaption>{escape(y_title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{grid}{drawn}</svg>'
        f'<ul class="legend" aria-label="Lines of the chart">{legend}</ul>{numbers}</figure>'
    )


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from at or below the low end to at or above the high end.

    Example:
        >>> ticks(0.12, 0.93, 5)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / about))
    step = next((s * power for s in STEPS if span / (s * power) <= about), 10 * power)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def _with_spread(line: Line) -> list[tuple[float, float]]:
    spread = line.spread or [0.0] * len(line.y)
    return [(y, s if math.isfinite(s) else 0.0) for y, s in zip(line.y, spread)]


def _dash(line: Line) -> str:
    return ' stroke-dasharray="6 5"' if line.dash else ""


def _drawn(x: Sequence[float], line: Line, across: Callable[[float], float], up: Callable[[float], float]) -> str:
    points = [(across(a), y, s) for a, (y, s) in zip(x, _with_spread(line)) if math.isfinite(y)]
    if not points:
        return ""
    band = ""
    if line.spread:
        over = [f"{a:.1f},{up(y + s):.1f}" for a, y, s in points]
        under = [f"{a:.1f},{up(y - s):.1f}" for a, y, s in reversed(points)]
        band = f'<polygon class="band" style="fill:{escape(line.color)}" points="{" ".join(over + under)}"/>'
    walk = "M" + "L".join(f"{a:.1f},{up(y):.1f}" for a, y, _ in points)
    return f'{band}<path class="line" style="stroke:{escape(line.color)}"{_dash(line)} d="{walk}"/>'


def _table(
    x: Sequence[float],
    lines: Sequence[Line],
    x_title: str,
    number: Callable[[float], str],
    x_number: Callable[[float], str],
) -> str:
    heads = "".join(f'<th scope="col">{escape(line.name)}</th>' for line in lines)
    rows = "".join(
        f'<tr><th scope="row">{escape(x_number(a))}</th>'
        + "".join(
            f"<td>{escape(number(line.y[i]))}{f' ± {escape(number(line.spread[i]))}' if line.spread else ''}</td>"
            for line in lines
        )
        + "</tr>"
        for i, a in enumerate(x)
    )
    return (
        '<details class="numbers"><summary>The numbers</summary><div class="scroll" role="region" tabindex="0" '
        f'aria-label="Numbers of the chart"><table class="plain"><thead><tr><th scope="col">{escape(x_title)}</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )
