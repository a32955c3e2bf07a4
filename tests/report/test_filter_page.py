"""The page of a filter: what it says, that it escapes, and that it needs no network."""

from __future__ import annotations

import re

from modicum.report.content import DataSummary, Gallery, Item, ScoreSummary
from modicum.report.filter_page import FilterContent, filter_page

EVIL = "<script>alert('x')</script>"


def content(**changes: object) -> FilterContent:
    given: dict[str, object] = {
        "title": "modicum filter",
        "sentence": "Half is kept.",
        "detail": "Nothing else.",
        "facts": (("Kept", "3", "of 6"),),
        "data": DataSummary("texts", 6, 0, 0),
        "spread": ScoreSummary.from_values("all", "value", "probability", [0.1, 0.9]),
        "shares": (0.5, 1.0),
        "precision": (0.95, 0.6),
        "low": (0.8, 0.5),
        "high": (1.0, 0.7),
        "kept": 0.5,
        "target": 0.9,
        "predicted": (0.2, 0.8),
        "came": (0.25, 0.75),
        "came_low": (0.1, 0.6),
        "came_high": (0.4, 0.9),
        "held_out": 100,
        "galleries": (Gallery("Best", "A few.", (Item("1", "kept", text="words"),)),),
    }
    return FilterContent(**{**given, **changes})  # type: ignore[arg-type]


def test_everything_is_on_it() -> None:
    text = filter_page(content())
    for words in (
        "Half is kept.",
        "asked for",
        "a perfect classifier",
        "95.0\xa0%, from 80.0\xa0% to 100.0\xa0%",
        "Best",
    ):
        assert words in text
    assert text.count('class="lines"') == 2
    assert "on average 5.0\xa0% apart" in text


def test_without_a_target_or_enough_samples() -> None:
    text = filter_page(content(target=None, came=(0.2,), predicted=(0.2,), came_low=(0.0,), came_high=(1.0,)))
    assert "asked for" not in text
    assert "Too few samples were held out." in text


def test_names_from_data_are_escaped_and_nothing_is_loaded() -> None:
    evil = content(
        title=EVIL,
        sentence=EVIL,
        detail=EVIL,
        facts=((EVIL, EVIL, EVIL),),
        data=DataSummary(EVIL, 1, 1, 1, (EVIL,)),
        command=EVIL,
    )
    text = filter_page(evil)
    assert "alert('x')" not in text
    assert "&lt;script&gt;" in text
    assert "default-src 'none'" in text
    assert not re.findall(r'(?:src|href)="(?!#|data:)', text)
