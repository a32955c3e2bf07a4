"""Numbers and text for people, and for HTML and scripts."""

from __future__ import annotations

import html
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.report.format import count, escape, percent, plus_minus, quantity, ratio, script_json, seconds

HOSTILE = st.text(st.characters(), max_size=60) | st.sampled_from(
    [
        "</script><script>alert(1)</script>",
        "<!--<script>",
        '"><img src=x onerror=alert(1)>',
        "{{script}}",
        "\x00\ud800\u2028",
        "' onclick='",
    ]
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1, "1 B"), (0.25, "0.2 B"), (999, "999 B"), (999.6, "1.0 kB"), (12_345_678, "12 MB"), (9.96e9, "10 GB"),
     (999.7e9, "1.0 TB"), (-2.5e6, "-2.5 MB"), (math.nan, "–"), (math.inf, "–")],
)  # fmt: skip
def test_quantity_says_it_as_people_do(value: float, text: str) -> None:
    assert quantity(value, "B").replace("\xa0", " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 s"), (0.0004, "0.4 ms"), (0.25, "250 ms"), (0.9996, "1.0 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (3599.6, "1 h 0 min"),
     (90_000, "25 h 0 min"), (math.nan, "–")],
)  # fmt: skip
def test_seconds_change_unit_without_a_gap(value: float, text: str) -> None:
    assert seconds(value).replace("\xa0", " ") == text


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-3, 1e24))
def test_a_quantity_reads_back_to_within_its_digits(value: float) -> None:
    number, unit = quantity(value, "").split("\xa0")
    powers = {"": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18, "Z": 21, "Y": 24}
    read = float(number.replace(",", "")) * 10.0 ** powers[unit]
    assert abs(read - value) <= max(0.051 * 10.0 ** powers[unit], 0.06 * value)
    assert len(number) <= 4 or value >= 999e24


def test_small_formats() -> None:
    assert (percent(0.97249), percent(math.nan), ratio(math.nan)) == ("97.2\xa0%", "–", "–")
    assert (count(999_999), count(1_000_000)) == ("999,999", "1.0\xa0M")
    assert plus_minus(math.nan, 0.1, "accuracy") == "–"
    assert plus_minus(-0.25, 0.031, "R²") == "-0.250\xa0±\xa00.031"


@settings(max_examples=200, deadline=None)
@given(HOSTILE)
def test_escaped_text_cannot_leave_its_place_and_can_be_stored(text: str) -> None:
    safe = escape(text)
    assert not re.search("[<>\"']", safe)
    safe.encode("utf-8")
    kept = [c for c in text if c in html.unescape(safe)]
    assert len(html.unescape(safe)) == len(text) or not text.isprintable()
    assert len(kept) == len(text) or not text.isprintable()


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        HOSTILE | st.floats() | st.none() | st.booleans(),
        lambda s: st.lists(s, max_size=3) | st.dictionaries(HOSTILE, s, max_size=3),
    )
)
def test_script_json_cannot_close_its_script_and_reads_back(value: object) -> None:
    text = script_json(value)
    assert not re.search("[<>&\u2028\u2029]", text)
    text.encode("ascii")
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == _nulls(value)


def _nulls(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_nulls(v) for v in value]
    return {k: _nulls(v) for k, v in value.items()} if isinstance(value, dict) else value
