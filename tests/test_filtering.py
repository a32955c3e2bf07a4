"""The verb and the command filter: from a file and a judge to a kept file, a table and a page."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import modicum
from modicum.cli import main
from modicum.errors import DataError, ModicumError, StoreError
from modicum.store import Store
from modicum.valuation import Quality

QUICK = Quality(encoder="statistics", classifier="logistic")
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Sentences that count up, a third of them with their words mixed."""
    draw = np.random.default_rng(0)
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    file = tmp_path / "texts.jsonl"
    with open(file, "w") as handle:
        for i in range(450):
            start = int(draw.integers(0, 6))
            words = [*names[start : start + 7], "and", "so", "on"]
            bad = i % 3 == 0
            text = " ".join(draw.permutation(words) if bad else words)
            handle.write(json.dumps({"text": f"{text} {EVIL}" if i == 1 else text, "note": {"bad": bad}}) + "\n")
    return file


def judge(rows: list[dict]) -> list[bool]:
    return [not row["note"]["bad"] for row in rows]


class TestVerb:
    def test_a_function_judges(self, texts: Path, tmp_path: Path) -> None:
        out = tmp_path / "kept.jsonl"
        found = modicum.filter(
            texts, judge, precision=0.8, ask=160, method=QUICK, folder=tmp_path / "run", out=out, inputs="text"
        )
        kept = [json.loads(line) for line in out.read_text().splitlines()]
        assert len(kept) == len(found.dataset)
        assert np.mean([not row["note"]["bad"] for row in kept]) > 0.9
        original = texts.read_text().splitlines()
        assert out.read_text().splitlines() == [original[i] for i in sorted(found.dataset.ids.tolist())]
        store = Store(tmp_path / "run")
        assert store.verify() == []
        assert set(store.names()) == {"judgments.json", "report.html", "run.json", "samples.parquet"}
        table = store.read_table("samples.parquet")
        assert table.column_names == ["id", "status", "probability", "rank", "reason", "judged_good", "held_out"]
        assert len(table) == 450
        assert table["status"].to_pylist().count("kept") == len(kept)
        assert 450 - table["judged_good"].null_count == 160
        page = (tmp_path / "run" / "report.html").read_text("utf-8")
        assert found.sentence in page
        assert EVIL not in page
        assert "default-src 'none'" in page
        saved = store.read_json("run.json")["result"]
        assert saved["precision"]["low"] >= 0.8
        assert saved["kept"] == len(kept)

    def test_what_was_judged_is_not_asked_again(self, texts: Path, tmp_path: Path) -> None:
        asked: list[int] = []

        def count(rows: list[dict]) -> list[bool]:
            asked.extend(row["id"] for row in rows)
            if len(asked) > 70:
                raise KeyboardInterrupt
            return judge(rows)

        options = {"keep": 0.5, "method": QUICK, "folder": tmp_path, "inputs": "text", "batch": 30}
        with pytest.raises(KeyboardInterrupt):
            modicum.filter(texts, count, ask=120, **options)
        assert len(json.loads((tmp_path / "judgments.json").read_text())["scores"]) == 60
        first = asked[:60]
        asked.clear()

        def calm(rows: list[dict]) -> list[bool]:
            asked.extend(row["id"] for row in rows)
            return judge(rows)

        calm.__qualname__ = count.__qualname__
        interrupted = modicum.filter(texts, calm, ask=120, **options)
        assert len(asked) == 60
        assert not set(asked) & set(first)
        whole = modicum.filter(texts, judge, ask=120, **{**options, "folder": None})
        assert np.array_equal(interrupted.selection.values, whole.selection.values)
        with pytest.raises(StoreError, match="holds judgments of another judge"):
            modicum.filter(texts, judge, ask=120, **options)

    def test_a_file_of_labels_judges(self, texts: Path, tmp_path: Path) -> None:
        labels = tmp_path / "labels.csv"
        rows = np.random.default_rng(1).permutation(450)[:150]
        labels.write_text("id,label\n" + "".join(f"{i},{'bad' if i % 3 == 0 else 'good'}\n" for i in rows))
        found = modicum.filter(texts, labels, keep=200, method=QUICK, inputs="text")
        assert len(found.dataset) == 200
        assert (found.dataset.ids % 3 != 0).mean() > 0.95
        labels.write_text("id,label\nx,1\n")
        with pytest.raises(
            DataError, match=r"judge: none of its 1 ids, such as 'x', is one of the 450 samples; expected ids such as 0"
        ):
            modicum.filter(texts, labels, keep=200, method=QUICK, inputs="text")

    def test_another_answer_takes_the_place_of_the_first(self, texts: Path, tmp_path: Path) -> None:
        folder, options = tmp_path / "run", {"method": QUICK, "inputs": "text", "ask": 60}
        modicum.filter(texts, judge, keep=100, folder=folder, **options)
        again = modicum.filter(texts, judge, keep=200, folder=folder, **options)
        assert again.earlier == 60
        assert "60 samples were judged (an earlier run asked about 60 of them)" in again.detail
        with pytest.raises(ModicumError, match="could not be shown"):
            modicum.filter(texts, judge, precision=0.999, folder=folder, **options)
        assert Store(folder).names() == ["judgments.json", "run.json"]
        with pytest.raises(
            DataError, match=r"all 60 judged samples are bad, 60 of them by what the judge said in an earl"
        ):
            modicum.filter(texts, judge, keep=100, good=2.0, folder=folder, **options)

    def test_a_folder_of_images_is_written_again_and_no_other_is_touched(self, tmp_path: Path) -> None:
        from PIL import Image

        (tmp_path / "in").mkdir()
        draw = np.random.default_rng(0)
        for i in range(60):
            dark = draw.integers(0, 90 if i % 3 else 255, (8, 8)).astype(np.uint8)
            Image.fromarray(dark).save(tmp_path / "in" / f"{i}.png")

        def dim(rows: list[dict]) -> list[bool]:
            return [row["image"].max() < 90 for row in rows]

        options = {"ask": 40, "method": QUICK, "folder": tmp_path / "run"}
        modicum.filter(tmp_path / "in", dim, keep=30, out=tmp_path / "out", **options)
        found = modicum.filter(tmp_path / "in", dim, keep=20, out=tmp_path / "out", **options)
        assert {file.name for file in (tmp_path / "out").iterdir()} == set(found.dataset.ids.tolist())
        with pytest.raises(ModicumError, match="is not an empty folder; choose another one"):
            modicum.filter(tmp_path / "in", lambda rows: 1 / 0, keep=20, out=tmp_path / "in", **options)
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "a").touch()
        with pytest.raises(ModicumError, match="is not an empty folder; choose another one"):
            modicum.filter(tmp_path / "in", dim, keep=20, out=tmp_path / "mine", **options)
        assert (tmp_path / "mine" / "a").exists()

    def test_ranks_are_those_of_the_choice_where_probabilities_tie(self, texts: Path, tmp_path: Path) -> None:
        method = Quality(encoder="statistics", classifier="logistic", calibration="isotonic")
        modicum.filter(texts, judge, keep=200, ask=100, method=method, folder=tmp_path, inputs="text")
        table = Store(tmp_path).read_table("samples.parquet")
        free = np.array(table["judged_good"].is_null())
        kept, rank = np.array(table["status"]) == "kept", np.array(table["rank"])
        assert sorted(rank) == list(range(450))
        assert rank[free & kept].max() < rank[free & ~kept].min()

    def test_images(self) -> None:
        draw = np.random.default_rng(0)
        data = modicum.load("digits", valid=0, test=0).train
        pixels = data.inputs.clone()
        bad = draw.permutation(len(data))[:600]
        flat = pixels[bad].flatten(1).numpy()
        pixels[bad] = pixels.new_tensor(draw.permuted(flat, axis=1)).reshape(-1, 1, 8, 8)
        broken = data.replace(inputs=pixels)
        wrong = set(broken.ids[bad].tolist())
        found = modicum.filter(
            broken, lambda rows: [r["id"] not in wrong for r in rows], keep=0.5, ask=120, method=QUICK
        )
        assert np.mean([i not in wrong for i in found.dataset.ids.tolist()]) > 0.9

    def test_arguments_that_cannot_be(self, texts: Path) -> None:
        with pytest.raises(ModicumError, match=r"keep=0.5 and precision=0.9 are both given"):
            modicum.filter(texts, judge, 0.5, 0.9)
        with pytest.raises(ModicumError, match="precision=2; expected a share"):
            modicum.filter(texts, judge, precision=2)
        with pytest.raises(ModicumError, match="ask=3 and batch=50; expected at least 8"):
            modicum.filter(texts, judge, ask=3)
        with pytest.raises(ModicumError, match=r"level=95; expected a confidence in \(0, 1\)"):
            modicum.filter(texts, judge, level=95)
        with pytest.raises(DataError, match="judge: score 2 of 2 is nan; expected a number"):
            modicum.filter(texts, {0: 1.0, 1: float("nan")}, inputs="text")
        with pytest.raises(ModicumError, match="judge is a int; expected a function"):
            modicum.filter(texts, 3)
        with pytest.raises(ModicumError, match="is a budget per class; expected a fraction or a count"):
            modicum.filter(texts, judge, "3/class")
        with pytest.raises(ModicumError, match="asks for 9000 samples, but there are 450"):
            modicum.filter(texts, judge, 9000, inputs="text")


class TestCommand:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MODICUM_HOME", str(tmp_path / "runs"))

    def test_a_command_judges(self, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        code = "import sys, json; [print(int(not json.loads(line)['note']['bad'])) for line in sys.stdin]"
        words = ["filter", str(texts), "--inputs", "text", "--command", f'{sys.executable} -c "{code}"', "--ask", "120"]
        words += ["--keep", "40%", "--encoder", "statistics", "--classifier", "logistic"]
        assert main([*words, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["kept"] == 180
        assert answer["rows"][0]["good at least"] == answer["precision"]["low"]
        assert answer["file"] == "texts-kept.jsonl"
        assert len((tmp_path / "texts-kept.jsonl").read_text().splitlines()) == 180
        assert Path(answer["report"]).is_file()
        assert main(["report", answer["folder"], "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["rows"] == answer["rows"]

    def test_its_errors_are_one_line(self, texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["filter", str(texts)]) == 1
        assert "give --labels FILE or --command CMD, and not both" in capsys.readouterr().err
        assert main(["filter", str(texts), "--inputs", "text", "--command", "false"]) == 1
        assert "command 'false' ended with the status 1" in capsys.readouterr().err
