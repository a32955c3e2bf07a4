"""The verb and the command forecast, from data to page."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import modicum
from modicum.cli import main
from modicum.errors import ModicumError
from modicum.store import Store

QUICK = ["--recipe.model", "linear", "--recipe.epochs", "4", "--keep", "20%", "0.5", "--runs", "2"]


def test_the_command_writes_what_it_prints(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODICUM_HOME", str(tmp_path / "runs"))
    words = ["forecast", "prune", "digits", *QUICK]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert err.startswith("About ")
    assert "fewer --runs or smaller --shares take less" in err
    assert "samples per effective dimension" in out
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["keep"] for row in told["rows"]] == pytest.approx([0.2, 0.5], abs=1e-3)
    assert told["interval"][0] <= told["alpha"] <= told["interval"][1]
    folder = Path(told["report"]).parent
    assert pq.read_table(folder / "forecast.parquet")["best"].to_pylist() == [row["best"] for row in told["rows"]]
    assert pq.read_table(folder / "curve.parquet").num_rows == 4
    page = (folder / "report.html").read_text()
    assert f"{told['alpha']:.3g}" in page
    assert "modicum forecast prune digits" in page
    assert "What to take, and the errors of the pilot" in page
    assert Store(folder).verify() == []
    assert main(["report", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == told["rows"]
    curves = pq.read_table(folder / "curve.parquet")
    assert told["rows"][0]["tried_at"] == pytest.approx(0.2, abs=1e-3)
    assert told["rows"][1]["tried_hardest"] == pytest.approx(curves["hardest"][-1].as_py())
    assert [row["choice"] for row in told["rows"]] == pq.read_table(folder / "forecast.parquet")["choice"].to_pylist()


def test_theory_alone_costs_a_third_and_less(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODICUM_HOME", str(tmp_path / "runs"))
    assert main(["forecast", "prune", "digits", *QUICK, "--no-trials", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["tried_at"] for row in told["rows"]} == {None}
    page = Path(told["report"]).read_text()
    assert "--no-trials" in page
    assert "What to take" not in page
    assert main(["report", str(Path(told["report"]).parent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == told["rows"]


def test_the_verb_charges_the_pilot_and_nothing_else() -> None:
    ctx = modicum.Context()
    recipe = modicum.Recipe(model="linear", epochs=2)
    found = modicum.forecast("iris", keep=["50%", 0.2], shares=(0.2, 0.4), runs=2, recipe=recipe, ctx=ctx, angle=0.1)
    assert [row.keep for row in found.rows] == pytest.approx([0.2, 0.5])
    assert found.angle == 0.1
    assert ctx.ledger.total().flops == ctx.ledger.total("choose").flops > 0


def test_what_cannot_be_forecast() -> None:
    with pytest.raises(ModicumError, match="what='scale'; expected 'prune'"):
        modicum.forecast("iris", "scale")
    with pytest.raises(ModicumError, match=r"keep=1\.0; expected shares below 100 %"):
        modicum.forecast("iris", keep=1.0)
    with pytest.raises(ModicumError, match="train is for regression"):
        modicum.forecast("diabetes", keep=0.5)
