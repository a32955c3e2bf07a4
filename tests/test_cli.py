"""The command line as people and programs use it, in this process and from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from modicum.cli import main

QUICK = ["--recipe.model", "linear", "--recipe.epochs", "2"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODICUM_HOME", str(tmp_path / "runs"))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(list(words))
    out, err = capsys.readouterr()
    return status, out, err


def test_methods_lists_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    from modicum.methods import table

    status, out, _ = run(capsys, "methods", "--json")
    rows = json.loads(out)["rows"]
    assert status == 0
    assert [row["method"] for row in rows] == list(table())
    assert all(row["what"] and row["paper"] for row in rows)
    status, out, _ = run(capsys, "methods", "valuation")
    assert "knn-shapley" in out
    assert "infobatch" not in out
    assert run(capsys, "methods", "valuations")[0] == 1


def test_compare_prints_the_answer_and_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "iris", "--methods", "aum", "--budgets", "50%", "--seeds", "2", *QUICK]
    status, out, err = run(capsys, *words)
    assert status == 0
    assert "About" in err
    assert "report.html" in out
    status, text, _ = run(capsys, *words, "--json")
    answer = json.loads(text)
    assert answer["finished"] is True
    assert answer["recommendation"]["sentence"] in out.replace("\n", " ")
    assert Path(answer["report"]).is_file()
    status, out, _ = run(capsys, "verify", answer["folder"])
    assert status == 0
    assert "0 damaged" in out
    status, text, _ = run(capsys, "resume", answer["folder"], "--json")
    again = json.loads(text)
    assert again["rows"] == answer["rows"]
    Path(answer["report"]).unlink()
    assert run(capsys, "report", answer["folder"])[0] == 0
    assert Path(answer["report"]).is_file()


def test_verify_names_what_is_damaged(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "iris", "--methods", "random", "--budgets", "50%", "--seeds", "1", *QUICK, "--out", "here"]
    assert run(capsys, *words)[0] == 0
    points = Path("here/points.parquet")
    content = bytearray(points.read_bytes())
    content[len(content) // 2] ^= 1
    points.write_bytes(content)
    status, out, err = run(capsys, "verify", "here")
    assert status == 1
    assert "points.parquet" in out
    assert "points.parquet cannot be trusted; delete them and run the same command again" in err
    points.unlink()
    Path("here/report.html").unlink()
    assert run(capsys, *words)[0] == 0
    assert run(capsys, "verify", "here")[0] == 0


def test_score_select_distill_fit_write_what_they_say(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    import pyarrow.parquet as pq

    import modicum

    status, text, told = run(capsys, "score", "iris", "--method", "knn-shapley", "--out", "values.csv", "--json")
    written = pq.read_table(json.loads(text)["file"])
    assert status == 0
    assert told.startswith("About ")
    assert written.column_names == ["id", "value", "standard_error", "rank", "label"]
    assert sorted(written["rank"].to_pylist()) == list(range(90))
    assert Path("values.csv").read_text().splitlines()[0] == '"id","value","standard_error","rank","label"'
    folder = Path(json.loads(text)["report"]).parent
    (folder / "report.html").unlink()
    status, again, _ = run(capsys, "resume", str(folder), "--json")
    assert status == 0
    assert json.loads(again)["rows"] == json.loads(text)["rows"]
    assert (folder / "report.html").is_file()

    status, text, _ = run(capsys, "select", "digits", "--method", "stratified", "--keep", "10%", "--json")
    assert status == 0
    kept = modicum.load(json.loads(text)["file"])
    assert sum(map(len, kept)) == 108
    original = set(modicum.load("digits").train.ids.tolist())
    assert {i for part in kept for i in part.ids.tolist()} <= original

    words = [
        "distill",
        "digits",
        "--method",
        "dm(iterations=2, batch_real=16)",
        "--keep",
        "1/class",
        "--out",
        "tiny.npz",
    ]
    assert run(capsys, *words)[0] == 0
    assert Path("tiny.npz").is_file()

    words = ["fit", "digits", *QUICK, "--out", "model", "--json"]
    status, text, _ = run(capsys, *words)
    assert status == 0
    assert json.loads(text)["rows"][0]["test"] > 0.5
    assert Path("model/model.safetensors").is_file()
    assert "Already done" in run(capsys, *words)[2]


@pytest.mark.parametrize(
    "words, told",
    [
        (["compare", "nowhere.npz"], "nowhere.npz"),
        (["score", "digits", "--method", "random"], "method 'random' gives no scores"),
        (["select", "digits", "--keep", "lots"], "budget 'lots' is not understood; expected 30%, 0.3, 500 or 10/class"),
        (["distill", "digits", "--method", "aum"], "method 'aum' does not make samples"),
        (["fit", "digits", "--recipe.lr", "-1"], "recipe lr=-1.0; expected a number > 0"),
        (["fit", "digits", "--device", "tpu"], "device='tpu'"),
        (["resume", "."], "is not a run: it has no run.json"),
        (["score", "iris", "--out", "scores.xls"], "expected a file that ends with .parquet or .csv"),
    ],
)
def test_errors_are_one_line_and_exit_1(capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    status, out, err = run(capsys, *words)
    assert status == 1
    assert told in err
    assert err.startswith("modicum: ")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert run(capsys, "--version") == (0, f"modicum {version('modicum')}\n", "")
    with pytest.raises(SystemExit) as done:
        main(["compare", "--help"])
    assert done.value.code == 0
    assert "--max-seconds" in capsys.readouterr().out


def test_wrong_usage_exits_2() -> None:
    done = subprocess.run([sys.executable, "-m", "modicum", "compare"], capture_output=True, check=False)
    assert done.returncode == 2
    with pytest.raises(SystemExit) as error:
        main(["compare", "digits", "--keeep", "1"])
    assert error.value.code == 2
