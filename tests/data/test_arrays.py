""".npz files: naming, mapping in place, damage and hostile headers."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from modicum.data import load
from modicum.errors import DataError


def _npz(path: Path, name: str, header: bytes, body: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    text = header + b" " * (-(len(header) + 11) % 64) + b"\n"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body)
    return path


@pytest.mark.parametrize(
    "keys",
    [
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("train_inputs", "train_targets", "test_inputs", "test_targets"),
    ],
)
def test_usual_names(tmp_path: Path, keys: tuple[str, ...]) -> None:
    x, y = np.arange(40 * 9, dtype=np.float32).reshape(40, 3, 3), np.arange(40) % 2
    np.savez_compressed(tmp_path / "a.npz", **dict(zip(keys, (x, y, x[:5], y[:5]), strict=True)))
    splits = load(tmp_path / "a.npz")
    assert [len(part) for part in splits] == [36, 4, 5]
    assert torch.equal(splits.test.inputs[:, 0], torch.tensor(x[:5]))


def test_stored_members_are_mapped_in_place_and_others_laid_out(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((3000, 100)).astype(np.float32)
    np.savez(tmp_path / "stored.npz", inputs=x, targets=np.arange(3000) % 3)
    np.savez_compressed(tmp_path / "packed.npz", inputs=x, targets=np.arange(3000) % 3)
    cache = tmp_path / "cache"
    stored = load(tmp_path / "stored.npz", valid=0, test=0, cache=cache)
    assert not cache.exists()
    packed = load(tmp_path / "packed.npz", valid=0, test=0, cache=cache, map_above=10_000)
    again = load(tmp_path / "packed.npz", valid=0.1, test=0.2, cache=cache, map_above=10_000)
    assert torch.equal(stored.train.inputs, torch.tensor(x))
    assert torch.equal(packed.train.inputs, torch.tensor(x))
    assert torch.equal(again.test.inputs, torch.tensor(x[again.test.ids]))
    assert len(list(cache.rglob("test.npy"))) == 1


def test_soft_labels_weights_and_other_types(tmp_path: Path) -> None:
    x = np.arange(20.0).reshape(20, 1)
    np.savez(tmp_path / "a.npz", x=x, y=np.tile([0.5, 0.5], (20, 1)), weights=np.arange(20), ids=np.arange(20) + 100)
    train = load(tmp_path / "a.npz", valid=0, test=0).train
    assert train.weights is not None
    assert train.weights.tolist() == list(range(20))
    assert train.ids[0] == 100
    assert train.inputs.dtype == torch.float32


@pytest.mark.parametrize(
    "header, body, text",
    [
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000), }", b"", "claims shape"),
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (-5, 2), }", b"\0" * 40, "claims shape|damaged"),
        (b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"\0" * 8, "never unpickled"),
        (b"{'descr': '<f4', 'fortran_order': __import__('os'), 'shape': (1,), }", b"\0" * 4, "damaged"),
        (b"not a header", b"", "damaged"),
    ],
)
def test_hostile_members_are_refused_by_name(tmp_path: Path, header: bytes, body: bytes, text: str) -> None:
    path = _npz(tmp_path / "bad.npz", "inputs", header, body)
    with pytest.raises(DataError, match=text) as caught:
        load(path)
    assert "bad.npz:inputs.npy" in str(caught.value)


def test_flipped_bits_and_truncation_are_found(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", inputs=np.random.default_rng(0).random((3000, 100)), targets=np.arange(3000) % 2)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "flipped.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"flipped.npz:inputs.npy is damaged: Bad CRC-32"):
        load(tmp_path / "flipped.npz")
    (tmp_path / "short.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"short.npz is not a readable .npz file"):
        load(tmp_path / "short.npz")


def test_errors_name_the_members(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, stuff=np.zeros(3))
    (tmp_path / "a.npz").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=r"no training inputs.*got \['stuff'\]"):
        load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=np.zeros((3, 1)), y=np.zeros(3), ids=np.array([1, 2, 1]))
    with pytest.raises(DataError, match="the id 1 occurs 2 times"):
        load(tmp_path / "b.npz")
    with pytest.raises(DataError, match=r"no labels named 'z'; it has \['ids', 'x', 'y'\]"):
        load(tmp_path / "b.npz", label="z")
