"""Image folders and encoded image columns: listing, decoding in bounded pieces, and quarantine of damaged files."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from modicum.data.arrays import SPLITS
from modicum.data.raw import Array, Desk, Encoded, Options, Raw, checked_ids
from modicum.errors import DataError
from modicum.store import Damage

if TYPE_CHECKING:
    from PIL import Image

    from modicum.data.tables import Frame

__all__ = [
    "EXTENSIONS",
    "Blobs",
    "ImageFiles",
    "QuarantineWarning",
    "encode_images",
    "frame_blobs",
    "read_folder",
    "report",
    "survey",
]

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # none of them runs another program
MOST_PIXELS = 1 << 26  # of one image; a header that claims more is refused before anything is decoded
TASK = 32  # images that a thread decodes at a time
Blob: TypeAlias = "tuple[str, Path | bytes | None]"


class QuarantineWarning(UserWarning):
    """Images could not be decoded and were left out; the text names the first of them."""


class _Colored(Exception):
    """A colored image among images that began gray."""


@dataclass(frozen=True)
class Blobs:
    """Encoded images with the names that people know them by.

    Args:
        n: How many.
        each: Gives them in order, each a name and a path, bytes or None.
    """

    n: int
    each: Callable[[], Iterator[Blob]]


@dataclass(frozen=True)
class ImageFiles:
    """Paths of image files.

    Args:
        root: The folder of the data set.
        names: (n,) paths relative to it.
    """

    root: Path
    names: Array

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Array) -> ImageFiles:
        """The files at these positions."""
        return replace(self, names=self.names[rows])

    def encode(self, parts: Mapping[str, Raw], desk: Desk) -> Encoded:
        """Decode the files of every split."""
        files = {name: raw.inputs for name, raw in parts.items()}
        return encode_images({name: f.blobs() for name, f in files.items() if isinstance(f, ImageFiles)}, desk)

    def blobs(self) -> Blobs:
        """The files to decode."""
        return Blobs(len(self), lambda: ((name, self.root / name) for name in self.names.tolist()))


def read_folder(root: Path, options: Options) -> dict[str, Raw]:
    """The splits of an image folder: `train/cat/1.png`, or `cat/1.png` when it has no split folders.

    A `metadata.csv` with the columns `file_name` and `id` gives the images other ids than their paths.

    Raises:
        DataError: There are no images, or a class folder is empty.
    """
    folders = {SPLITS[p.name.lower()]: p for p in _folders(root) if p.name.lower() in SPLITS}
    if "train" not in folders:
        folders = {"train": root}
    ids = _metadata(root)
    return {name: _listed(root, folder, ids) for name, folder in folders.items()}


def _listed(root: Path, folder: Path, ids: dict[str, Any]) -> Raw:
    names: list[str] = []
    labels: list[str] = []
    classes = _folders(folder)
    for place in classes or [folder]:
        files = sorted(p for p in place.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
        if not files and classes:
            raise DataError(f"the class folder {place} has no images; remove it or put some there")
        names += [p.relative_to(root).as_posix() for p in files]
        labels += [place.name] * len(files)
    if not names:
        raise DataError(f"{folder} has no images; expected files such as cat/1.png with one of {', '.join(EXTENSIONS)}")
    where = str(root / "metadata.csv")
    known = checked_ids(np.array([ids.get(n, n) for n in names]), where) if ids else np.array(names)
    return Raw(ImageFiles(root, np.array(names)), np.array(labels) if classes else None, known, source=str(folder))


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def _metadata(root: Path) -> dict[str, Any]:
    path = root / "metadata.csv"
    if not path.is_file():
        return {}
    from modicum.data.files import open_table

    stream = open_table(path, Options(header=True))
    if not {"file_name", "id"} <= set(stream.schema.names):
        return {}
    return dict(
        chain.from_iterable(
            zip(b["file_name"].to_pylist(), b["id"].to_pylist(), strict=True)
            for b in stream.batches(["file_name", "id"])
        )
    )


def frame_blobs(frame: Frame, raw: Raw) -> Blobs:
    """The images of a table's column, as structs with `bytes` and perhaps `path`, or as plain bytes."""
    name = frame.columns[0]

    def each() -> Iterator[Blob]:
        for start, batch in frame.batches():
            for row, value in enumerate(batch[name].to_pylist(), start):
                blob, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
                yield f"{frame.stream.source} id {raw.ids[row].item()}" + (f" ({path})" if path else ""), blob

    return Blobs(len(frame), each)


def encode_images(parts: Mapping[str, Blobs], desk: Desk) -> Encoded:
    """Decode every split as uint8 (n, channels, height, width); what cannot be decoded is left out and listed.

    Raises:
        DataError: Two images have different sizes, or none can be decoded.
    """
    problem, pattern = "there are none", None
    for name, what in _decoded(parts["train"], desk.options, None):
        if not isinstance(what, str):
            pattern = (name, what)
            break
        problem = f"{name}: {what}" if problem == "there are none" else problem
    if pattern is None:
        raise DataError(f"none of the {parts['train'].n} images can be decoded; the first problem: {problem}")
    like, (channels, *sides) = pattern[0], pattern[1].shape
    try:
        return _encode_like(parts, (channels, *sides), like, desk)
    except _Colored:
        return _encode_like(parts, (3, *sides), like, desk)


