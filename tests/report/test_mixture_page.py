"""The page of a mixture: what it says, that it escapes, and that it needs no network."""

from __future__ import annotations

import re

from modicum.report.content import DataSummary, Item
from modicum.report.mixture_page import Bar, MixtureContent, Pairs, SourceRow, mixture_page

EVIL = "<script>alert('x')</script>"


def content(name: str = "web", **changes: object) -> MixtureContent:
    pair = (Item("web/1", "cat", text="one text"), Item("books/2", "dog", text="one text too"), "shared runs 0.9")
    given: dict[str, object] = {
        "title": "modicum mix",
        "sentence": "Half is kept.",
        "detail": "Nothing else.",
        "facts": (("Kept", "3", "of 6"),),
        "data": DataSummary("texts", 6, 0, 0),
        "sources": (SourceRow(name, 4, 1, 0, 3, 0.75, 1.5), SourceRow("books", 2, 0, 2, 0, 0.25, 0.0, 0.4)),
        "bars": (Bar("before", "6 samples", (0.667, 0.333)), Bar("after", "3 samples", (1.0, 0.0))),
        "counts": ({"left out of": "web", "in all": "1"},),
        "pairs": (Pairs("With another label", "One is wrong.", 3, (pair,)),),
        "compared": "Word by word.",
        "pilot": "A pilot was run.",
    }
    return MixtureContent(**{**given, **changes})  # type: ignore[arg-type]


def test_everything_is_on_it() -> None:
    text = mixture_page(content())
    for words in (
        "Half is kept.",
        "web 66.7\xa0%, books 33.3\xa0%",
        "With another label (3)",
        "shared runs 0.9",
        "one text too",
        "2 more are in the table of samples.",
        "Word by word.",
        "A pilot was run.",
    ):
        assert words in text
    assert text.count('class="track"') == 2
    rows = re.findall(r"<tr>(.*?)</tr>", text)
    assert len({row.count("<th") + row.count("<td") for row in rows[:3]}) == 1  # a source without relevance has a cell


def test_without_copies_or_a_look() -> None:
    assert "Nothing repeats." in mixture_page(content(counts=(), pairs=()))
    assert "Nobody looked for copies." in mixture_page(content(counts=(), pairs=(), compared="", pilot=""))


def test_names_from_data_are_escaped_and_nothing_is_loaded() -> None:
    evil = Item(EVIL, EVIL, text=EVIL)
    text = mixture_page(
        content(
            name=EVIL,
            title=EVIL,
            bars=(Bar(EVIL, EVIL, (1.0, 0.0)),),
            pairs=(Pairs(EVIL, EVIL, 1, ((evil, evil, EVIL),)),),
            compared=EVIL,
            pilot=EVIL,
            command=EVIL,
        )
    )
    assert "alert('x')" not in text
    assert "&lt;script&gt;" in text
    assert "default-src 'none'" in text
    assert not re.findall(r'(?:src|href)="(?!#|data:)', text)


def test_pictures_stop_where_the_page_gets_too_big() -> None:
    big = Item("a", "", text="x" * 400_000)
    text = mixture_page(content(pairs=(Pairs("Equal", "", 5, ((big, big, "equal"),) * 5),)))
    assert text.count("<figure>") == 2
    assert "4 more are in the table of samples." in text
