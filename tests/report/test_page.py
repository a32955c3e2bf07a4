"""The page as text: complete in itself, well formed, and safe whatever the data are called."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_sample import make_row

import modicum.report.pictures as pictures
from modicum.errors import DataError
from modicum.report import (
    ClassCounts,
    DataSummary,
    Gallery,
    Item,
    KeepRate,
    Recommendation,
    ReportContent,
    Row,
    ScoreSummary,
    page,
    thumbnail,
)
from modicum.report.tables import against

VOID = {"meta", "img", "input", "br", "link", "hr", "path"}
NASTY = "</script></style><img src=x onerror=alert(1)>\"' {{script}} &amp; \x00"


class Outline(HTMLParser):
    """What a test asks of a document: its tags with attributes, its headings, its ids, whether tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if len({k for k, _ in attrs}) != len(attrs):
            self.wrong.append(f"twice in {tag}: {attrs}")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not (self.open and self.open[-1] in ("script", "style")):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="session")
def text(content: ReportContent) -> str:
    return page(content)


@pytest.fixture(scope="session")
def outline(text: str) -> Outline:
    return Outline(text)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page without the 4.8 MB of the plotting script, where a test makes many."""
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "/*plotly*/")


def test_it_is_one_well_formed_document(outline: Outline) -> None:
    assert outline.wrong == []
    assert outline.open == []
    ids = Counter(attrs["id"] for _, attrs in outline.tags if "id" in attrs)
    assert [i for i, n in ids.items() if n > 1] == []
    assert [attrs["lang"] for attrs in outline.all("html")] == ["en"]


def test_it_stays_within_six_megabytes(text: str) -> None:
    assert 4_000_000 < len(text.encode()) < 6_000_000


def test_nothing_is_loaded_from_outside(text: str, outline: Outline) -> None:
    for tag, attrs in outline.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href", "background"):
            value = attrs.get(name)
            assert value is None or value.startswith(("#", "data:image/png;base64,")), (tag, name, value)
    assert {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in outline.tags} == set()
    from plotly.offline import get_plotlyjs

    own = text.replace(get_plotlyjs(), "")
    assert len(own) < len(text)
    assert not re.search(r"https?:|//cdn|@import|\bfetch\(|XMLHttpRequest|WebSocket|import\(|url\(", own)


def test_the_policy_allows_the_scripts_of_the_page_and_no_request(outline: Outline) -> None:
    (policy,) = [a["content"] or "" for a in outline.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert len(re.findall("'sha256-[^']+'", policy)) == 4
    assert "script-src 'unsafe" not in policy
    assert [a for a in outline.all("script") if a.get("type") is None].__len__() == 4
    assert not any(name.startswith("on") for _, attrs in outline.tags for name in attrs)


def test_headings_are_in_order_and_the_recommendation_comes_first(outline: Outline, content: ReportContent) -> None:
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    words = " ".join(outline.text)
    assert (
        words.index(content.recommendation.sentence)
        < words.index(content.recommendation.detail)
        < words.index("What it costs")
    )


def test_landmarks_names_and_targets_of_links(outline: Outline) -> None:
    tags = Counter(tag for tag, _ in outline.tags)
    assert (tags["main"], tags["nav"], tags["footer"], tags["h1"]) == (1, 1, 1, 1)
    ids = {attrs.get("id") for _, attrs in outline.tags}
    links = [a["href"] or "" for a in outline.all("a")]
    assert links[0] == "#main"
    assert "#table" in links
    assert {link[1:] for link in links} <= ids
    assert all(attrs.get("aria-labelledby") in ids for attrs in outline.all("section"))
    assert all(attrs.get("alt") for attrs in outline.all("img"))
    assert all(attrs.get("type") for attrs in outline.all("button"))
    assert all(attrs.get("scope") in ("row", "col") for attrs in outline.all("th"))
    (chart,) = [a for _, a in outline.tags if a.get("id") == "chart"]
    assert chart["role"] == "img"
    assert "infobatch at 30%" in (chart["aria-label"] or "")


def test_the_table_holds_every_row_without_scripts(text: str, content: ReportContent) -> None:
    table = text[text.index('<table id="results">') : text.index("</table>", text.index('<table id="results">'))]
    assert table.count('<th scope="row"') == len(content.rows)
    assert "<caption>" in table
    assert table.count("recommended</span>") == 1
    assert 'data-key="0.9712">97.1\xa0±\xa0' in table


def test_every_scroll_container_is_reachable_and_named(outline: Outline) -> None:
    boxes = [a for _, a in outline.tags if "scroll" in (a.get("class") or "").split()]
    assert len(boxes) == 5
    for box in boxes:
        assert box["tabindex"] == "0"
        assert box["role"] == "region"
        assert box.get("aria-label") or box.get("aria-labelledby")


def test_controls_have_no_button_to_hide_them(outline: Outline, content: ReportContent) -> None:
    switches = {a["data-series"] for a in outline.all("button") if "data-series" in a}
    assert switches == {r.method for r in content.rows if not r.control}


def make_nasty(words: str) -> ReportContent:
    png = thumbnail(np.zeros((1, 2, 2), np.uint8))
    row = make_row("random", "10%", method=words, title=words, family=words, budget=words)
    other = make_row("el2n", "60%", method=words + "2", title=words, recommended=True)
    score = ScoreSummary(words, "value", words, (0.0, 1.0), (ClassCounts(words, (3,)), ClassCounts("b", (0,))))
    return ReportContent(
        title=words,
        data=DataSummary(words, 1, 1, 1, (words, "b"), words, (words,), (words,)),
        metric="accuracy",
        target=0.5,
        recommendation=Recommendation(words, words, "none"),
        rows=(row, other),
        scores=(score,),
        correlation=((1.0,),),
        galleries=(
            Gallery(words, words, (Item(words, words, words, png, words), Item("b", words, words, None, words))),
        ),
        keep_rates=(KeepRate(words, words, words, 0.1, True),),
        uncounted=(words,),
        settings={words: words, words + "3": {words: [words]}},
        command=words,
    )


@pytest.mark.usefixtures("light")
def test_a_hostile_name_adds_no_tag_and_no_attribute() -> None:
    shape = [(t, sorted(a)) for t, a in Outline(page(make_nasty("plain"))).tags]
    nasty = Outline(page(make_nasty(NASTY)))
    assert [(t, sorted(a)) for t, a in nasty.tags] == shape
    assert nasty.wrong == []


@settings(max_examples=25, deadline=None)
@given(words=st.text(st.characters(), min_size=1, max_size=30))
def test_any_name_leaves_the_shape_of_the_page(words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plotly.offline.get_plotlyjs", lambda: "/*plotly*/")
        text = page(make_nasty(words))
        text.encode("utf-8")
        outline = Outline(text)
        assert outline.wrong == []
        assert Counter(t for t, _ in outline.tags) == Counter(t for t, _ in Outline(page(make_nasty("plain"))).tags)


@pytest.mark.usefixtures("light")
def test_an_empty_comparison_and_unknown_numbers_still_make_a_page() -> None:
    answer = Recommendation("Nothing was compared.", "", "none")
    bare = ReportContent("t", DataSummary("d", 0, 0, 0), "R²", math.nan, answer, ())
    assert Outline(page(bare)).wrong == []
    unknown: dict[str, Any] = {
        name: math.nan for name in ("test_mean", "test_std", "flops_train", "seconds_train", "cost_ratio", "samples")
    }
    text = page(replace(bare, rows=(make_row("el2n", "10%", **unknown),)))
    assert "nan" not in re.sub(r"<(script|style)>.*?</\1>", "", text, flags=re.S).lower()
    assert "NaN" not in text[text.index('id="content"') : text.index("/*plotly*/")]


@pytest.mark.usefixtures("light")
def test_too_many_pictures_are_counted_instead(monkeypatch: pytest.MonkeyPatch, content: ReportContent) -> None:
    monkeypatch.setattr(pictures, "PICTURE_BYTES", 5_000)
    shown = len(Outline(page(content)).all("img"))
    every = sum(len(g.items) for g in content.galleries)
    assert 0 < shown < every
    left_out = re.findall(r"([\d,]+) more are left out", page(content))
    assert sum(int(n.replace(",", "")) for n in left_out) == every - shown


@pytest.mark.usefixtures("light")
def test_text_samples_are_shown_as_text(content: ReportContent) -> None:
    gallery = Gallery("Disputed", "", (Item("sst-1", "negative", "looks positive", text="a <b>fine</b> film"),))
    assert "<blockquote>a &lt;b&gt;fine&lt;/b&gt; film</blockquote>" in page(replace(content, galleries=(gallery,)))


def test_choosing_and_training_are_bars_of_their_share() -> None:
    rows = (make_row("full", "100%"), make_row("el2n", "10%", flops_choose=1.2e9, flops_train=0.6e9))
    text = pictures.cost_panels(rows)
    assert 'class="choose" style="width:50.00%"' in text
    assert 'class="train" style="width:25.00%"' in text
    assert text.count("<ul") == 2  # one budget, FLOPs and time: `full` joins the budgets of the others


def test_a_low_class_is_named_and_marked(text: str, content: ReportContent) -> None:
    low = [r for r in content.keep_rates if r.warning]
    assert low
    assert text.count("low: </span>") == len(low)
    worst = min(low, key=lambda r: r.rate)
    assert f"<li><b>{worst.method}</b> at {worst.budget} keeps" in text


def test_scores_are_binned_per_class_and_the_infinite_left_out() -> None:
    summary = ScoreSummary.from_values(
        "m", "value", "u", [0, 1, 2, 4, math.nan, math.inf], [0, 0, 1, 1, 0, 1], ("a", "b"), bins=4
    )
    assert summary.edges == (0.0, 1.0, 2.0, 3.0, 4.0)
    assert [c.counts for c in summary.counts] == [(1, 1, 0, 0), (0, 0, 1, 1)]
    assert ScoreSummary.from_values("m", "value", "u", [math.nan]).counts[0].counts == (0,) * 32


def test_content_that_does_not_fit_together_is_refused(content: ReportContent) -> None:
    with pytest.raises(DataError, match=r"correlation has rows of lengths \[1\]; expected 6 rows of 6, one per score"):
        replace(content, correlation=((1.0,),))
    with pytest.raises(DataError, match="class 'a' has 2 counts for 2 edges; expected 1"):
        ScoreSummary("m", "value", "u", (0.0, 1.0), (ClassCounts("a", (1, 2)),))
    with pytest.raises(DataError, match=r"png of item 'x' starts with b'GIF89a'; expected a PNG file, see thumbnail"):
        Item("x", "a", png=b"GIF89a")


@pytest.mark.parametrize("channels", [1, 3])
def test_a_thumbnail_holds_the_pixels(channels: int) -> None:
    import io

    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (channels, 5, 7)).astype(np.uint8)
    with Image.open(io.BytesIO(thumbnail(pixels))) as picture:
        stored = np.asarray(picture)
    assert np.array_equal(stored.reshape(5, 7, channels).transpose(2, 0, 1), pixels)
    assert thumbnail(pixels.astype(np.float32) / 255, high=1.0) == thumbnail(pixels)


def test_a_thumbnail_clips_and_shrinks() -> None:
    import io

    from PIL import Image

    with Image.open(io.BytesIO(thumbnail(np.array([[-5.0, 300.0, math.nan]])))) as picture:
        assert np.asarray(picture).tolist() == [[0, 255, 0]]
    with Image.open(io.BytesIO(thumbnail(np.zeros((3, 400, 200)), largest=50))) as picture:
        assert picture.size == (25, 50)


@pytest.mark.parametrize("shape", [(3,), (2, 4, 4), (1, 0, 4), (1, 1, 4, 4)])
def test_a_thumbnail_of_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"expected \(1, h, w\), \(3, h, w\) or \(h, w\)"):
        thumbnail(np.zeros(shape))
    with pytest.raises(DataError, match=r"low=1\.0 and high=1\.0 leave no range"):
        thumbnail(np.zeros((4, 4)), low=1.0, high=1.0)


def test_a_method_that_is_not_better_than_random_is_called_that() -> None:
    def told(gap: float, p: float) -> str:
        return against(make_row("el2n", "10%", random_gap=gap, random_p=p), "accuracy")

    assert told(0.012, 0.01) == "+1.2 points (p = 0.01)"
    assert told(0.012, 0.4) == "not better (p = 0.4)"
    assert told(-0.012, 0.01) == "not better (p = 0.01)"
    assert told(0.012, math.nan) == "+1.2 points (one seed)"
    assert told(math.nan, math.nan) == "–"


def test_rows_add_up() -> None:
    row: Row = make_row("el2n", "10%", flops_choose=1.0, flops_train=2.0, seconds_choose=3.0, seconds_train=4.0)
    assert (row.flops, row.seconds) == (3.0, 7.0)


def test_importing_the_report_loads_nothing_heavy() -> None:
    code = "import sys, modicum.report; print(sorted({'torch', 'plotly', 'PIL', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1, 2])
def test_colors_have_the_contrast_that_wcag_asks_for(theme: int) -> None:
    style = resources.files("modicum.report").joinpath("page.css").read_text("utf-8")
    block = re.findall(r":root[^{]*\{([^}]*--page[^}]*)\}", style)[theme]
    colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    pairs = [
        ("text", "page"),
        ("text", "raised"),
        ("text", "warn-soft"),
        ("text", "soft"),
        ("gray", "page"),
        ("gray", "raised"),
    ]
    pairs += [
        ("accent", "page"),
        ("accent", "raised"),
        ("accent", "soft"),
        ("on-accent", "accent"),
        ("warn", "warn-soft"),
    ]
    pairs += [("gray", "soft")]
    for front, back in pairs:
        assert contrast(colors[front], colors[back]) >= 4.5, (front, back)
    for i in range(10):
        assert contrast(colors[f"s{i}"], colors["page"]) >= 3, f"s{i}"