def _encode_like(parts: Mapping[str, Blobs], shape: tuple[int, ...], like: str, desk: Desk) -> Encoded:
    arrays, dropped, damages = {}, {}, list[Damage]()
    for part, blobs in parts.items():
        notes: list[tuple[int, str, str]] = []
        file, listing = f"{part}-{shape[0]}", f"{part}-{shape[0]}-quarantine.json"
        big = desk.big((blobs.n, *shape), np.uint8)
        if big and not desk.store.has(listing):
            desk.store.remove(f"{file}.npy")  # it was laid out by a process that died before it listed the damage
        array = desk.lay_out(file, (blobs.n, *shape), np.uint8, partial(_fill, blobs, desk.options, shape, like, notes))
        if big and not desk.store.has(listing):
            desk.store.write_json(listing, notes)
        if big:
            notes = [(int(row), str(name), str(why)) for row, name, why in json.loads(desk.store.read(listing))]
        arrays[part] = array[: blobs.n - len(notes)]
        dropped[part] = np.array([row for row, _, _ in notes], np.int64)
        damages += [Damage(name, why) for _, name, why in notes]
        if len(notes) == blobs.n:
            raise DataError(f"none of the {blobs.n} images of the {part} split can be decoded: {damages[-1]}")
    return Encoded(arrays, {"modality": "image"}, dropped, tuple(damages))


def report(damages: tuple[Damage, ...], desk: Desk) -> None:
    """Tell about images that were left out: a warning that names the first, and the whole list in the cache."""
    if not damages:
        return
    path = desk.store.write_json("quarantine.json", [{"name": d.name, "problem": d.problem} for d in damages])
    shown = "; ".join(f"{d.name}: {d.problem}" for d in damages[:3]) + ("; ..." if len(damages) > 3 else "")
    warnings.warn(
        QuarantineWarning(f"{len(damages)} damaged images were left out ({shown}); all are listed in {path}"),
        stacklevel=3,
    )


def survey(parts: Mapping[str, Blobs], options: Options) -> list[Damage]:
    """Decode everything, keep nothing, and list what cannot be decoded."""
    found = chain.from_iterable(_decoded(blobs, options, None) for blobs in parts.values())
    return [Damage(name, what) for name, what in found if isinstance(what, str)]


def _fill(
    blobs: Blobs, options: Options, shape: tuple[int, ...], like: str, notes: list[tuple[int, str, str]], out: Array
) -> None:
    notes.clear()
    for row, (name, what) in enumerate(_decoded(blobs, options, shape[0])):
        if isinstance(what, str):
            notes.append((row, name, what))
            continue
        if what.shape[0] > shape[0]:
            raise _Colored
        if what.shape != shape:
            raise DataError(
                f"images must have one size: {name} is {what.shape[2]} x {what.shape[1]} pixels, but {like} is "
                f"{shape[2]} x {shape[1]}; resize them, or say size=(height, width)"
            )
        out[row - len(notes)] = what


def _decoded(blobs: Blobs, options: Options, channels: int | None) -> Iterator[tuple[str, Array | str]]:
    """Name and pixels, or name and problem, in order, with a bounded number of images in flight."""
    from PIL import Image

    one = partial(_decode, size=options.size, channels=channels)
    stream = blobs.each()
    workers = min(8, os.cpu_count() or 1)
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower and has a name
        warnings.simplefilter("ignore", UserWarning)
        while piece := list(islice(stream, TASK * workers)):
            groups = [piece[i : i + TASK] for i in range(0, len(piece), TASK)]
            for names, images in zip(groups, pool.map(lambda g: [one(blob) for _, blob in g], groups), strict=True):
                yield from ((name, image) for (name, _), image in zip(names, images, strict=True))


def _decode(blob: Path | bytes | None, size: tuple[int, int] | None, channels: int | None) -> Array | str:
    from PIL import Image

    if not blob:
        return "there are no bytes"
    try:
        with Image.open(io.BytesIO(blob) if isinstance(blob, bytes) else blob, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                return f"its header claims {image.width} x {image.height} pixels, more than {MOST_PIXELS}"
            image.load()
            return _pixels(image, size, channels)
    except Image.DecompressionBombError:
        return f"its header claims more than {MOST_PIXELS} pixels"
    except Exception as error:  # a damaged file can make a decoder raise anything
        return f"{type(error).__name__}: {str(error).replace(str(blob), 'it') if isinstance(blob, Path) else error}"[
            :200
        ]


def _pixels(image: Image.Image, size: tuple[int, int] | None, channels: int | None) -> Array:
    deep = image.mode.startswith(("I", "F"))
    gray = deep or image.mode in ("1", "L", "LA")
    if deep:
        image = _shallow(image)
    image = image.convert("L" if gray and channels != 3 else "RGB")
    if size is not None:
        from PIL import Image as images

        image = image.resize((size[1], size[0]), images.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _shallow(image: Image.Image) -> Image.Image:
    from PIL import Image as images

    values = np.asarray(image, dtype=np.float64)
    return images.fromarray((values / (257 if values.max(initial=0) > 255 else 1)).clip(0, 255).astype(np.uint8))
