"""What a judge sees, and what it says."""

import datetime
import json
import sys
import time
from decimal import Decimal

import numpy as np
import pytest

import modicum
from modicum.data.judging import CommandJudge, checked_scores, read_judgments, samples_of
from modicum.errors import DataError, ModicumError


def python(code):
    return f'{sys.executable} -c "{code}"'


class TestFile:
    def test_words_and_numbers_in_every_form(self, tmp_path):
        (tmp_path / "a.csv").write_text("id,label\n1,good\n2,bad\n3,\n")
        assert read_judgments(tmp_path / "a.csv") == {"1": 1.0, "2": 0.0}
        (tmp_path / "a.jsonl").write_text('{"id": "x", "score": 0.25}\n{"id": "y", "score": 1}\n')
        assert read_judgments(tmp_path / "a.jsonl") == {"x": 0.25, "y": 1.0}
        (tmp_path / "b.tsv").write_text("id\tquality\n7\tyes\n8\tNO\n")
        assert read_judgments(tmp_path / "b.tsv") == {"7": 1.0, "8": 0.0}

    @pytest.mark.parametrize(
        "text, message",
        [
            ("id,label\n1,fine\n2,bad\n", r"label of id 1 is 'fine'; expected a number, or good or bad"),
            ("id,label\n1,1\n1,0\n", r"id 1 stands twice; expected one label a sample"),
            ("name,label\n1,1\n2,0\n", r"has the columns \['name', 'label'\]; expected id and label"),
            ("id,label\n1,\n2,\n", r"has no labels; expected rows of id and label"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path, text, message):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            read_judgments(tmp_path / "a.csv")

    def test_no_file(self, tmp_path):
        with pytest.raises(DataError, match="is not there as a file of labels"):
            read_judgments(tmp_path / "none.csv")


class TestCommand:
    def test_it_reads_json_and_writes_scores(self):
        judge = CommandJudge(python("import sys, json; [print(json.loads(line)['x'] * 2) for line in sys.stdin]"))
        assert judge([{"id": 1, "x": 1}, {"id": 2, "x": 4}]) == [2.0, 8.0]

    def test_images_come_as_png(self):
        code = "import sys, json, base64; [print(base64.b64decode(json.loads(line)['image'])[1:4] == b'PNG') for line in sys.stdin]"
        assert CommandJudge(python(code))([{"id": 1, "image": np.zeros((4, 4), np.uint8)}]) == [1.0]

    @pytest.mark.parametrize(
        "code, message",
        [
            ("import sys; sys.exit(3)", "ended with the status 3"),
            ("import sys; sys.exit('it broke')", r"status 1: \.\.\.it broke"),
            ("print(1)", "gave 1 scores for 2 samples; expected one for each, in their order"),
            ("print('fine'); print(2)", "score 1 of 2 is 'fine'; expected a number, or good or bad"),
            ("print(1); print('nan')", "score 2 of 2 is 'nan'"),
        ],
    )
    def test_failures_are_told(self, code, message):
        with pytest.raises(ModicumError, match=message):
            CommandJudge(python(code))([{"id": 1}, {"id": 2}])

    def test_one_that_hangs_is_stopped(self):
        with pytest.raises(ModicumError, match=r"gave no answer on 1 samples within 0\.3 s; it was stopped"):
            CommandJudge(python("import time; time.sleep(30)"), timeout=0.3)([{"id": 1}])

    def test_what_one_that_hangs_started_is_stopped_too(self, tmp_path):
        left = tmp_path / "left"
        with pytest.raises(ModicumError, match="it was stopped"):
            CommandJudge(f"sh -c '(sleep 1; touch {left}) & wait'", timeout=0.2)([{"id": 1}])
        time.sleep(1.2)
        assert not left.exists()

    def test_every_reader_of_json_understands_it(self):
        row = {"id": 1, "x": float("nan"), "y": [float("inf"), {"day": datetime.date(2024, 5, 1)}], "z": Decimal("1.5")}
        code = "import sys, json; d = json.loads(sys.stdin.read(), parse_constant=int); sys.exit(str(d))"
        with pytest.raises(ModicumError, match=r"'x': None, 'y': \[None, \{'day': '2024-05-01'\}\], 'z': '1.5'"):
            CommandJudge(python(code))([row])

    def test_commands_that_are_none(self):
        with pytest.raises(ModicumError, match="cannot be started: No such file"):
            CommandJudge("no-such-program-here")([{"id": 1}])
        with pytest.raises(ModicumError, match="command='' is empty"):
            CommandJudge("")
        with pytest.raises(ModicumError, match="is not to be understood: No closing quotation"):
            CommandJudge("echo 'a")


def test_scores_are_checked():
    with pytest.raises(DataError, match="my judge gave a int; expected a list of 2 scores"):
        checked_scores(3, 2, "my judge")
    assert checked_scores(np.array([0.5, 1]), 2, "my judge") == [0.5, 1.0]


class TestSamples:
    def test_rows_come_as_they_stand_in_the_file(self, tmp_path):
        file = tmp_path / "a.jsonl"
        rows = [{"question": f"What is {i} + 1?", "answer": f"It is {i + 1}.", "n": i} for i in range(200)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        train = modicum.load(file, inputs=["question", "answer"], label=False, valid=0, test=0).train
        assert train.info.modality == "text"
        assert "<sep>" in modicum.data.decode(train, 3)
        found = samples_of(file, train, [150, 3], inputs=["question", "answer"])
        assert found == [{"id": 150, **rows[150]}, {"id": 3, **rows[3]}]

    def test_own_ids_are_kept_with_their_rows(self, tmp_path):
        file = tmp_path / "a.csv"
        file.write_text("id,text,label\n" + "".join(f"{900 - i},text number {i},{i % 2}\n" for i in range(90)))
        train = modicum.load(file).train
        for row in samples_of(file, train, range(len(train))):
            assert row["text"] == f"text number {900 - row['id']}"

    def test_images_are_bytes(self):
        train = modicum.load("digits").train
        (row,) = samples_of("digits", train, [4])
        assert row["image"].shape == (8, 8)
        assert row["image"].dtype == np.uint8
        assert row["image"].max() == 255
        assert row["label"] == str(int(train.targets[4]))
