"""The page of a forecast: what it says, that it escapes, and that it needs no network."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from modicum.errors import DataError
from modicum.report.content import DataSummary
from modicum.report.forecast_page import ForecastContent, forecast_page
from modicum.report.phases import phase_chart
from modicum.selection.pruning_forecast import KeepForecast

EVIL = "<script>alert('x')</script>"
ERRORS = np.array([[[0.33, 0.41, 0.25], [0.3, 0.3, 0.28]], [[0.11, 0.06, 0.07], [0.1, 0.05, 0.07]]])
ROWS = (
    KeepForecast(0.2, 0.3, 0.1, 0.2, "hardest", 1.0, 12.0),
    KeepForecast(0.5, 0.2, 0.1, 0.05, "easiest", 0.6, 5.0),
)


def content(**changes: Any) -> ForecastContent:
    parts: dict[str, Any] = {
        **{"title": "modicum forecast", "sentence": "Said.", "detail": "Nothing else.", "facts": (("A", "1", "b"),)},
        **{"data": DataSummary("digits", 3, 2, 2, ("a", "b")), "rows": ROWS, "alphas": (1.0, 8.0), "diagram": ERRORS},
        **{"alpha": (2.0, 4.0, 6.0), "degrees": 12.0, "shares": (0.1, 0.2), "errors": (0.4, 0.3)},
        **{"deviations": (0.01, 0.01), "fitted": (0.41, 0.29)},
    }
    return ForecastContent(**{**parts, **changes})


def test_everything_is_on_it() -> None:
    text = forecast_page(content())
    for words in (
        "Theory says: keep the hardest samples (1 of 2 shares)",
        "Said.",
        "easiest, not clear",
        "100 %",
        "12°",
    ):
        assert words in text
    assert text.count('class="lines"') == 2
    assert "this data set: 4" in text
    assert "{{" not in text


def test_the_headline_follows_the_rows() -> None:
    unclear = [KeepForecast(0.5, 0.2, 0.1, 0.05, "easiest", 0.6, 5.0)]
    table = ERRORS[:, :1]
    assert "is not clear from this pilot" in forecast_page(content(rows=unclear, diagram=table))
    both = [ROWS[0], KeepForecast(0.5, 0.2, 0.1, 0.05, "easiest", 0.95, 5.0)]
    assert "It depends on how much is kept" in forecast_page(content(rows=both))


def test_what_the_pilot_measured_is_on_it() -> None:
    more = {"tried_at": 0.2, "tried_random": 0.031, "tried_hardest": 0.052, "tried_easiest": 0.117}
    rows = [replace(row, **more) for row in ROWS]
    curves = (("hardest", (0.45, 0.052), (0.01, 0.01)), ("easiest", (0.35, 0.117), (0.01, 0.01)))
    text = forecast_page(content(rows=rows, tried=curves))
    assert "Keep random samples" in text
    assert "hardest, predicted best, erred more in the pilot" in text
    for number in ("3.1\xa0%", "5.2\xa0%", "11.7\xa0%", "20 %"):
        assert number in text
    assert "var(--s1)" in text.split('id="curve"')[1]
    proven = [replace(rows[0], proven="hardest"), rows[1]]
    assert "It depends on how much is kept" in forecast_page(content(rows=proven, tried=curves))
    assert "Keep the hardest samples" in forecast_page(content(rows=proven[:1], diagram=ERRORS[:, :1], tried=curves))


def test_names_from_data_are_escaped_and_nothing_is_loaded() -> None:
    data = DataSummary(EVIL, 3, 2, 2, (EVIL,), warnings=(EVIL,))
    text = forecast_page(content(title=EVIL, sentence=EVIL, detail=EVIL, facts=((EVIL,) * 3,), data=data, command=EVIL))
    assert EVIL not in text
    assert not re.search(r'(?:src|href)="(?!#|data:)', text)


def test_the_chart_colors_cells_by_the_best_rule() -> None:
    chart = phase_chart([1.0, 8.0], [0.2, 0.5], ERRORS)
    fills = re.findall(r'style="fill:(var\(--\w+\))" opacity="[\d.]+"><title>', chart)
    assert fills == ["var(--s0)", "var(--s0)", "var(--s1)", "var(--s1)"]
    assert "this data set" not in chart
    assert "1 samples a dimension, 20 % kept: random 0.330, hardest 0.410, easiest 0.250" in chart
    same = phase_chart([1.0, 8.0], [0.5], np.full((2, 1, 3), 0.5))
    assert same.count('opacity="0.12"') == 2
    assert "var(--gray)" in same


def test_a_place_beyond_the_grid_stays_at_its_edge() -> None:
    chart = phase_chart([1.0, 8.0], [0.2, 0.5], ERRORS, (100.0, 200.0, 300.0))
    assert all(float(x) <= 640 for x in re.findall(r'x1="([\d.]+)"', chart))
    assert "this data set: 200" in chart


def test_another_shape_is_refused() -> None:
    with pytest.raises(DataError, match=r"errors have shape \(2, 2, 3\); expected \(2, 3, 3\)"):
        phase_chart([1.0, 8.0], [0.1, 0.2, 0.5], ERRORS)
