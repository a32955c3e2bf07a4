"""The page of a pretraining run: what it says, that it escapes, that it needs no network, and what its map does."""

from __future__ import annotations

import io
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import modicum
from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError
from modicum.pretraining import Curve, ProbeRow, ProbeTable, pretrain, probe
from modicum.report.content import DataSummary, Item
from modicum.report.costs import CostRow
from modicum.report.plane import plane, sprite
from modicum.report.pretraining_page import (
    MapSummary,
    MomentSummary,
    NeighborRow,
    PretrainingContent,
    ProbeSummary,
    pretraining_page,
)
from modicum.report.write_pretraining import _answer, _queries, write_pretraining
from modicum.store import Store
from modicum.training.recipe import Recipe

EVIL = "<script>alert('x')</script>"
MAP = MapSummary(((0.0, 0.0), (1.0, 1.0), (0.5, 0.5)), (0, 1, 1), ("cat", "dog"), ("7", "8", "9"), "t-SNE")


def probes(encoder: float = 0.9, data: str = "") -> tuple[ProbeSummary, ...]:
    found = {"encoder": encoder, "untrained network": 0.6, "raw inputs": 0.7}
    rows = [ProbeSummary(data, name, "k-NN", 0, a, None, 100, 0.1) for name, a in found.items()]
    return (*rows, *(ProbeSummary(data, name, "linear", 5, a, 0.012, 10, 0.1) for name, a in found.items()))


def content(**changes: object) -> PretrainingContent:
    cat, dog = Item("7", "cat", text="meow"), Item("8", "dog", text="woof")
    given: dict[str, object] = {
        "title": "modicum pretrain",
        "sentence": "It learned something.",
        "detail": "Nothing else.",
        "facts": (("Cost", "3 FLOP", "in a second"),),
        "data": DataSummary("pets", 3, 2, 2, ("cat", "dog")),
        "probes": probes(),
        "tested": {"": 400},
        "curve": (MomentSummary(1, 10, 100, 1.0, 0.5), MomentSummary(2, 20, 200, 2.0, 0.75)),
        "neighbors": (NeighborRow(cat, (cat, dog), (False, True)),),
        "agreement": (0.5, 0.25),
        "plane": MAP,
        "costs": (CostRow("pretrain", "train", 20, 0, 100, 100, 0, 2.0, 10**8),),
    }
    return PretrainingContent(**{**given, **changes})  # type: ignore[arg-type]


def test_everything_is_on_it() -> None:
    text = pretraining_page(content())
    for words in (
        "It learned something.",
        "90.0\xa0%",
        "90.0\xa0±\xa01.2\xa0%",
        "+20.0",
        "5 labels a class",
        "400 samples",
    ):
        assert words in text
    assert text.count('class="lines"') == 2
    assert text.count("another class") == 2  # once in words, once for the dog near the cat
    assert "50.0\xa0% of the eight nearest" in text
    assert "The encoder never saw a label." in text
    assert text.count("<circle cx") == 3
    assert "raw inputs (test)" in text
    assert "{{" not in text


def test_parts_that_are_missing_leave_a_sentence() -> None:
    text = pretraining_page(content(probes=(), curve=(), neighbors=(), plane=None, agreement=None, costs=()))
    for words in ("no labels to probe with", "fewer than two moments", "no samples to show", "There is no map."):
        assert words in text
    assert 'id="places"' not in text


def test_a_learner_that_reads_labels_does_not_claim_otherwise() -> None:
    read = CostRow("pretrain", "train", 20, 3, 100, 100, 0, 2.0, 10**8)
    assert "never saw a label" not in pretraining_page(content(costs=(read,)))


def test_names_from_data_are_escaped() -> None:
    evil = Item(EVIL, EVIL, text=EVIL)
    text = pretraining_page(
        content(
            title=EVIL,
            sentence=EVIL,
            facts=((EVIL, EVIL, EVIL),),
            data=DataSummary(EVIL, 1, 1, 1, (EVIL,)),
            probes=probes(data=EVIL),
            neighbors=(NeighborRow(evil, (evil,), (True,)),),
            plane=replace(MAP, classes=(EVIL, EVIL), ids=(EVIL,) * 3, notes=(EVIL,) * 3),
            uncounted=(EVIL,),
            command=EVIL,
        )
    )
    assert "<script>alert" not in text
    assert "&lt;script&gt;" in text
    assert r"\u003cscript" in text  # what the map tells


def test_it_makes_no_request() -> None:
    text = pretraining_page(content())
    assert "default-src 'none'" in text
    assert not re.findall(r'(?:src|href)="(?!#|data:)', text)


