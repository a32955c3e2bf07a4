"""What `load` promises whatever the source: sizes, ids, statistics of the training split, limits, real files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from modicum.data import decode, load, verify
from modicum.dataset import Dataset, Info
from modicum.errors import DataError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real data at {SHARED} are missing")


@pytest.mark.parametrize(
    "name, sizes, shape, classes",
    [
        ("digits", [1078, 359, 360], (1, 8, 8), 10),
        ("iris", [90, 30, 30], (4,), 3),
        ("wine", [107, 35, 36], (13,), 3),
        ("breast_cancer", [341, 114, 114], (30,), 2),
        ("diabetes", [265, 88, 89], (10,), 1),
    ],
)
def test_bundled_sets(name: str, sizes: list[int], shape: tuple[int, ...], classes: int) -> None:
    splits = load(name)
    assert [len(part) for part in splits] == sizes
    assert tuple(splits.train.inputs.shape[1:]) == shape
    assert splits.train.classes == classes
    ids = np.concatenate([part.ids for part in splits])
    assert sorted(ids.tolist()) == list(range(len(ids)))


def test_ids_find_the_row_of_the_source() -> None:
    from sklearn.datasets import load_iris

    test, raw = load("iris", seed=3).test, load_iris()
    assert torch.equal(test.inputs, torch.tensor(raw.data[test.ids], dtype=torch.float32))
    assert test.targets is not None
    assert test.targets.tolist() == raw.target[test.ids].tolist()


def test_statistics_come_from_the_training_split_only() -> None:
    train, valid, test = load("digits")
    assert train.info is valid.info is test.info
    pixels = train.inputs.double()
    assert train.info.mean == pytest.approx([float(pixels.mean())])
    assert train.info.std == pytest.approx([float(pixels.std(unbiased=False))])
    assert load((np.array([[1.0, 7.0], [3.0, 7.0]] * 20), [0, 1] * 20)).train.info.std[1] == 1.0


def test_limit_keeps_proportions_and_is_deterministic() -> None:
    a, b = load("digits", limit=100), load("digits", limit=100)
    assert [len(part) for part in a] == [100, 100, 100]
    assert a.train.class_counts().min() >= 9
    assert a.train.ids.tolist() == b.train.ids.tolist()
    assert set(a.train.ids) <= set(load("digits").train.ids)
    with pytest.raises(DataError, match="limit=0 must be at least 1"):
        load("digits", limit=0)


def test_data_sets_and_splits() -> None:
    splits = load("iris")
    assert load(splits) is splits
    again = load(splits.train, valid=0.2, test=0.2)
    assert [len(part) for part in again] == [54, 18, 18]
    assert again.train.info.mean != splits.train.info.mean
    empty = load("iris", valid=0, test=0)
    assert [len(part) for part in empty] == [150, 0, 0]


def test_tensors_arrays_lists_and_torch_data_sets_agree() -> None:
    x, y = np.random.default_rng(0).random((40, 3)).astype(np.float32), np.arange(40) % 2
    ways = [
        (x, y),
        (torch.tensor(x), torch.tensor(y)),
        (x.tolist(), y.tolist()),
        torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y)),
        [(x, y), (x[:4], y[:4])],
    ]
    loaded = [load(way, test=None if isinstance(way, list) else 0.2) for way in ways]
    for other in loaded[1:4]:
        assert torch.equal(loaded[0].train.inputs, other.train.inputs)
        assert torch.equal(loaded[0].test.labels, other.test.labels)
    assert len(loaded[4].test) == 4


def test_images_in_any_layout_and_soft_labels() -> None:
    gray, color = np.zeros((30, 5, 6), np.uint8), np.zeros((30, 5, 6, 3), np.uint8)
    assert load((gray, np.arange(30) % 2)).train.inputs.shape[1:] == (1, 5, 6)
    assert load((color, np.arange(30) % 2)).train.inputs.shape[1:] == (3, 5, 6)
    soft = np.tile([0.25, 0.75], (30, 1))
    train = load((gray, soft)).train
    assert train.targets is not None
    assert train.targets[0].tolist() == [0.25, 0.75]


def test_labels_keep_their_order_and_names() -> None:
    x = np.random.default_rng(0).random((40, 2))
    assert load((x, np.array([-1, 1] * 20))).train.info.classes == ("-1", "1")
    assert load((x, np.array(["10", "9"] * 20))).train.info.classes == ("9", "10")
    assert load((x, np.linspace(0, 1, 40))).train.info.task == "regression"
    assert load((np.zeros((400, 2)), np.arange(400))).train.info.task == "regression"
    assert load((x, None)).train.info.task == "unlabeled"


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: load("nowhere.csv"), "nowhere.csv does not exist; expected a file, a folder"),
        (lambda: load(3), "cannot load a int; expected a name, a path"),
        (lambda: load((np.zeros((4, 2)), np.zeros(3))), r"targets have shape \(3,\) but inputs \(4, 2\)"),
        (lambda: load((np.zeros((0, 2)), np.zeros(0))), "has no rows"),
        (lambda: load((np.array([[0.0], [np.nan]] * 9), [0, 1] * 9)), "column 0 of sample 1 is nan"),
        (lambda: load((np.zeros((4, 2)), [0.5, 1, np.nan, 2])), "the label of sample 2 is missing"),
        (lambda: load((np.zeros((4, 2)), ["a", "", "a", "b"])), "the label of sample 1 is missing"),
        (
            lambda: load(((np.zeros((9, 2)), [0, 1, 0] * 3), (np.zeros((1, 2)), [7]))),
            "label 7 of sample 0 is out of range",
        ),
        (lambda: load(((np.zeros((9, 2)), [0, 1, 0] * 3), (np.zeros((1, 3)), [1]))), r"test split have shape \(3,\)"),
        (lambda: load("iris", valid=0.5, test=0.5), "leave nothing to train on"),
        (lambda: load("iris", valid=2), "valid=2 must be a share"),
        (lambda: load([(1, 2, 3)]), "cannot load a list; expected a name"),
    ],
)
def test_errors_say_what_is_wrong(make: object, text: str) -> None:
    with pytest.raises(DataError, match=text):
        make()  # type: ignore[operator]


def test_samples_of_different_shapes() -> None:
    class Ragged(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 3

        def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
            return torch.zeros(row + 1), 0

    with pytest.raises(DataError, match=r"sample 1 has shape \(2,\) but sample 0 has \(1,\)"):
        load(Ragged())


def test_out_of_range_names_the_sample() -> None:
    with pytest.raises(DataError, match="label 2 of sample 1 is out of range"):
        Dataset(torch.zeros(2, 1), torch.tensor([0, 2]), info=Info(classes=("a", "b")))


def test_verify_reports_a_missing_file() -> None:
    assert [d.name for d in verify("nowhere.csv")] == ["nowhere.csv"]


@shared
def test_mnist() -> None:
    splits = load(SHARED / "mnist.npz", limit=500)
    assert [tuple(part.inputs.shape) for part in splits] == [(500, 1, 28, 28)] * 3
    assert splits.train.inputs.dtype == torch.uint8


@shared
def test_cifar_with_human_labels() -> None:
    clean = load(SHARED / "cifar10-train.parquet", limit=2000)
    noisy = load(SHARED / "cifar10-train.parquet", limit=2000, label="label_worse", valid=0)
    assert clean.train.inputs.shape == (2000, 3, 32, 32)
    assert len(clean.test) == len(noisy.test) == 2000
    assert noisy.train.classes == 10


@shared
def test_sst2_has_no_header() -> None:
    splits = load(SHARED / "sst2")
    assert [len(part) for part in splits] == [6920, 872, 1821]
    assert decode(splits.train, 0).startswith("a stirring , funny and finally transporting")
    assert [len(part) for part in load(SHARED / "sst2" / "train.tsv")] == [6920, 872, 1821]
