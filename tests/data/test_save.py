"""Round trips: what is saved and loaded again has the same inputs, labels and ids."""

from pathlib import Path

import numpy as np
import pytest
import torch

from modicum.data import concatenate, load, save, to_torch
from modicum.data.arrays import ArrayInputs, read_npz
from modicum.data.raw import Desk
from modicum.dataset import Dataset, Info
from modicum.errors import DataError


def _same(a: Dataset, b: Dataset) -> None:
    a, b = a[np.argsort(a.ids)], b[np.argsort(b.ids)]
    assert a.ids.tolist() == b.ids.tolist()
    assert torch.equal(a.inputs, b.inputs)
    assert a.info.task == b.info.task
    assert a.info.modality == b.info.modality
    if a.targets is not None and a.info.task == "classification" and not a.targets.is_floating_point():
        assert [a.info.classes[i] for i in a.labels] == [b.info.classes[i] for i in b.labels]
    elif a.targets is not None:
        assert b.targets is not None
        assert torch.equal(a.targets, b.targets)
    assert (a.weights is None) == (b.weights is None)
    if a.weights is not None and b.weights is not None:
        assert torch.equal(a.weights, b.weights)


@pytest.mark.parametrize("name", ["digits", "iris", "breast_cancer", "diabetes"])
@pytest.mark.parametrize("file", ["a.npz", "a.parquet", "a.csv", "a.tsv", "a.jsonl", "folder"])
def test_splits(tmp_path: Path, name: str, file: str) -> None:
    splits = load(name, limit=40)
    if (name == "digits") != (file == "folder") and file not in ("a.npz", "a.parquet"):
        with pytest.raises(DataError, match=r"cannot hold images|can hold images|channels for PNG"):
            save(splits, tmp_path / file)
        assert not list(tmp_path.rglob("*.tmp"))
        return
    written = save(splits, tmp_path / file)
    again = load(written[0])
    for a, b in zip(splits, again, strict=True):
        _same(a, b)
    assert again.train.info.mean == pytest.approx(splits.train.info.mean)
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("file", ["a.npz", "a.parquet", "a.csv", "a.tsv", "a.jsonl"])
def test_texts(tmp_path: Path, file: str) -> None:
    texts = [f"film number {i % 7} is , 'well' : fine" for i in range(40)]
    splits = load((texts, ["good", "bad"] * 20))
    for a, b in zip(splits, load(save(splits, tmp_path / file)[0]), strict=True):
        if file in ("a.npz", "a.parquet"):
            _same(a, b)
        assert a.ids.tolist() == b.ids.tolist()


@pytest.mark.parametrize("file", ["a.npz", "a.parquet"])
def test_soft_labels_weights_and_names(tmp_path: Path, file: str) -> None:
    soft = torch.softmax(torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), 1)
    images = (torch.arange(12 * 3 * 16) % 256).reshape(12, 3, 4, 4).to(torch.uint8)
    ids = np.array([f"web/{i}" for i in range(12)])
    data = Dataset(images, soft, ids, torch.rand(12), info=Info(modality="image", classes=("z", "a", "m")))
    again = load(save(data, tmp_path / file)[0], valid=0, test=0).train
    _same(data, again)
    assert again.info.classes == ("z", "a", "m")


def test_order_of_classes_survives_where_it_can_be_written(tmp_path: Path) -> None:
    splits = load("breast_cancer", limit=30)
    for file in ("a.npz", "a.parquet"):
        again = load(save(splits, tmp_path / file)[0])
        assert torch.equal(again.train.labels, splits.train.labels)
        assert again.train.info.classes == ("malignant", "benign")


def test_npz_keeps_a_mixture_and_is_aligned(tmp_path: Path) -> None:
    part = Dataset(torch.rand(300, 1000), torch.arange(300) % 2, info=Info(classes=("a", "b")))
    mixed = concatenate({"web": part, "books": part})
    path = save(mixed, tmp_path / "a.npz")[0]
    again = load(path, valid=0, test=0).train
    assert again.sources is not None
    assert mixed.sources is not None
    assert torch.equal(again.sources, mixed.sources)
    assert again.info.sources == ("web", "books")
    inputs = read_npz(path, Desk("x"))["train"].inputs
    assert isinstance(inputs, ArrayInputs)
    assert isinstance(inputs.array, np.memmap)
    assert inputs.array.ctypes.data % 64 == 0


def test_folder_of_plain_classes_and_refusals(tmp_path: Path) -> None:
    train = load("digits", limit=20).train
    _same(train, load(save(train, tmp_path / "plain")[0], valid=0, test=0).train)
    with pytest.raises(DataError, match="is not an empty folder"):
        save(train, tmp_path / "plain")
    for names in (("test", "b"), ("a/b", "c")):
        data = Dataset(
            torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.tensor([0, 1]), info=Info(modality="image", classes=names)
        )
        if "/" in names[0]:
            with pytest.raises(DataError, match="class name 'a/b' cannot be a folder"):
                save(data, tmp_path / "bad")
        else:
            assert load(save(data, tmp_path / "named")[0], valid=0, test=0).train.info.classes == ("b", "test")
    with pytest.raises(DataError, match=r"images of type torch.float32 are not whole numbers"):
        save(train.replace(inputs=train.inputs + 0.5), tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"has the extension '.xls'"):
        save(train, tmp_path / "a.xls")
    with pytest.raises(DataError, match="there are no samples to save"):
        save(train[:0], tmp_path / "a.npz")


def test_torch_data_sets(tmp_path: Path) -> None:
    iris = load("iris").train
    again = load(to_torch(iris), valid=0, test=0).train
    assert torch.equal(again.inputs, iris.inputs)
    assert torch.equal(again.labels, iris.labels)