class TestPlane:
    def test_groups_stay_together(self) -> None:
        draw = torch.Generator().manual_seed(0)
        labels = torch.arange(60) % 3
        rows = 5 * torch.eye(3)[labels] @ torch.randn(3, 16, generator=draw) + torch.randn(60, 16, generator=draw)
        places, kind = plane(rows)
        assert kind == "t-SNE"
        assert places.min() == 0.0
        assert places.max() == 1.0
        centers = np.stack([places[labels == c].mean(0) for c in range(3)])
        nearest = ((places[:, None] - centers) ** 2).sum(-1).argmin(1)
        assert (nearest == labels.numpy()).mean() > 0.9
        assert np.array_equal(plane(rows)[0], places)

    def test_little_is_enough(self) -> None:
        assert plane(torch.ones(1, 4))[0].tolist() == [[0.0, 0.0]]
        assert plane(torch.rand(5, 1))[0].shape == (5, 2)
        assert plane(torch.ones(60, 4))[1] == "principal components"
        with pytest.raises(DataError, match=r"features have shape \(0, 3\); expected \(n, d\)"):
            plane(torch.zeros(0, 3))

    def test_pictures_are_where_the_map_looks_for_them(self) -> None:
        images = torch.zeros(43, 1, 8, 8)
        images[41] = 255.0
        made, side = sprite(images, 0.0, 255.0)
        sheet = np.asarray(Image.open(io.BytesIO(made)))
        assert side == 8
        assert sheet.shape == (16, 320)
        assert sheet[8:16, 8:16].mean() > 250  # second row, second column
        assert sheet[:8].mean() < 5

    def test_large_and_oblong_pictures_shrink_in_the_middle(self) -> None:
        made, side = sprite(torch.ones(1, 3, 64, 128), 0.0, 1.0)
        sheet = np.asarray(Image.open(io.BytesIO(made)))
        assert side == 32
        assert sheet[9:23, 2:30].min() > 240
        assert sheet[:7, :32].max() < 15
        with pytest.raises(DataError, match=r"images have shape \(1, 2, 4, 4\)"):
            sprite(torch.ones(1, 2, 4, 4), 0.0, 1.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    data = modicum.load("digits")
    data = Splits(data.train[:200], data.valid[:60], data.test[:100])
    recipe = Recipe("mlp(hidden=16)", epochs=2, batch_size=64, optimizer="adamw", lr=1e-3)
    ctx, curve = Context(), Curve(data, recipe)
    done = pretrain(data, "simclr(augment='none', hidden=16, dimension=8)", recipe, ctx, recorder=curve)
    table = probe(done.encoder, data, ctx, recipe=recipe, shots=(1,), draws=2)
    folder = tmp_path_factory.mktemp("run")
    settings = {"data": "digits", "method": done.method, "recipe": asdict(recipe), "seed": 0, "share": 0.5}
    write_pretraining(done, data, Store(folder), settings, table, curve.rows(done))
    return folder, done


def test_a_run_writes_tables_and_page(run: tuple[Path, Any]) -> None:
    folder, done = run
    store = Store(folder)
    assert store.verify() == []
    assert set(store.names()) == {"probes.parquet", "curve.parquet", "report.html", "run.json"}
    assert store.read_table("probes.parquet").num_rows == 3 * 5
    assert store.read_table("curve.parquet")["epoch"].to_pylist() == [1, 2]
    result = store.read_json("run.json")["result"]
    assert result["cost"]["flops"] == done.ledger.total().flops
    assert len(result["probes"]) == 15
    text = (folder / "report.html").read_text("utf-8")
    assert "--share 0.5" in text
    assert "--recipe.model" in text
    assert text.count('<div class="query">') == 10
    assert "probes and their controls" in text


def test_an_unlabeled_run_has_a_page_too(run: tuple[Path, Any], tmp_path: Path) -> None:
    _, done = run
    images = torch.rand(20, 1, 8, 8)
    whole = Dataset(images, info=Info("unlabeled", "image", source="dots"))
    write_pretraining(done, Splits(whole, whole[:0], whole[:6]), Store(tmp_path), {"data": "dots", "method": "simclr"})
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "learned without labels" in text
    assert text.count('<div class="query">') == 6
    assert "another class</span>" not in text


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (0.9, "20.0 points more than on raw inputs"),
        (0.7, "No difference can be told"),
        (0.5, "Not worth its cost here"),
    ],
)
def test_the_answer_is_the_honest_one(run: tuple[Path, Any], own: float, words: str) -> None:
    rows = [ProbeRow(**{**asdict(p), "probe": "linear", "shots": 0}) for p in probes(own) if p.probe == "k-NN"]
    table = ProbeTable(tuple(rows), {"": 400}, modicum.Ledger())
    sentence, detail = _answer(run[1], table, 200)
    assert words in sentence
    assert "two standard errors of the test split" in detail


def test_queries_are_of_all_classes() -> None:
    labels = torch.tensor([0] * 30 + [1, 1, 2])
    data = Dataset(torch.rand(33, 2), labels, info=Info(classes=("a", "b", "c")))
    assert _queries(data)[:5] == [0, 30, 32, 1, 31]
    assert len(_queries(data)) == 10


def test_in_a_browser(run: tuple[Path, Any], tmp_path: Path) -> None:
    import test_browser as browser

    if not (browser.CHROMIUM and browser.DRIVER):
        pytest.skip("needs Debian's chromium and chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the package selenium")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(browser.CHROMIUM)
    for option in (*browser.OPTIONS, f"--user-data-dir={tmp_path}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(browser.DRIVER)))
    try:
        driver.get((run[0] / "report.html").as_uri())
        point = (
            "const d = document.querySelectorAll('.dots circle')[3].getBoundingClientRect();"
            "document.querySelector('.plane svg').dispatchEvent(new PointerEvent('pointermove',"
            "{clientX: d.x + d.width / 2, clientY: d.y + d.height / 2}));"
            "const t = document.querySelector('.tip'); return [t.hidden, t.textContent.trim()]"
        )
        hidden, words = driver.execute_script(point)
        assert not hidden
        assert re.fullmatch(r"0 · \d+", words), "the fourth dot of the first class"
        browser.one(driver, "#class option[value='3']").click()
        assert len(driver.find_elements("css selector", "g.dots.faded")) == 9
        for pixels in (320, 360, 1280):
            browser.width(driver, pixels, pixels < 700)
            inner, room = driver.execute_script(
                "const r = document.documentElement; return [r.scrollWidth, r.clientWidth]"
            )
            assert inner == room <= pixels
        assert [line for line in driver.get_log("browser") if line["level"] in ("SEVERE", "WARNING")] == []
    finally:
        driver.quit()
