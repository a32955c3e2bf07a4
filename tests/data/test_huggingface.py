"""Hugging Face data sets by their form alone: the package itself is not needed."""

import sys
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from modicum.data import load, to_huggingface
from modicum.errors import DataError, MissingExtraError


class Arrow:
    """What modicum uses of a `datasets.Dataset`."""

    def __init__(self, table: pa.Table, classes: tuple[str, ...] = ()) -> None:
        self.table, self.column_names = table, table.column_names
        self.features = {"label": SimpleNamespace(names=list(classes))} if classes else {}

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, part: slice) -> pa.Table:
        return self.table[part]

    def with_format(self, kind: str) -> "Arrow":
        assert kind == "arrow"
        return self


def _table(labels: list[int]) -> pa.Table:
    return pa.table({"sentence": [f"film number {i}" for i in range(len(labels))], "label": labels})


def test_one_and_many_splits() -> None:
    train = Arrow(_table([0, 1] * 1500), ("neg", "pos"))
    assert len(load(train, valid=0, test=0).train) == 3000
    parts: dict[str, Any] = {"train": train, "validation": Arrow(_table([1, 0]), ("neg", "pos"))}
    splits = load(parts)
    assert splits.train.info.classes == ("neg", "pos")
    assert len(splits.valid) == 2
    hidden = load({**parts, "test": Arrow(_table([-1, -1]), ("neg", "pos"))})
    assert len(hidden.test) == len(splits.test)  # hidden labels test nothing


def test_a_label_outside_the_stated_classes() -> None:
    with pytest.raises(DataError, match="label 5 of sample 2 is out of range; expected one of 0, 1"):
        load(Arrow(_table([0, 1, 5] * 9), ("neg", "pos")))
    with pytest.raises(DataError, match=r"has no split 'train'; it has \['test'\]"):
        load({"test": Arrow(_table([0, 1]))})


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"hf:imdb needs the package 'datasets': pip install 'modicum\[hf\]'"):
        load("hf:imdb")
    with pytest.raises(MissingExtraError, match="to_huggingface needs"):
        to_huggingface(load("iris").train)
