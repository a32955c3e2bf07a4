"""Image folders and image tables: splits, channels, quarantine, hostile headers."""

import json
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from modicum.data import QuarantineWarning, load, save, verify
from modicum.errors import DataError


def _folder(root: Path, splits: tuple[str, ...] = ("",), n: int = 6, mode: str = "L") -> Path:
    rng = np.random.default_rng(0)
    for split in splits:
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 255, (4, 5) if mode == "L" else (4, 5, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"")) + _chunk(b"IEND", b"")


def test_class_folders(tmp_path: Path) -> None:
    train = load(_folder(tmp_path / "a"), valid=0, test=0).train
    assert train.info.classes == ("cat", "dog")
    assert train.inputs.shape == (12, 1, 4, 5)
    row = train.ids.tolist().index("dog/3.png")
    assert train.inputs[row, 0].tolist() == np.asarray(Image.open(tmp_path / "a" / "dog" / "3.png")).tolist()
    assert train.labels[row] == 1


def test_split_folders(tmp_path: Path) -> None:
    splits = load(_folder(tmp_path / "a", ("train", "val", "test"), 3))
    assert [len(part) for part in splits] == [6, 6, 6]
    assert splits.valid.ids[0] == "val/cat/0.png"


def test_gray_and_colored_images_mix_as_colored(tmp_path: Path) -> None:
    root = _folder(tmp_path / "a")
    Image.new("RGB", (5, 4), (255, 0, 0)).save(root / "dog" / "9.png")
    train = load(root, valid=0, test=0).train
    assert train.inputs.shape == (13, 3, 4, 5)
    assert torch.equal(train.inputs[0, 0], train.inputs[0, 1])


def test_damaged_images_are_left_out_and_listed(tmp_path: Path) -> None:
    root, cache = _folder(tmp_path / "a"), tmp_path / "cache"
    whole = (root / "cat" / "1.png").read_bytes()
    (root / "cat" / "1.png").write_bytes(whole[: len(whole) // 2])
    (root / "dog" / "2.png").write_bytes(b"")
    (root / "dog" / "4.png").write_bytes(_bomb(60_000, 60_000))
    names = ["cat/1.png", "dog/2.png", "dog/4.png"]
    assert [d.name for d in verify(root)] == names
    for map_above in (1 << 30, 10):  # in memory, laid out in a file, and read from there again
        for _ in range(2):
            with pytest.warns(QuarantineWarning, match=r"3 damaged images were left out \(cat/1.png: "):
                train = load(root, valid=0, test=0, cache=cache, map_above=map_above).train
            assert len(train) == 9
            assert not set(names) & set(train.ids)
            good = train.ids.tolist().index("dog/5.png")
            assert train.inputs[good, 0].tolist() == np.asarray(Image.open(root / "dog" / "5.png")).tolist()
    listed = json.loads(next(cache.rglob("quarantine.json")).read_text())
    assert [entry["name"] for entry in listed] == names
    assert listed[2]["problem"] == "its header claims more than 67108864 pixels"


def test_a_table_of_images_names_its_damaged_rows(tmp_path: Path) -> None:
    digits = load("digits", limit=40).train
    save(digits, tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    images = table["image"].to_pylist()
    images[7]["bytes"] = images[7]["bytes"][:40]
    broken = table.set_column(table.schema.get_field_index("image"), "image", pa.array(images))
    pq.write_table(broken, tmp_path / "b.parquet")
    with pytest.warns(QuarantineWarning, match=rf"1 damaged images were left out .*b.parquet id {digits.ids[7]}"):
        read = load(tmp_path / "b.parquet", valid=0, test=0, cache=tmp_path / "cache").train
    assert read.ids.tolist() == np.delete(digits.ids, 7).tolist()
    assert torch.equal(read.inputs, digits.inputs[[i for i in range(40) if i != 7]])
    assert len(verify(tmp_path / "b.parquet")) == 1


def test_errors(tmp_path: Path) -> None:
    root = _folder(tmp_path / "mixed")
    Image.new("L", (9, 9)).save(root / "dog" / "9.png")
    with pytest.raises(DataError, match=r"dog/9.png is 9 x 9 pixels, but cat/0.png is 5 x 4; resize them"):
        load(root, valid=0, test=0)
    assert load(root, size=8, valid=0, test=0).train.inputs.shape == (13, 1, 8, 8)
    (root / "empty").mkdir()
    with pytest.raises(DataError, match=r"class folder .*empty has no images"):
        load(root)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"has no images; expected files such as cat/1.png"):
        load(tmp_path / "none")
    broken = _folder(tmp_path / "broken", n=1)
    for file in broken.rglob("*.png"):
        file.write_bytes(b"x")
    with pytest.raises(DataError, match=r"none of the 2 images can be decoded; the first problem: cat/0.png"):
        load(broken, valid=0, test=0)


def test_a_class_whose_images_are_all_damaged(tmp_path: Path) -> None:
    root = _folder(tmp_path / "a", n=2)
    for file in (root / "dog").iterdir():
        file.write_bytes(b"x")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QuarantineWarning)
        with pytest.raises(DataError, match="class 'dog' has no undamaged sample left"):
            load(root, valid=0, test=0, cache=tmp_path / "cache")
