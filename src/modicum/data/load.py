"""One function that reads whatever the user has and gives a training, a validation and a test split."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modicum.data.arrays import SPLITS, from_arrays, from_samples, read_npz
from modicum.data.bundled import BUNDLED, read_bundled
from modicum.data.files import TABLES, open_table
from modicum.data.huggingface import fetch, is_huggingface, read_huggingface
from modicum.data.images import ImageFiles, frame_blobs, read_folder, report, survey
from modicum.data.labels import class_values, encode_labels, infer_task, strata
from modicum.data.parting import part_rows, stratified_rows
from modicum.data.raw import MAP_ABOVE, Array, Desk, Options, Raw, to_tensor
from modicum.data.tables import Frame, interpret
from modicum.dataset import Dataset, Info, Splits, Task
from modicum.errors import DataError
from modicum.spec import content_key
from modicum.store import Damage

__all__ = ["load", "read_raw", "standardized", "training_file", "verify"]

NOT_SAMPLES = (dict, np.ndarray, torch.Tensor)
FILES = (*TABLES, ".npz")
VALID, TEST = 0.1, 0.2  # shares that are carved from the training split when a split is missing
SMALL = 0.2  # of both, for the bundled sets


def load(
    spec: Any,
    *,
    inputs: str | Sequence[str] | None = None,
    label: str | bool | None = None,
    valid: float | None = None,
    test: float | None = None,
    seed: int = 0,
    limit: int | None = None,
    task: Task | None = None,
    header: bool | None = None,
    size: int | tuple[int, int] | None = None,
    cache: str | os.PathLike[str] | None = None,
    map_above: int = MAP_ABOVE,
    vocabulary: Sequence[str] = (),
) -> Splits:
    """Read a data set and give its training, validation and test split.

    Splits that the source has are kept; a missing one is cut from the training split, with the classes in their
    proportions. Class names, vocabulary, categories, mean and standard deviation are learned from the training split
    only, after cutting, and shared by all three.

    Args:
        spec: A bundled name (`digits`, `iris`, `wine`, `breast_cancer`, `diabetes`); a path to .npz, .parquet, .csv,
            .tsv or .jsonl (`x-test.parquet` beside `x-train.parquet` is found), to an image folder or to a folder of
            files named train, valid and test; `hf:NAME` or a Hugging Face data set; arrays or tensors `(inputs,
            targets)` or `((inputs, targets), (test_inputs, test_targets))`; a torch data set of (input, target)
            samples; a `Dataset`; `Splits`, returned as they are.
        inputs: Names of the input columns; all that are not ids, labels or weights when None.
        label: Name of the label column; None to look for a usual name, False for no labels.
        valid: Share of the given training samples that becomes the validation split where there is none; 0 leaves it
            empty. When None 0.1, and 0.2 for the bundled sets.
        test: The same for the test split; when None 0.2.
        seed: Of the cut and of `limit`.
        limit: At most so many samples a split, chosen at random with the classes in their proportions.
        task: `classification`, `regression` or `unlabeled`, to overrule what the labels look like.
        header: Whether the first line of a .csv or .tsv names the columns; None to find out.
        size: Height and width in pixels that images are resized to; None to take them as they are.
        cache: Folder for mapped files and lists of damage; `cache/data` in `modicum.context.home()` when None.
        map_above: Bytes of decoded inputs above which they are kept in a mapped file and not in memory.
        vocabulary: Tokens of texts by number, beginning with `<pad>` and `<unk>`; learned when empty.

    Returns:
        The splits, with ids that are the row numbers of the file, its column `id`, or the paths of the images.

    Raises:
        DataError: The data are missing, damaged or unusable; the text says what and where.
        MissingExtraError: `hf:` without the extra.

    Example:
        >>> train, valid, test = load("digits")
        >>> len(train), len(valid), len(test), tuple(train.inputs.shape[1:])
        (1078, 359, 360, (1, 8, 8))
    """
    if isinstance(spec, Splits):
        return spec
    if isinstance(spec, Dataset):
        share = [VALID if valid is None else valid, TEST if test is None else test]
        return _split_dataset(spec, share[0], share[1], seed, limit)
    columns = (inputs,) if isinstance(inputs, str) else tuple(inputs or ())
    sides = (size, size) if isinstance(size, int) else size
    options = Options(columns, label, task, header, sides, map_above, tuple(vocabulary))
    at = Path(cache) if cache is not None else None
    paths, key = _files(spec)
    choices = (key, valid, test, seed, limit)
    desk = Desk.at(paths, options, at, *choices) if paths else Desk(content_key(options, choices), options, at)
    parts = read_raw(spec, options, desk)
    small = isinstance(spec, str) and spec in BUNDLED
    default = (SMALL, SMALL) if small else (VALID, TEST)
    shares = (default[0] if valid is None else valid, default[1] if test is None else test)
    name = Path(spec).name if paths else parts["train"].source
    return _finish(parts, desk, shares, seed, limit, name)


def verify(path: str | os.PathLike[str], **options: Any) -> list[Damage]:
    """Look through an image folder or an image table for what cannot be decoded, or try to read any other file.

    Args:
        path: Of the data.
        options: As for `load`.

    Returns:
        One entry a damaged image, with its name and the problem; empty when all is well.

    Example:
        >>> verify("nowhere.csv")[0].problem
        "nowhere.csv does not exist; expected a file, a folder, 'hf:NAME', or one of digits, iris, wine, breast_cancer, diabetes"
    """
    try:
        desk = Desk("verify", Options(label=options.get("label")))
        parts = read_raw(os.fspath(path), desk.options, desk)
        files = {name: raw.inputs.blobs() for name, raw in parts.items() if isinstance(raw.inputs, ImageFiles)}
        for name, raw in parts.items():
            if isinstance(raw.inputs, Frame) and raw.inputs.kind == "image":
                files[name] = frame_blobs(raw.inputs, raw)
        if files:
            return survey(files, desk.options)
        load(path, **options)
    except DataError as error:
        return [Damage(str(path), str(error))]
    return []


def read_raw(spec: Any, options: Options, desk: Desk) -> dict[str, Raw]:
    """The splits that a source has, not decoded yet."""
    if isinstance(spec, str) and spec in BUNDLED:
        return {"train": read_bundled(spec)}
    if isinstance(spec, str) and spec.startswith("hf:"):
        return read_huggingface(fetch(spec[3:]), options, spec)
    if isinstance(spec, (str, os.PathLike)):
        return _read_path(Path(spec), options, desk)
    if is_huggingface(spec):
        return read_huggingface(spec, options)
    if isinstance(spec, (tuple, list)):
        nested = all(isinstance(p, (tuple, list)) and len(p) == 2 and _is_column(p[0]) for p in spec)
        if len(spec) in (2, 3) and nested:
            names = ("train", "test") if len(spec) == 2 else ("train", "valid", "test")
            return {name: from_arrays(x, y, name) for name, (x, y) in zip(names, spec, strict=True)}
        if len(spec) == 2:
            return {"train": from_arrays(spec[0], spec[1])}
    elif hasattr(spec, "__len__") and hasattr(spec, "__getitem__") and not isinstance(spec, NOT_SAMPLES):
        return {"train": from_samples(spec)}
    raise DataError(
        f"cannot load a {type(spec).__name__}; expected a name, a path, (inputs, targets), "
        "((inputs, targets), (test_inputs, test_targets)), or a data set of (input, target) samples"
    )


def _is_column(value: Any) -> bool:
    return hasattr(value, "shape") or (isinstance(value, (list, tuple)) and len(value) > 0)


def _read_path(path: Path, options: Options, desk: Desk) -> dict[str, Raw]:
    files = _split_files(path)
    if not files:
        return read_folder(path, options)
    parts: dict[str, Raw] = {}
    for name in [n for n in ("train", "valid", "test") if n in files]:
        file = files[name]
        if file.suffix.lower() == ".npz":
            whole = read_npz(file, desk)
            parts.update(whole if len(files) == 1 else {name: whole["train"]})
            continue
        stream = open_table(file, options)
        options = replace(options, header=stream.header if file.suffix.lower() in (".csv", ".tsv") else options.header)
        parts[name] = interpret(stream, options, labelled=name == "train")
    return parts


def _split_files(path: Path) -> dict[str, Path]:
    """The files of the splits; none for an image folder."""
    if not path.exists():
        raise DataError(f"{path} does not exist; expected a file, a folder, 'hf:NAME', or one of {', '.join(BUNDLED)}")
    if path.is_dir():
        files = [p for p in sorted(path.iterdir()) if p.suffix.lower() in FILES and p.stem.lower() in SPLITS]
        found = {SPLITS[p.stem.lower()]: p for p in files}
        if found and "train" not in found:
            raise DataError(f"{path} has {sorted(p.name for p in files)} but no file named train")
        return found
    if path.suffix.lower() not in FILES:
        raise DataError(f"{path} has the extension {path.suffix!r}; expected a folder or one of {', '.join(FILES)}")
    found = {"train": path}
    match = re.search(r"(?i)(?<![a-z])train(?![a-z])", path.stem)
    for word, part in SPLITS.items() if match else ():
        beside = path.with_name(path.stem[: match.start()] + word + path.stem[match.end() :] + path.suffix)  # type: ignore[union-attr]
        if part != "train" and beside.is_file():
            found[part] = beside
    return found


def training_file(path: Path) -> Path | None:
    """The file of the training split; None for a folder of images."""
    return _split_files(path).get("train")


def _files(spec: Any) -> tuple[tuple[Path, ...], str]:
    if not isinstance(spec, (str, os.PathLike)) or spec in BUNDLED or str(spec).startswith("hf:"):
        return (), str(spec) if isinstance(spec, str) else type(spec).__name__
    files = tuple(_split_files(Path(spec)).values())
    return files or tuple(sorted(p for p in Path(spec).rglob("*") if p.is_file())), ""


def _finish(
    parts: dict[str, Raw], desk: Desk, shares: tuple[float, float], seed: int, limit: int | None, name: str
) -> Splits:
    for raw in parts.values():
        if len(raw) == 0:
            raise DataError(f"{raw.source or 'the data'} has no rows; expected at least one sample")
    parts = _same_sources(parts)
    train = parts["train"]
    task = infer_task(train, desk.options.task)
    if task != "unlabeled":
        parts = {name: raw for name, raw in parts.items() if raw.labels is not None}
    values, classes = class_values(train) if task == "classification" else (np.empty(0), ())
    for raw in parts.values():
        encode_labels(raw, task, values)  # a wrong label is found before the long work of decoding
    parts = _carved(parts, task, shares, seed)
    parts = {name: _limited(raw, task, limit, seed) for name, raw in parts.items()}
    some = {name: raw for name, raw in parts.items() if len(raw)}
    encoded = train.inputs.encode(some, desk)
    report(encoded.damages, desk)
    info = Info(**{**train.info, **encoded.info, "task": task, "classes": classes, "source": name})
    made = {}
    for part, raw in some.items():
        left = raw.drop(encoded.dropped[part]) if len(encoded.dropped.get(part, ())) else raw
        made[part] = _dataset(left, encoded.arrays[part], task, values, info)
    for part, data in made.items():
        if data.inputs.shape[1:] != made["train"].inputs.shape[1:]:
            raise DataError(
                f"{parts[part].source}: inputs of the {part} split have shape {tuple(data.inputs.shape[1:])}, "
                f"those of the training split {tuple(made['train'].inputs.shape[1:])}"
            )
    if task == "classification" and encoded.damages:
        empty = (made["train"].class_counts() == 0).nonzero().flatten().tolist()
        if empty and limit is None:
            raise DataError(f"class {classes[empty[0]]!r} has no undamaged sample left in the training split")
    info = standardized(made["train"]).info
    whole = {part: data.replace(info=info) for part, data in made.items()}
    none = whole["train"][:0]
    return Splits(whole["train"], whole.get("valid", none), whole.get("test", none))


def _same_sources(parts: dict[str, Raw]) -> dict[str, Raw]:
    """Sources numbered alike in every split; those of the training split come first."""
    if all(raw.sources is None for raw in parts.values()):
        return parts
    names = tuple(dict.fromkeys(name for raw in parts.values() for name in raw.info.get("sources", ())))
    made = {}
    for part, raw in parts.items():
        own, column = raw.info.get("sources", ()), raw.sources
        if column is not None and own:
            column = np.array([names.index(name) for name in own])[column]
        made[part] = replace(raw, sources=column, info={**raw.info, "sources": names})
    return made


def _carved(parts: dict[str, Raw], task: Task, shares: tuple[float, float], seed: int) -> dict[str, Raw]:
    missing = [(n, s) for n, s in zip(("valid", "test"), shares, strict=True) if n not in parts]
    for name, share in missing:
        if not 0 <= share < 1:
            raise DataError(f"{name}={share} must be a share of the training split, at least 0 and below 1")
    rest = 1 - sum(share for _, share in missing)
    if rest <= 0:
        raise DataError(f"valid={shares[0]} and test={shares[1]} leave nothing to train on")
    if not missing or rest == 1:
        return parts
    train = parts["train"]
    rows = part_rows(strata(train, task), len(train), (rest, *(share for _, share in missing)), seed)
    cut = {name: train.take(r) for (name, _), r in zip([("train", rest), *missing], rows, strict=True)}
    return {**parts, **cut}


def _limited(raw: Raw, task: Task, limit: int | None, seed: int) -> Raw:
    if limit is None or len(raw) <= limit:
        return raw
    if limit < 1:
        raise DataError(f"limit={limit} must be at least 1")
    return raw.take(stratified_rows(strata(raw, task), len(raw), limit, seed))


def _dataset(raw: Raw, array: Array, task: Task, values: Array, info: Info) -> Dataset:
    weights = None
    if raw.weights is not None:
        if raw.weights.dtype.kind not in "iuf" or not bool((raw.weights >= 0).all() and np.isfinite(raw.weights).all()):
            raise DataError(f"{raw.source}: sample weights must be finite numbers that are not negative")
        weights = torch.tensor(raw.weights.astype(np.float32))
    sources = None if raw.sources is None else torch.tensor(raw.sources.astype(np.int64))
    return Dataset(to_tensor(array), encode_labels(raw, task, values), np.array(raw.ids), weights, sources, info)


def _split_dataset(dataset: Dataset, valid: float, test: float, seed: int, limit: int | None) -> Splits:
    alike = dataset.labels.numpy() if dataset.info.task == "classification" and dataset.targets is not None else None
    rows = part_rows(alike, len(dataset), (1 - valid - test, valid, test), seed)
    made = []
    for part in rows:
        if limit is not None:
            part = part[stratified_rows(None if alike is None else alike[part], len(part), limit, seed)]
        made.append(dataset[part])
    info = standardized(made[0]).info
    return Splits(*(data.replace(info=info) for data in made))


def standardized(dataset: Dataset) -> Dataset:
    """The same samples with `info.mean` and `info.std` measured on them, a block at a time.

    Per channel of images and per column of tables, in the units of the stored inputs; a standard deviation of 0
    becomes 1. Texts stay as they are. Regression targets get `info.target_mean` and `info.target_std` likewise.

    Example:
        >>> import torch
        >>> standardized(Dataset(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))).info.std
        (1.0, 1.0)
    """
    if dataset.info.task == "regression" and dataset.targets is not None and len(dataset):
        center, scale = float(dataset.targets.double().mean()), float(dataset.targets.double().std(correction=0))
        info = replace(dataset.info, target_mean=_rounded(center), target_std=_rounded(scale) or 1.0)
        dataset = dataset.replace(info=info)
    if dataset.info.modality == "text" or len(dataset) == 0 or dataset.inputs.ndim < 2:
        return dataset
    over = [0, *range(2, dataset.inputs.ndim)]
    width, count = dataset.inputs.shape[1], dataset.inputs.numel() // dataset.inputs.shape[1]
    step = max(1, (1 << 18) // max(1, dataset.inputs[0].numel()))
    total, square = torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    shape = (1, -1) + (1,) * (dataset.inputs.ndim - 2)
    for _, block in dataset.batches(step):
        total += block.double().sum(over)
    mean = total / max(1, count)
    for _, block in dataset.batches(step):
        square += (block.double() - mean.reshape(shape)).square().sum(over)
    std = (square / max(1, count)).sqrt()
    # Sums of constants leave a rounding error of the size of the numbers times the precision.
    std = torch.where(std <= 1e-9 * mean.abs().clamp(min=1e-300), torch.ones_like(std), std)
    info = replace(dataset.info, mean=tuple(map(_rounded, mean.tolist())), std=tuple(map(_rounded, std.tolist())))
    return dataset.replace(info=info)


def _rounded(value: float) -> float:
    """Nine digits: processors add in different orders, and the fingerprint of the data must not depend on that."""
    return float(f"{value:.9g}")
