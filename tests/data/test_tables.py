"""Tables: headers, column types, categories, texts, siblings, streaming, errors."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from modicum.data import decode, load
from modicum.data.files import has_header
from modicum.data.raw import Options
from modicum.errors import DataError

ROWS = "".join(f"{i},{i * 0.5},{'red' if i % 3 else 'blue'},{'yes' if i % 2 else 'no'}\n" for i in range(30))


def _csv(tmp_path: Path, text: str, name: str = "a.csv") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_numbers_categories_and_ids(tmp_path: Path) -> None:
    path = _csv(tmp_path, "id,height,color,label\n" + ROWS)
    train = load(path, valid=0, test=0).train
    assert train.info.columns == ("height", "color=blue", "color=red")
    assert train.info.classes == ("no", "yes")
    assert train.inputs[3].tolist() == [1.5, 1.0, 0.0]
    assert train.ids.tolist() == list(range(30))
    chosen = load(path, inputs="height", label="color", valid=0, test=0).train
    assert (chosen.info.columns, chosen.info.classes) == (("height",), ("blue", "red"))


def test_a_category_unknown_to_training_is_all_zero(tmp_path: Path) -> None:
    _csv(tmp_path, "n,color,label\n1,red,0\n2,blue,1\n" * 1 + "3,red,0\n4,blue,1\n", "train.csv")
    _csv(tmp_path, "n,color,label\n1,green,0\n", "test.csv")
    assert load(tmp_path, valid=0).test.inputs[0].tolist() == [1.0, 0.0, 0.0]
    assert len(load(tmp_path / "train.csv", valid=0).test) == 1


@pytest.mark.parametrize(
    "rows, answer",
    [
        ([["height", "label"], ["1", "0"]], True),
        ([["1.5", "0"], ["1", "0"]], False),
        ([["a film", "good"], ["b film", "bad"], ["c film", "good"]], False),
        ([["text", "opinion"], ["b film", "bad"], ["c film", "good"]], True),
    ],
)
def test_headers_are_found_out(rows: list[list[str]], answer: bool) -> None:
    assert has_header(rows, Options()) is answer


def test_header_may_be_said(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a,b\n" + "1,x\n2,y\n" * 10)
    assert len(load(path, header=True, label="b", valid=0, test=0).train) == 20
    plain = _csv(tmp_path, "1,x\n2,y\n" * 10, "plain.csv")
    assert load(plain, valid=0, test=0).train.info.columns == ("column_0",)


def test_text_with_quotation_marks_and_padding(tmp_path: Path) -> None:
    lines = ['she said " fine', "a b c d", "good ,", ""] * 5
    path = _csv(tmp_path, "".join(f"{t}\t{i % 2}\n" for i, t in enumerate(lines)), "a.tsv")
    train = load(path, valid=0, test=0).train
    assert (train.info.modality, train.inputs.dtype, train.inputs.shape) == ("text", torch.int32, (20, 4))
    assert train.info.vocabulary[:2] == ("<pad>", "<unk>")
    assert decode(train, 0) == 'she said " fine'
    assert train.inputs[2, 2:].tolist() == [0, 0]
    assert train.inputs[3].tolist() == [1, 0, 0, 0]


def test_vocabulary_is_learned_from_training_only() -> None:
    splits = load((["same words here"] * 30 + [f"rare{i}" for i in range(30)], [0, 1] * 30), seed=1)
    kept = {f"rare{i - 30}" for i in splits.train.ids.tolist() if i >= 30}
    assert {t for t in splits.train.info.vocabulary if t.startswith("rare")} == kept
    held = next(row for row, i in enumerate(splits.test.ids.tolist()) if i >= 30)
    assert decode(splits.test, held) == "<unk>"


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_streaming_gives_what_reading_whole_gives(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    columns = {
        "x": rng.random(9000),
        "c": np.array(["u", "v", "w"])[rng.integers(3, size=9000)],
        "label": rng.integers(2, size=9000),
    }
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table(columns), path, row_group_size=1000)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps({k: v[i].item() for k, v in columns.items()}) + "\n" for i in range(9000)))
    else:
        path.write_text(
            "x,c,label\n" + "".join(f"{columns['x'][i]},{columns['c'][i]},{columns['label'][i]}\n" for i in range(9000))
        )
    whole, streamed = load(path), load(path, map_above=1000, cache=tmp_path / "cache")
    for a, b in zip(whole, streamed, strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.labels, b.labels)
        assert a.ids.tolist() == b.ids.tolist()
    assert list((tmp_path / "cache").rglob("train.npy"))


@pytest.mark.parametrize(
    "text, options, message",
    [
        ("a,label\n1,0\n", {"label": "y"}, r"no column 'y'; it has \['a', 'label'\]"),
        ("a,label\n1,0\n", {"inputs": ["b"]}, r"no column 'b'; it has \['a', 'label'\]"),
        ("a,b\n1,x\n2,y\n", {}, r"none of its columns \['a', 'b'\] is known to hold the labels"),
        ("id,a,label\n7,1,0\n8,,1\n", {}, "column 'a' of sample 8 is nan"),
        ("a,label\n1,0\n2,inf\n", {}, "label of sample 1 is missing or not finite"),
        ("a,label\n1,0\n2,\n", {}, "label of sample 1 is missing"),
        ("id,a,label\n7,1,0\n7,2,1\n", {}, "the id 7 occurs 2 times"),
        ("a,label\n", {}, "has no rows"),
        ("", {}, "is empty; expected at least one row"),
        ("a,label\n1,2,3\n", {"header": True}, "is not a readable .csv file"),
        ("a,when,label\n1,2020-01-01,0\n", {}, "column 'when' has the type date32"),
        (
            "a,b,label\n" + "".join(f"{i},t{i},0\n" for i in range(70)),
            {},
            "column 'b' has more than 64 different texts",
        ),
    ],
)
def test_errors_name_column_and_row(tmp_path: Path, text: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(_csv(tmp_path, text), valid=0, test=0, **options)  # type: ignore[arg-type]


def test_unknown_extension_and_damaged_parquet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has the extension '.xyz'; expected a folder or one of .csv"):
        load(_csv(tmp_path, "1", "a.xyz"))
    with pytest.raises(DataError, match=r"a.parquet is not a readable .parquet file"):
        load(_csv(tmp_path, "PAR1 nonsense", "a.parquet"))


def test_a_file_that_lies_about_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modicum.data.files.MOST_ROWS_PER_BYTE", 1)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": pa.nulls(10**5), "label": pa.nulls(10**5)}), path)
    with pytest.raises(DataError, match="claims 100000 rows in"):
        load(path)
