"""The main job on small data: protocol, resumption, time limits, errors."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import modicum
from modicum.comparison import DEFAULT_METHODS, Frontier
from modicum.errors import BudgetError, ModicumError
from modicum.store import Store
from modicum.training.recipe import Recipe

QUICK = Recipe(model="mlp(hidden=16, layers=1)", epochs=4, batch_size=32, lr=0.05)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODICUM_HOME", str(tmp_path / "home"))
    return tmp_path / "run"


def numbers(frontier: Frontier) -> list[tuple[object, ...]]:
    """All that must not change: everything but seconds and memory."""
    rows = []
    for p in frontier.points:
        charges = [replace(c, seconds=0.0, peak_bytes=0) for c in p.ledger.charges]
        rows.append((p.method, p.budget, p.seed, p.keep, p.samples, p.valid, p.test, p.class_counts, charges))
    return rows


def test_every_default_method_on_digits(folder: Path) -> None:
    methods = [m if not m.startswith("dm") else "dm(iterations=2)" for m in DEFAULT_METHODS]
    found = modicum.compare("digits", methods, ["20%"], 1, QUICK, folder=folder, limit=300)
    assert [p.method for p in found.points] == ["full", "random", "stratified", "short", *methods[4:]]
    by = {p.method: p for p in found.points}
    train = by["full"].ledger.total("train")
    assert train.samples == 300 * 4
    for name, point in by.items():
        spent = point.ledger.total("train")
        if name in ("full", "infobatch", "hard-samples"):
            assert spent.samples <= train.samples
            continue
        assert spent.samples <= 0.25 * train.samples, name
        assert point.ledger.total("choose").flops > 0 or name in ("random", "stratified", "short"), name
    assert found.report is not None
    assert found.report.stat().st_size > 1_000_000
    store = Store(folder)
    assert store.verify() == []
    assert {"run.json", "points.json", "points.parquet", "report.html", "scores-aum.parquet"} <= set(store.names())
    assert not [name for name in store.names() if name.endswith(".state")]


def test_controls_always_take_part_and_steps_are_equal(folder: Path) -> None:
    found = modicum.compare("iris", ["herding"], ["50%", "10/class"], 1, QUICK, folder=folder)
    assert {p.method for p in found.points} == {"full", "random", "stratified", "short", "herding"}
    store = Store(folder)
    assert store.read_json("run.json")["budgets"] == ["50%", "10/class"]
    short = next(p for p in found.points if p.method == "short" and p.budget == "50%")
    assert short.samples == 90  # all data ...
    assert short.keep == pytest.approx(0.5, abs=0.06)  # ... for half the visits


def test_running_again_does_nothing_and_other_work_is_refused(folder: Path) -> None:
    first = modicum.compare("iris", ["aum"], ["50%"], 2, QUICK, folder=folder)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"}
    again = modicum.compare("iris", ["aum"], ["50%"], 2, QUICK, folder=folder)
    assert numbers(first) == numbers(again)
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"}
    with pytest.raises(ModicumError, match="holds another comparison; choose another folder"):
        modicum.compare("iris", ["aum"], ["40%"], 2, QUICK, folder=folder)


def test_max_seconds_gives_the_answer_so_far_and_goes_on_later(folder: Path) -> None:
    part = modicum.compare("iris", ["aum"], ["50%"], 2, QUICK, folder=folder, max_seconds=1e-9)
    assert not part.finished
    assert part.points == ()
    assert "Stopped early" in (folder / "report.html").read_text()
    whole = modicum.compare("iris", ["aum"], ["50%"], 2, QUICK, folder=folder)
    assert whole.finished
    assert "Stopped early" not in (folder / "report.html").read_text()
    fresh = modicum.compare("iris", ["aum"], ["50%"], 2, QUICK, folder=folder.with_name("fresh"))
    assert numbers(whole) == numbers(fresh)


def test_measured_once_charged_to_every_reader(folder: Path) -> None:
    found = modicum.compare("iris", ["aum(until=1.0)", "forgetting(runs=1)"], ["50%"], 1, QUICK, folder=folder)
    aum, forgetting = (next(p for p in found.points if p.method.startswith(m)) for m in ("aum", "forgetting"))
    assert aum.ledger.total("choose").flops == forgetting.ledger.total("choose").flops > 0
    entries = list((folder.parent / "home" / "cache" / "traces").iterdir())
    assert len(entries) == 1


def test_the_estimate_is_told_before_the_work(folder: Path) -> None:
    told: list[modicum.comparison.Estimate] = []
    modicum.compare("iris", ["random"], ["50%"], 1, QUICK, folder=folder, announce=told.append)
    assert len(told) == 1
    assert told[0].trainings == 4
    assert 0 < told[0].seconds < 60


def test_regression_leaves_out_what_needs_classes(folder: Path) -> None:
    found = modicum.compare("diabetes", DEFAULT_METHODS, ["50%"], 1, replace(QUICK, lr=0.01), folder=folder)
    assert found.metric == "R²"
    names = {p.method for p in found.points}
    assert {"full", "random", "short"} <= names
    assert not names & {"aum", "margin", "dm(iterations=100)"}


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"methods": ["el3n"]}, ModicumError, "method 'el3n' is unknown; did you mean el2n"),
        ({"methods": ["el2n(rounds=3)"]}, ModicumError, "has no option 'rounds'; its options are"),
        ({"budgets": ["130%"]}, BudgetError, r"keep=1.3 is out of range"),
        ({"budgets": [5000]}, BudgetError, "asks for 5000 samples, but there are 90"),
        ({"budgets": []}, ModicumError, "expected at least one of each"),
        ({"seeds": 0}, ModicumError, "seeds=0"),
    ],
)
def test_errors_name_what_is_wrong(
    folder: Path, arguments: dict[str, object], error: type[Exception], words: str
) -> None:
    given = {"methods": ["random"], "budgets": ["50%"], "seeds": 1, **arguments}
    with pytest.raises(error, match=words):
        modicum.compare("iris", recipe=QUICK, folder=folder, **given)  # type: ignore[arg-type]
    assert not (folder / "points.json").exists()


COMMAND = [
    *(sys.executable, "-m", "modicum", "compare", "digits", "--limit", "300", "--seeds", "2", "--budgets", "20%"),
    *("--methods", "aum", "knn-shapley", "infobatch", "dm(iterations=8, batch_real=32)", "--recipe.epochs", "30"),
    *("--checkpoint-seconds", "0.05"),
]


def start(folder: Path, home: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "MODICUM_HOME": str(home), "OMP_NUM_THREADS": "1"}
    with open(home.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(
            [*COMMAND, "--out", str(folder)], env=environment, start_new_session=True, stdout=log, stderr=log
        )


def finish(folder: Path, home: Path) -> float:
    """Run to the end; how long it took."""
    began = time.monotonic()
    assert start(folder, home).wait(300) == 0, home.with_suffix(".log").read_text()
    return time.monotonic() - began


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_no_number(tmp_path: Path) -> None:
    length = finish(tmp_path / "plain", tmp_path / "home-plain")
    dice, kills, progress = random.Random(0), 0, 0
    run, home = tmp_path / "killed", tmp_path / "home-killed"
    while kills < 20:
        process = start(run, home)
        # the imports take about the first two seconds; the kills fall all over what follows, writes included
        time.sleep(2.0 + dice.random() * max(1.0, length - 2.0) * 0.6)
        if process.poll() is not None:  # it was done before the kill: begin again, so that every kill hits work
            assert process.returncode == 0, home.with_suffix(".log").read_text()
            run, home, progress = tmp_path / f"killed-{kills}", tmp_path / f"home-{kills}", 0
            continue
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        if run.exists():
            store = Store(run)
            assert [d for d in store.verify() if d.problem != "missing"] == []
            done = len(store.read_json("points.json")) if store.has("points.json") else 0
            assert done >= progress  # finished points are never lost
            progress = done
    finish(run, home)
    ours, theirs = (json.loads((folder / "points.json").read_text()) for folder in (run, tmp_path / "plain"))
    for row in [*ours.values(), *theirs.values()]:
        for charge in row["ledger"]:
            charge["seconds"] = charge["peak_bytes"] = 0
    assert ours == theirs
    assert Store(run).verify() == []
