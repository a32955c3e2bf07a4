"""Runs of earlier releases stay readable: one small folder per release is kept, without its page."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import modicum
from modicum.comparison.keep import kept_scores
from modicum.store import Store
from modicum.training.recipe import Recipe

RUNS = sorted(Path(__file__).with_name("fixtures").glob("run-*"))


@pytest.mark.parametrize("run", RUNS, ids=lambda path: path.name)
def test_a_run_of_an_earlier_release_is_read_and_gone_on_with(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODICUM_HOME", str(tmp_path / "home"))
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    store = Store(folder)
    assert store.verify() == []
    assert set(kept_scores(store)) == {"aum", "knn-shapley"}
    before = store.read_json("points.json")
    recipe = Recipe(**{**store.read_json("run.json")["recipe"], "augment": ()})
    found = modicum.compare("iris", ["aum", "knn-shapley"], ["50%"], 2, recipe, folder=folder)
    assert found.finished
    assert len(found.points) == len(before) == 12
    assert Store(folder).read_json("points.json") == before  # nothing was made again
    assert (folder / "report.html").is_file()


def test_there_is_one_for_this_release() -> None:
    assert f"run-{modicum.__version__}" in [run.name for run in RUNS]
