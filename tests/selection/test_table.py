"""A selection as a table, and back."""

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.dataset import Dataset, Info
from modicum.errors import DataError
from modicum.scores import Selection
from modicum.selection.table import keep_rates, read_selection, selection_table

DATA = Dataset(
    torch.zeros(6, 1),
    torch.tensor([0, 0, 0, 1, 1, 2]),
    ids=np.array(["f", "e", "d", "c", "b", "a"]),
    info=Info(classes=("x", "y", "z")),
)
CHOSEN = Selection(
    np.array([0, 2, 3]),
    weights=np.array([3.0, 2.0, 1.0]),
    values=np.array([0.5, np.nan, 0.25, 1.0, -1.0, 0.0]),
    unit="points",
    reasons=np.array(["first", "", "", "second", "too hard", "too hard"], dtype=object),
)


def test_every_sample_has_a_row():
    table = selection_table(CHOSEN, DATA)
    assert table.column_names == ["id", "label", "status", "value", "weight", "reason"]
    assert table["id"].to_pylist() == list("fedcba")
    assert table["label"].to_pylist() == list("xxxyyz")
    assert table["status"].to_pylist() == ["kept", "dropped", "kept", "kept", "dropped", "dropped"]
    assert table["value"].to_pylist() == [0.5, None, 0.25, 1.0, -1.0, 0.0]
    assert table["weight"].to_pylist() == [3.0, None, 2.0, 1.0, None, None]
    assert table["reason"].to_pylist() == ["first", "", "", "second", "too hard", "too hard"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_there_and_back(tmp_path, kind):
    path = tmp_path / f"samples.{kind}"
    table = selection_table(CHOSEN, DATA)
    pq.write_table(table, path) if kind == "parquet" else pc.write_csv(
        pa.table(
            {
                n: table[n].cast(pa.string()) if n in ("label", "status", "reason") else table[n]
                for n in table.column_names
            }
        ),
        path,
    )
    back = read_selection(path, DATA)
    assert back.positions.tolist() == [0, 2, 3]
    assert back.weights.tolist() == [3.0, 2.0, 1.0]
    assert np.array_equal(back.values, CHOSEN.values, equal_nan=True)
    assert read_selection(path, DATA, "dropped").positions.tolist() == [1, 4, 5]
    turned = DATA[[5, 4, 3, 2, 1, 0]]
    again = read_selection(path, turned)
    assert sorted(turned.ids[again.positions].tolist()) == ["c", "d", "f"]
    assert again.taken_from(turned).weights.tolist() == [0.5, 1.0, 1.5]


@settings(max_examples=20, deadline=None)
@given(mask=st.lists(st.booleans(), min_size=6, max_size=6).filter(any))
def test_kept_and_dropped_are_everything(tmp_path_factory, mask):
    path = tmp_path_factory.mktemp("t") / "samples.parquet"
    pq.write_table(selection_table(Selection(np.flatnonzero(mask)), DATA), path)
    kept = read_selection(path, DATA)
    assert kept.weights is None
    if not all(mask):
        dropped = read_selection(path, DATA, "dropped")
        assert sorted([*kept.positions, *dropped.positions]) == list(range(6))


@pytest.mark.parametrize(
    "rows, message",
    [
        ({"id": ["f"]}, "has no column 'status'; it has"),
        ({"id": ["f", "q"], "status": ["kept", "kept"]}, "names the sample 'q', which is not among the 6 of train"),
        ({"id": ["f", "f"], "status": ["kept", "kept"]}, "names 1 samples twice; expected one row a sample"),
        ({"id": ["f"], "status": ["maybe"]}, "has the status 'maybe'; expected 'kept' or 'dropped'"),
        ({"id": ["f"], "status": ["dropped"]}, "has no sample with the status 'kept'"),
        ({"id": ["f"], "status": ["kept"], "weight": [-1.0]}, "has a weight that is missing or not a number >= 0"),
    ],
)
def test_another_table_is_refused(tmp_path, rows, message):
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        read_selection(tmp_path / "a.parquet", DATA)


def test_ids_of_digits_keep_their_zeros_in_csv(tmp_path):
    data = DATA.replace(ids=np.array([f"00{i}" for i in range(6)]))
    pc.write_csv(pa.table({"id": data.ids, "status": ["kept", *["dropped"] * 5]}), tmp_path / "a.csv")
    assert read_selection(tmp_path / "a.csv", data).positions.tolist() == [0]
    numbered = data.replace(ids=np.arange(6))
    (tmp_path / "b.csv").write_text("id,status,value\n3,kept,high\n")
    with pytest.raises(DataError, match=r"b\.csv has a value that is no number: .*'high'"):
        read_selection(tmp_path / "b.csv", numbered)
    (tmp_path / "b.csv").write_text("id,status,value\n3,kept,\n")
    assert read_selection(tmp_path / "b.csv", numbered).positions.tolist() == [3]


def test_a_file_that_is_no_table(tmp_path):
    (tmp_path / "a.parquet").write_text("nonsense")
    with pytest.raises(DataError, match=r"a\.parquet is not a readable table"):
        read_selection(tmp_path / "a.parquet", DATA)


def test_keep_rates_warn_of_classes_that_are_lost():
    rows = keep_rates(CHOSEN, DATA)
    assert [(row["class"], row["samples"], row["kept"], row["warning"]) for row in rows] == [
        ("x", 3, 2, False),
        ("y", 2, 1, False),
        ("z", 1, 0, True),
    ]
    assert keep_rates(CHOSEN, DATA.replace(targets=torch.rand(6), info=Info("regression"))) == []


def test_weights_keep_the_length_of_a_step():
    kept = CHOSEN.taken_from(DATA)
    assert kept.weights.tolist() == [1.5, 1.0, 0.5]
    heavy = CHOSEN.taken_from(DATA.replace(weights=torch.tensor([2.0, 1, 1, 1, 1, 1])))
    assert heavy.weights.tolist() == [3.0, 1.0, 0.5]


def test_positions_must_be_sorted_and_fit():
    with pytest.raises(DataError, match="are not sorted, or one comes twice"):
        Selection(np.array([2, 1]))
    with pytest.raises(DataError, match=r"weights has shape \(1,\); expected \(2,\)"):
        Selection(np.array([1, 2]), weights=np.ones(1))
