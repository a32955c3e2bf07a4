"""The page of scores: what it says, that it escapes, and that it needs no network."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import modicum
from modicum.errors import DataError
from modicum.report.content import DataSummary, Gallery, Item, ScoreSummary
from modicum.report.lines import Line, line_chart, ticks
from modicum.report.scores_page import CurveSummary, DetectionSummary, ScoresContent, scores_page
from modicum.store import Store

EVIL = "<script>alert('x')</script>"


def content(**changes: object) -> ScoresContent:
    given_content: dict[str, object] = {
        "title": "modicum score",
        "sentence": "The best half is enough.",
        "detail": "Nothing else.",
        "facts": (("Samples", "3", "each with a value"),),
        "data": DataSummary("digits", 3, 2, 2, ("a", "b")),
        "score": ScoreSummary.from_values("given", "value", "points", [1.0, 2.0, 3.0], [0, 1, 1], ("a", "b")),
        "curves": CurveSummary((0.5, 1.0), (0.8, 0.9), (0.2, 0.9), (0.7, 0.9), (0.1, 0.0), "accuracy", "ridge"),
        "detection": DetectionSummary(1, 3, 1.0, 0.9, (0.0, 1.0), (0.0, 1.0)),
        "galleries": (Gallery("Samples", "A few.", (Item("1", "a", text="words"),)),),
        "rows": ({"place": "1", "id": "7"},),
        "classes": ({"class": "a", "mean": 0.25},),
    }
    return ScoresContent(**{**given_content, **changes})  # type: ignore[arg-type]


def test_everything_is_on_it() -> None:
    text = scores_page(content())
    for words in ("The best half is enough.", "best kept", "worst kept", "random kept", "known to be wrong", "0.900"):
        assert words in text
    assert text.count('class="lines"') == 2
    assert "class a" in text
    assert "{{" not in text.replace("{{}}", "")


def test_parts_that_are_missing_leave_no_trace() -> None:
    text = scores_page(content(curves=None, detection=None))
    assert "No curves were asked for." in text
    assert 'id="wrong"' not in text
    assert 'href="#wrong"' not in text


def test_names_from_data_are_escaped() -> None:
    text = scores_page(
        content(
            title=EVIL,
            sentence=EVIL,
            facts=((EVIL, EVIL, EVIL),),
            rows=({EVIL: EVIL},),
            classes=({EVIL: EVIL},),
            data=DataSummary(EVIL, 1, 1, 1, (EVIL,)),
            command=EVIL,
        )
    )
    assert "alert('x')" not in text
    assert "&lt;script&gt;" in text


def test_difficulties_are_named_for_what_they_are() -> None:
    spread = ScoreSummary.from_values("given", "difficulty", "points", [1.0, 2.0])
    text = scores_page(content(score=spread))
    assert "hardest kept" in text
    assert "best kept" not in text


def test_it_makes_no_request() -> None:
    text = scores_page(content())
    assert "default-src 'none'" in text
    assert not re.findall(r'(?:src|href)="(?!#|data:)', text)


class TestLineChart:
    def test_a_line_of_another_length(self) -> None:
        with pytest.raises(DataError, match="line 'up' has 1 heights for 2 places"):
            line_chart([0, 1], [Line("up", [0.0], "red")], "x", "y", str, str, "")
        with pytest.raises(DataError, match="line 'up' has 1 heights but 2 spreads"):
            Line("up", [0.0], "red", spread=[0.0, 1.0])

    def test_its_points_are_where_they_should_be(self) -> None:
        chart = line_chart([0, 1], [Line("up", [0.0, 1.0], "red")], "x", "y", str, str, "rises")
        (walk,) = re.findall(r'<path class="line"[^>]* d="M([^"]+)"', chart)
        (x0, y0), (x1, y1) = ([float(v) for v in point.split(",")] for point in walk.split("L"))
        assert x0 < x1
        assert y0 > y1  # up is less in a drawing

    def test_what_is_not_finite_is_left_out(self) -> None:
        chart = line_chart([0, 1, 2], [Line("gap", [0.0, float("nan"), 1.0], "red")], "x", "y", str, str, "")
        (walk,) = re.findall(r'<path class="line"[^>]* d="M([^"]+)"', chart)
        assert walk.count("L") == 1

    @settings(max_examples=50, deadline=None)
    @given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
    def test_ticks_cover_the_range_and_are_few(self, low: float, span: float) -> None:
        high = low + span
        made = ticks(low, high, 5)
        slack = 1e-6 * max(abs(low), abs(high), span)
        assert made[0] <= low + slack
        assert made[-1] >= high - slack
        assert 2 <= len(made) <= 9
        assert np.all(np.diff(made) > 0)


def test_a_run_writes_tables_and_page(tmp_path: Path) -> None:
    scores = modicum.score("digits", "knn-shapley", folder=tmp_path, corrupt=0.2, limit=300)
    store = Store(tmp_path)
    assert store.verify() == []
    assert set(store.names()) == {"scores.parquet", "classes.parquet", "report.html", "run.json"}
    table = store.read_table("scores.parquet")
    assert table.column_names == ["id", "value", "standard_error", "rank", "label"]
    assert np.array_equal(table["value"].to_numpy(), scores.values)
    saved = store.read_json("run.json")
    assert saved["result"]["detection"]["auroc"] > 0.9
    assert saved["result"]["detection"]["wrong"] == 60
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "of the 60 most suspicious labels are wrong" in text
    assert "Each is shown with the label that it was given." in text


def test_a_regression_has_a_page_too(tmp_path: Path) -> None:
    from dataclasses import dataclass
    from typing import Any, ClassVar

    from modicum.methods import Card
    from modicum.scores import Scores

    @dataclass(frozen=True)
    class Given:
        card: ClassVar[Card] = Card("given", "Numbers", "nobody", ("samples",), tasks=("regression",))

        def needs(self) -> tuple[()]:
            return ()

        def score(self, data: modicum.Splits, ctx: modicum.Context, *measured: Any) -> Scores:
            return Scores(np.arange(float(len(data.train))), data.train.ids, "given", "value", "points")

    modicum.score("diabetes", Given(), folder=tmp_path)
    assert "test R²" in (tmp_path / "report.html").read_text("utf-8")
