"""The verb select in a folder, and its command."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import modicum
from modicum.cli import main
from modicum.context import Context
from modicum.errors import ModicumError
from modicum.ledger import Ledger
from modicum.store import Store
from modicum.training.recipe import Recipe
from modicum.verbs.selecting import with_rule

QUICK = Recipe("linear", epochs=2)
FAST = ("--recipe.model", "linear", "--recipe.epochs", "2")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODICUM_HOME", str(tmp_path / "runs"))


def command(capsys, *words):
    status = main([*map(str, words)])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_folder_has_the_table_the_page_and_the_answer(tmp_path):
    kept = modicum.select("iris", "knn-shapley", 0.3, folder=tmp_path / "run", models=2, recipe=QUICK)
    store = Store(tmp_path / "run")
    assert store.verify() == []
    table = store.read_table("samples.parquet")
    assert len(table) == 90
    assert sorted(np.array(table["id"])[np.array(table["status"]) == "kept"].tolist()) == sorted(kept.ids.tolist())
    saved = store.read_json("run.json")
    assert saved["result"]["check"]["verdict"] in ("better", "same", "worse")
    assert [row["method"] for row in saved["result"]["check"]["rows"]] == ["selection", "random", "stratified", "short"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert saved["result"]["check"]["sentence"] in page
    assert "modicum select iris --seed 0 --models 2 --method knn-shapley --keep 0.3" in page


def test_the_same_selection_with_and_without_a_folder(tmp_path):
    alone = modicum.select("iris", "herding(encoder='inputs')", "4/class")
    told = modicum.select("iris", "herding(encoder='inputs')", per_class=4, folder=tmp_path / "run", models=0)
    assert alone.ids.tolist() == told.ids.tolist()
    assert Store(tmp_path / "run").read_json("run.json")["result"]["check"] is None


def test_a_table_that_was_edited_is_applied(tmp_path, capsys):
    modicum.select("iris", "random", 10, folder=tmp_path / "run", models=0)
    path = tmp_path / "run" / "samples.parquet"
    table = pq.read_table(path)
    turned = ["dropped" if s == "kept" else "kept" for s in table["status"].to_pylist()]
    pq.write_table(
        table.set_column(table.schema.get_field_index("status"), "status", [turned]), tmp_path / "edited.parquet"
    )
    kept = modicum.select("iris", table=tmp_path / "edited.parquet")
    assert len(kept) == 80
    status, out, _ = command(capsys, "select", "iris", "--table", "edited.parquet", "--models", 0, "--json")
    assert status == 0
    assert json.loads(out)["samples"] == 80
    with pytest.raises(ModicumError, match="says which samples to keep; leave keep, per_class and rule out"):
        modicum.select("iris", table="edited.parquet", keep=3)


def test_kept_and_dropped_are_the_file_again(tmp_path, capsys):
    draw = np.random.default_rng(0)
    lines = [f"{a:.3f},{b:.3f},note {i},{int(a > 0)}" for i, (a, b) in enumerate(draw.normal(size=(60, 2)))]
    (tmp_path / "a-train.csv").write_text("\n".join(["u,v,sample_note,label", *lines]) + "\n")
    (tmp_path / "a-test.csv").write_text("\n".join(["u,v,sample_note,label", *lines[:9]]) + "\n")
    words = ("select", "a-train.csv", "--label", "label", "--method", "random", "--keep", "50%", "--models", 2, *FAST)
    status, out, err = command(capsys, *words, "--dropped", "left.csv", "--json")
    assert status == 0, err
    answer = json.loads(out)
    kept = Path(answer["file"]).read_text().splitlines()
    left = (tmp_path / "left.csv").read_text().splitlines()
    assert kept[0] == left[0] == "u,v,sample_note,label"
    assert len(kept) - 1 == answer["samples"]
    assert set(kept[1:]).isdisjoint(left[1:])
    assert set(kept[1:]) | set(left[1:]) <= set(lines)
    assert len(kept) + len(left) - 2 == answer["of"]
    assert sum(row["kept"] for row in answer["classes"]) == answer["samples"]
    assert answer["check"]["verdict"]


def test_people_read_a_table_and_a_sentence(capsys):
    status, out, err = command(capsys, "select", "iris", "--method", "random", "--keep", "20%", "--models", 2, *FAST)
    assert status == 0, err
    assert "setosa" in out
    assert "18 of 90 samples are kept." in out
    assert "Report: " in out
    assert "About " in err


def test_again_from_where_it_stopped(tmp_path):
    first = modicum.select("iris", "random", 0.2, folder=tmp_path / "run", models=2, recipe=QUICK, max_seconds=0)
    assert Store(tmp_path / "run").read_json("run.json")["result"]["check"] is None
    again = modicum.select("iris", "random", 0.2, folder=tmp_path / "run", models=2, recipe=QUICK)
    assert first.ids.tolist() == again.ids.tolist()
    assert Store(tmp_path / "run").read_json("run.json")["result"]["check"]["verdict"]


def test_the_cost_of_choosing_and_of_checking_are_told_apart(tmp_path):
    ctx = Context(ledger=Ledger())
    modicum.select("iris", "k-center-greedy", 0.2, folder=tmp_path / "run", models=2, recipe=QUICK, ctx=ctx)
    phases = {phase: ctx.ledger.total(phase).flops for phase in ("choose", "evaluate")}
    assert phases["choose"] > 0
    assert phases["evaluate"] > 0
    saved = Ledger.from_json(Store(tmp_path / "run").read_json("run.json")["result"]["ledger"])
    assert saved.total().flops == phases["choose"]


@pytest.mark.parametrize(
    "words, message",
    [
        ({"method": "dm", "keep": 3}, "method 'dm' does not choose samples; use a valuation or selection method"),
        (
            {"method": "random", "keep": 3, "rule": "hardest"},
            "rule='hardest' is for scores, but 'random' chooses by itself",
        ),
        (
            {"method": "margin", "keep": 3, "rule": "best"},
            "rule='best' is unknown; expected one of hardest, easiest, middle, ccs",
        ),
        (
            {"method": "random", "keep": 3, "class_balance": 0.5},
            "class_balance=0.5 is given, but 'random' has no such option",
        ),
        ({"keep": 3, "models": -1}, "models=-1; expected a number >= 0"),
        ({"keep": 3, "per_class": 2}, "keep=3 and per_class=2 are both given; expected one of them"),
    ],
)
def test_what_cannot_be_done_is_said(words, message):
    with pytest.raises(ModicumError, match=message):
        modicum.select("iris", **words)


def test_a_rule_makes_a_method_of_a_score():
    assert with_rule("margin", None).card.key == "margin"
    assert with_rule("el2n(runs=2)", "easiest").order == "easiest"
    assert with_rule("el2n(runs=2)", "ccs").score == "el2n(runs=2)"
    assert with_rule("el2n", None, 0.5).class_balance == 0.5


def test_resume_report_and_verify_know_the_run(tmp_path, capsys):
    words = ("select", "iris", "--method", "margin", "--rule", "easiest", "--keep", "20%", *FAST, "--folder", "run")
    status, out, err = command(capsys, *words, "--max-seconds", 0, "--json")
    assert status == 0, err
    assert json.loads(out)["check"] is None
    status, out, err = command(capsys, "resume", "run", "--json")
    assert status == 0, err
    answer = json.loads(out)
    assert answer["check"]["verdict"]
    assert command(capsys, "report", "run", "--json")[0] == 0
    assert (
        json.loads((tmp_path / "run" / "run.json").read_text())["result"]["check"]["verdict"]
        == answer["check"]["verdict"]
    )
    status, out, err = command(capsys, "verify", "run")
    assert status == 0, out + err


def test_a_folder_of_images_is_written_again_by_its_own_run_only(tmp_path, capsys):
    modicum.save(modicum.load("digits").train[:60], tmp_path / "png")
    words = ("select", "png", "--method", "random", "--keep", "50%", "--models", 0, "--folder", "run", "--json")
    for _ in range(2):
        status, out, err = command(capsys, *words)
        assert status == 0, err
        assert len(list(Path(json.loads(out)["file"]).rglob("*.png"))) == json.loads(out)["samples"]
    status, _, err = command(capsys, *words[:-3], "--folder", "other")
    assert status == 1
    assert "png-kept' is not an empty folder; choose another one, or a file name" in err
