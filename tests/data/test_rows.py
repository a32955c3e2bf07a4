"""A part of a file in the form that it came in."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import modicum
from modicum.data import form_of, load, save_rows
from modicum.errors import DataError

CSV = 'id,text,label\n7,"one, and ""two""",a\n\n8,"over\ntwo lines",b\n9,three,a\n11,four,b\n'


def some(path, picks, **options):
    train = load(path, valid=0, test=0, **options).train
    return train[picks]


def test_rows_of_a_csv_are_copied_as_they_stand(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text(CSV)
    kept = some(file, [1, 3])
    assert kept.ids.tolist() == [8, 11]
    out = save_rows(file, kept, tmp_path / "b.csv")
    assert out.read_text() == 'id,text,label\n8,"over\ntwo lines",b\n11,four,b\n'
    assert load(out, valid=0, test=0).train.ids.tolist() == [8, 11]


def test_weights_become_a_column_or_replace_the_one_there(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text(CSV)
    kept = some(file, [2, 0]).replace(weights=torch.tensor([0.5, 1.5]))
    out = save_rows(file, kept, tmp_path / "b.csv")
    assert out.read_text() == 'id,text,label,sample_weight\n7,"one, and ""two""",a,1.5\n9,three,a,0.5\n'
    again = some(out, [1]).replace(weights=torch.tensor([3.0]))
    assert save_rows(out, again, tmp_path / "c.csv").read_text() == "id,text,label,sample_weight\n9,three,a,3\n"
    assert load(out, valid=0, test=0).train.weights.tolist() == [1.5, 0.5]


def test_a_table_without_header_has_no_place_for_weights(tmp_path):
    file = tmp_path / "a.tsv"
    file.write_text('a "fine film\t1\na dull film\t0\nanother one\t1\n')
    kept = some(file, [0, 2])
    assert save_rows(file, kept, tmp_path / "b.tsv").read_text() == 'a "fine film\t1\nanother one\t1\n'
    with pytest.raises(DataError, match=r"a\.tsv has no header, so weights have no place in it"):
        save_rows(file, kept.replace(weights=torch.ones(2)), tmp_path / "c.tsv")
    assert not (tmp_path / "c.tsv").exists()


def test_json_lines_keep_every_field(tmp_path):
    rows = [{"x": i, "note": {"deep": "ü"}, "y": i % 2} for i in range(5)]
    file = tmp_path / "a.jsonl"
    file.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    kept = some(file, [4, 1], inputs="x", label="y")
    out = save_rows(file, kept, tmp_path / "b.jsonl", inputs="x", label="y")
    assert [json.loads(line) for line in out.read_text().splitlines()] == [rows[1], rows[4]]
    heavy = save_rows(file, kept.replace(weights=torch.tensor([2.0, 1.0])), tmp_path / "c.jsonl", inputs="x", label="y")
    assert [json.loads(line)["sample_weight"] for line in heavy.read_text().splitlines()] == [1.0, 2.0]


def test_parquet_keeps_types_and_metadata(tmp_path):
    table = pa.table(
        {"x": pa.array(np.arange(3000), pa.int16()), "note": [f"n{i}" for i in range(3000)], "y": np.arange(3000) % 3}
    )
    file = tmp_path / "a.parquet"
    pq.write_table(table.replace_schema_metadata({"made": "by hand"}), file)
    kept = some(file, [0, 1024, 2999], inputs="x", label="y")
    out = pq.read_table(save_rows(file, kept, tmp_path / "b.parquet", inputs="x", label="y"))
    assert out.schema.metadata[b"made"] == b"by hand"
    assert out.schema.field("x").type == pa.int16()
    assert out["note"].to_pylist() == ["n0", "n1024", "n2999"]
    weighted = kept.replace(weights=torch.tensor([1.0, 2.0, 3.0]))
    assert pq.read_table(save_rows(file, weighted, tmp_path / "c.parquet", inputs="x", label="y"))[
        "sample_weight"
    ].to_pylist() == [1, 2, 3]


def test_images_are_copied_to_the_byte(tmp_path):
    modicum.save(modicum.load("digits").train[:40], tmp_path / "a")
    kept = some(tmp_path / "a", [5, 30])
    out = save_rows(tmp_path / "a", kept, tmp_path / "b")
    files = sorted(p.relative_to(out) for p in out.rglob("*.png"))
    assert len(files) == 2
    assert all((out / f).read_bytes() == (tmp_path / "a" / f).read_bytes() for f in files)
    assert sorted(load(out, valid=0, test=0).train.ids.tolist()) == sorted(kept.ids.tolist())
    with pytest.raises(DataError, match="weights have no place in a folder of images"):
        save_rows(tmp_path / "a", kept.replace(weights=torch.ones(2)), tmp_path / "c")
    with pytest.raises(DataError, match="is not an empty folder"):
        save_rows(tmp_path / "a", kept, tmp_path / "b")


def test_a_file_that_has_changed_is_refused(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text(CSV)
    kept = some(file, [3])
    file.write_text("id,text,label\n7,one,a\n8,two,b\n")
    with pytest.raises(DataError, match=r"a\.csv has no sample 11; it has changed since it was loaded"):
        save_rows(file, kept, tmp_path / "b.csv")


def test_what_was_no_file_is_saved(tmp_path):
    train = modicum.load("iris").train
    assert (
        load(save_rows("iris", train[:9], tmp_path / "a.csv"), valid=0, test=0).train.ids.tolist()
        == train.ids[:9].tolist()
    )
    assert form_of("iris") == ".npz"
    modicum.save(train, tmp_path / "x.csv")
    assert form_of(tmp_path / "x.csv") == ".csv"
    assert load(save_rows(tmp_path / "x.csv", train[:9], tmp_path / "y.npz"), valid=0, test=0).train.inputs.shape == (
        9,
        4,
    )
