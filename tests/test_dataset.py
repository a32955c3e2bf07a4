"""Columns, subsets, fingerprints."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from modicum.dataset import Dataset, Info
from modicum.errors import DataError


def data(n: int = 6, **changes: Any) -> Dataset:
    columns: dict[str, Any] = {
        "inputs": torch.arange(n * 3.0).reshape(n, 3),
        "targets": torch.arange(n) % 2,
        "ids": np.array([f"s{i}" for i in range(n)]),
        "weights": torch.linspace(0, 1, n),
        "sources": torch.arange(n) % 3,
        "info": Info(classes=("a", "b"), sources=("x", "y", "z"), source="test"),
    }
    return Dataset(**{**columns, **changes})


INDICES: dict[str, Any] = {
    "list": [4, 0, 3],
    "tuple": (4, 0, 3),
    "negative": [-2, 0, -3],
    "tensor": torch.tensor([4, 0, 3]),
    "int32": torch.tensor([4, 0, 3], dtype=torch.int32),
    "int8": torch.tensor([4, 0, 3], dtype=torch.int8),
    "uint8 is no mask": torch.tensor([4, 0, 3], dtype=torch.uint8),
    "numpy": np.array([4, 0, 3]),
    "numpy uint8": np.array([4, 0, 3], dtype=np.uint8),
    "numpy strided": np.array([4, 9, 0, 9, 3])[::2],
    "numpy reversed": np.array([3, 0, 4])[::-1].copy(),
}


@pytest.mark.parametrize("indices", INDICES.values(), ids=INDICES)
def test_positions_in_their_order(indices: Any) -> None:
    whole, subset = data(), data()[indices]
    assert subset.ids.tolist() == ["s4", "s0", "s3"]
    assert subset.inputs[:, 0].tolist() == [12, 0, 9]
    for name in ("targets", "weights", "sources"):
        assert torch.equal(getattr(subset, name), getattr(whole, name)[[4, 0, 3]])
    assert subset.info == whole.info


@pytest.mark.parametrize("mask", [[0, 1, 1, 0, 0, 1]], ids=["mask"])
@pytest.mark.parametrize(
    "make", [lambda m: [bool(x) for x in m], lambda m: np.array(m, bool), lambda m: torch.tensor(m) > 0]
)
def test_masks_keep_the_order_of_the_data(mask: list[int], make: Any) -> None:
    assert data()[make(mask)].ids.tolist() == ["s1", "s2", "s5"]


@pytest.mark.parametrize(
    "part", [slice(None), slice(1, 4), slice(None, None, 2), slice(-2, None), slice(None, None, -1)]
)
def test_slices(part: slice) -> None:
    assert data()[part].ids.tolist() == data().ids[part].tolist()
    assert data()[part].inputs[:, 0].tolist() == data().inputs[:, 0].numpy()[part].tolist()


@pytest.mark.parametrize(
    "nothing", [[], np.array([], int), torch.tensor([], dtype=torch.long), slice(0, 0), [False] * 6]
)
def test_empty_subsets(nothing: Any) -> None:
    empty = data()[nothing]
    assert len(empty) == 0
    assert empty.inputs.shape == (0, 3)
    assert len(empty.fingerprint) == 64


@pytest.mark.parametrize(
    "wrong,text",
    [
        (3, r"dataset\[3\] is not a subset; use dataset\[\[3\]\] for one sample"),
        (np.int64(3), r"is not a subset"),
        ([0, 6], "indices reach from 0 to 6, but there are 6 samples"),
        ([-7], "indices reach from -7 to -7, but there are 6 samples"),
        ([True, False], "a mask over 6 samples needs as many entries, got 2"),
        ([0.5, 1.0], r"indices are torch.float64 of shape \(2,\); expected a list of integers or a mask"),
        ([[0, 1]], r"shape \(1, 2\); expected a list of integers"),
    ],
)
def test_wrong_indices(wrong: Any, text: str) -> None:
    with pytest.raises(DataError, match=text):
        data()[wrong]


def test_subset_of_a_subset_and_repetition_keep_ids() -> None:
    assert data()[[5, 4, 3]][[2, 0, 0]].ids.tolist() == ["s3", "s5", "s5"]


def test_immutable() -> None:
    whole = data()
    with pytest.raises(dataclasses.FrozenInstanceError):
        whole.inputs = torch.zeros(6, 3)  # type: ignore[misc]
    before = whole.fingerprint
    other = whole.replace(targets=1 - whole.targets)  # type: ignore[operator]
    assert whole.fingerprint == before == data().fingerprint
    assert other.fingerprint != before
    assert other.inputs is whole.inputs


def test_ids_are_row_numbers_unless_given() -> None:
    assert Dataset(torch.zeros(3, 1)).ids.tolist() == [0, 1, 2]
    assert Dataset(torch.zeros(2, 1), ids=["a", "b"]).ids.tolist() == ["a", "b"]  # type: ignore[arg-type]
    with pytest.raises(DataError, match="ids must be integers or strings, got dtype float64"):
        data(ids=np.zeros(6))


@pytest.mark.parametrize(
    "changes,text",
    [
        ({"inputs": [1, 2]}, r"inputs must be a tensor of shape \(n, \.\.\.\), got list"),
        ({"targets": torch.zeros(5, dtype=torch.long)}, "targets has 5 rows but inputs has 6; every column needs one"),
        ({"weights": torch.zeros(7)}, "weights has 7 rows but inputs has 6"),
        ({"ids": np.arange(2)}, "ids has 2 rows"),
        ({"sources": torch.zeros(1)}, "sources has 1 rows"),
        ({"targets": torch.tensor([0, 1, 2, 0, 1, 0])}, r"label 2 of sample .*s2.* is out of range; expected 0\.\.1"),
        ({"targets": torch.tensor([0, 1, 0, -1, 1, 0])}, r"label -1 of sample .*s3"),
        ({"targets": torch.zeros(6, 3)}, r"soft targets must have shape \(n, 2\), got \(6, 3\)"),
        ({"targets": torch.zeros(6, 1, dtype=torch.long)}, r"targets must have shape \(n,\) of class indices"),
    ],
)
def test_columns_that_do_not_fit(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError, match=text):
        data(**changes)


def test_labels_and_counts() -> None:
    assert data().labels.tolist() == [0, 1, 0, 1, 0, 1]
    soft = data(targets=torch.tensor([[0.9, 0.1]] * 4 + [[0.2, 0.8]] * 2))
    assert soft.labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert soft.class_counts().tolist() == [4, 2]
    assert data(info=Info("regression"), targets=torch.rand(6)).classes == 1
    with pytest.raises(DataError, match="class labels are needed, but this data set is for regression"):
        _ = data(info=Info("regression"), targets=torch.rand(6)).labels


CHANGES: dict[str, dict[str, Any]] = {
    "inputs": {"inputs": torch.arange(18.0).reshape(6, 3).index_fill(0, torch.tensor([5]), 1.0)},
    "dtype of inputs": {"inputs": torch.arange(18, dtype=torch.int32).reshape(6, 3)},
    "shape of inputs": {"inputs": torch.arange(18.0).reshape(6, 1, 3)},
    "targets": {"targets": torch.tensor([1, 1, 0, 1, 0, 1])},
    "no targets": {"targets": None},
    "soft targets": {"targets": torch.nn.functional.one_hot(torch.arange(6) % 2).float()},
    "ids": {"ids": np.array([f"t{i}" for i in range(6)])},
    "weights": {"weights": torch.linspace(0, 2, 6)},
    "no weights": {"weights": None},
    "sources": {"sources": torch.zeros(6, dtype=torch.long)},
    "info": {"info": Info(classes=("a", "c"), sources=("x", "y", "z"), source="test")},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_fingerprint_sees_every_column(changes: dict[str, Any]) -> None:
    assert data(**changes).fingerprint != data().fingerprint


def test_fingerprints_are_all_different_and_see_the_order() -> None:
    prints = {data(**c).fingerprint for c in CHANGES.values()} | {data().fingerprint, data()[::-1].fingerprint}
    assert len(prints) == len(CHANGES) + 2


def test_fingerprint_does_not_see_the_memory_layout() -> None:
    def image(inputs: Tensor) -> str:
        return data(inputs=inputs).fingerprint

    x = torch.rand(6, 3, 4, 5)
    assert image(x) == image(x.to(memory_format=torch.channels_last))
    assert image(x) == image(x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0))
    assert data()[[0, 1, 2, 3, 4, 5]].fingerprint == data().fingerprint
    spread = torch.zeros(12, dtype=torch.long)
    spread[::2] = torch.arange(6) % 2
    assert data(targets=spread[::2]).fingerprint == data().fingerprint


def test_prepare_standardizes_per_channel_and_keeps_tokens() -> None:
    pixels = torch.randint(0, 256, (4, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = Dataset(pixels, info=Info("unlabeled", "image", mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 4.0)))
    prepared = image.prepare(pixels)
    expected = (pixels.float() - torch.tensor([10.0, 20, 30]).view(3, 1, 1)) / torch.tensor([1.0, 2, 4]).view(3, 1, 1)
    assert prepared.dtype == torch.float32
    assert torch.allclose(prepared, expected)
    assert pixels.dtype == torch.uint8
    table = Dataset(torch.ones(2, 3), info=Info("unlabeled", mean=(1.0, 0.0, 0.0), std=(1.0, 2.0, 1.0)))
    assert table.prepare(table.inputs).tolist() == [[0, 0.5, 1]] * 2
    plain = torch.ones(2, 3)
    assert Dataset(plain).prepare(plain) is plain
    assert Dataset(plain.double()).prepare(plain.double()).dtype == torch.float32
    text = Dataset(torch.tensor([[2, 0]], dtype=torch.int32), info=Info("unlabeled", "text", mean=(1.0,), std=(1.0,)))
    assert text.prepare(text.inputs).dtype == torch.int64


def test_batches_cover_everything_once() -> None:
    parts = list(data().batches(4))
    assert [p for p, _ in parts] == [slice(0, 4), slice(4, 6)]
    assert torch.equal(torch.cat([x for _, x in parts]), data().inputs)


def test_repr() -> None:
    assert repr(data()) == "Dataset(6 x (3,) tabular, 2 classes, 'test')"
    assert "unlabeled" in repr(Dataset(torch.zeros(2, 1), info=Info("unlabeled")))
