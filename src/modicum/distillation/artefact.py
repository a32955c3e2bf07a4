"""A synthetic set on disk: a folder that holds everything a model needs to be trained on it, and says where it came from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modicum.data.save import save
from modicum.dataset import Dataset, Info
from modicum.distillation.distilled import Distilled, Snapshot
from modicum.distillation.preview import contact_sheet, natural, natural_span, pixels
from modicum.distillation.teacher import Teacher
from modicum.distillation.teaching import rebuild_teacher
from modicum.distillation.whitening import Whitening
from modicum.errors import DataError, ModicumError, StoreError
from modicum.store import Store
from modicum.training.recipe import Recipe

__all__ = ["Source", "export", "is_artefact", "load_distilled", "read_source", "save_distilled"]

ABOUT, SAMPLES, HISTORY = "distilled.json", "samples.safetensors", "history.json"
WHITENING, STORED, TEACHER = "whitening.safetensors", "stored.safetensors", "teacher.safetensors"
SNAPSHOTS, PREVIEW = "snapshots.safetensors", "preview.png"
BEFORE = "stored."  # names what the inputs of a snapshot are computed from
FORMAT = 1


@dataclass(frozen=True)
class Source:
    """What a set was distilled from.

    Args:
        data: A built-in name, a file or a folder, as `modicum.load` understands it.
        label: Which label column was used.
        limit: At most so many training samples were used.
        fingerprint: Of the training split.
        samples: In the training split.
        span: The stored values that are black and white.
    """

    data: str
    label: str | None = None
    limit: int | None = None
    fingerprint: str = ""
    samples: int = 0
    span: tuple[float, float] | None = None

    @classmethod
    def of(cls, data: Any, train: Dataset, label: str | None = None, limit: int | None = None) -> Source:
        """The source of a training split; a path is made absolute, so that it is found from any folder."""
        path = os.fspath(data) if isinstance(data, (str, os.PathLike)) else ""
        name = os.path.abspath(path) if path and os.path.exists(path) else path
        span = natural_span(train) if train.info.modality == "image" else None
        return cls(name, label, limit, train.fingerprint, len(train), span)


def is_artefact(path: Any) -> bool:
    """Whether a path is a folder that `save_distilled` has finished.

    Example:
        >>> is_artefact("nowhere")
        False
    """
    return isinstance(path, (str, os.PathLike)) and (Path(path) / ABOUT).is_file()


def save_distilled(made: Distilled, folder: str | os.PathLike[str], source: Source | None = None) -> Path:
    """Write a set with everything that training on it needs.

    Tensors are safetensors, the rest is JSON, with a sha256 of every file. A picture of all images is `preview.png`.

    Args:
        made: The set; its recipe must name its network by a text.
        folder: Where; made when missing. Another set in it is replaced.
        source: What it was distilled from; `modicum fit` tests on it.

    Returns:
        The folder.

    Raises:
        ModicumError: The network of the recipe is a factory, or a teacher is not what its description builds.
        StoreError: The disk refuses.

    Example:
        >>> import tempfile
        >>> data = Dataset(torch.rand(2, 4), torch.tensor([0, 1]), info=Info(classes=("a", "b")))
        >>> folder = save_distilled(Distilled(data, Recipe(model="linear", steps=1), "dm"), tempfile.mkdtemp())
        >>> load_distilled(folder).recipe.model
        'linear'
    """
    if made.teacher is not None:
        _teacher(made.dataset, made.teacher.description, made.teacher.model.state_dict())
    about = _about(made, source)
    store = Store(folder)
    store.remove(ABOUT)  # written last: with it the folder is whole
    parts = ("mean", "forward", "inverse")
    tensors: dict[str, Mapping[str, Tensor]] = {
        SAMPLES: _columns(made.dataset),
        SNAPSHOTS: {f"{i}.{k}": v for i, s in enumerate(made.snapshots) for k, v in _moment(s).items()},
        WHITENING: {} if made.whitening is None else {name: getattr(made.whitening, name) for name in parts},
        STORED: made.stored,
        TEACHER: {} if made.teacher is None else made.teacher.model.state_dict(),
    }
    for name, some in tensors.items():
        if some:
            store.write_tensors(name, dict(some))
        else:
            store.remove(name)
    store.write_json(HISTORY, dict(made.history))
    try:
        store.write(PREVIEW, contact_sheet(made, source.span if source else None))
    except DataError:  # there is nothing to see
        store.remove(PREVIEW)
    store.write_json(ABOUT, about)
    return store.folder


def load_distilled(folder: str | os.PathLike[str]) -> Distilled:
    """Read a set that `save_distilled` wrote; `modicum.fit` trains on it as it wants to be trained on.

    Args:
        folder: Where it is.

    Returns:
        The set, to the bit.

    Raises:
        StoreError: The folder holds no such set, or a file is damaged.

    Example:
        >>> import tempfile
        >>> data = Dataset(torch.rand(2, 4), torch.tensor([0, 1]), info=Info(classes=("a", "b")))
        >>> made = Distilled(data, Recipe(model="linear", steps=1), "dm", seed=3)
        >>> again = load_distilled(save_distilled(made, tempfile.mkdtemp()))
        >>> again.seed, torch.equal(again.dataset.inputs, data.inputs)
        (3, True)
    """
    store, about = _opened(folder)
    try:
        info, ids = _info(about["info"]), np.array(about["ids"])
        dataset = _dataset(store.read_tensors(SAMPLES), ids, info)
        moments = store.read_tensors(SNAPSHOTS) if about["snapshots"] else {}
        snapshots = []
        for i, (iteration, recipe) in enumerate(about["snapshots"]):
            columns = {k.partition(".")[2]: v for k, v in moments.items() if k.partition(".")[0] == str(i)}
            stored = {k.removeprefix(BEFORE): columns.pop(k) for k in list(columns) if k.startswith(BEFORE)}
            snapshots.append(Snapshot(iteration, _dataset(columns, ids, info), _recipe(recipe), stored))
        whitening, teacher = None, None
        if about["whitening"] is not None:
            whitening = Whitening(**{**store.read_tensors(WHITENING), **about["whitening"]})
        if about["teacher"] is not None:
            network = _teacher(dataset, about["teacher"]["description"], store.read_tensors(TEACHER))
            teacher = Teacher(network, **about["teacher"])
        return Distilled(
            dataset,
            _recipe(about["recipe"]),
            about["method"],
            about["seed"],
            whitening,
            store.read_json(HISTORY),
            tuple(snapshots),
            store.read_tensors(STORED) if about["stored"] else {},
            teacher,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{store.folder / ABOUT} does not describe a distilled set: {error!r}") from error


def read_source(folder: str | os.PathLike[str]) -> Source | None:
    """What the set in a folder was distilled from; None where that was not written down.

    Example:
        >>> import tempfile
        >>> data = Dataset(torch.rand(2, 4), torch.tensor([0, 1]), info=Info(classes=("a", "b")))
        >>> made = Distilled(data, Recipe(model="linear", steps=1), "dm")
        >>> read_source(save_distilled(made, tempfile.mkdtemp(), Source("iris"))).data
        'iris'
    """
    store, about = _opened(folder)
    if about.get("source") is None:
        return None
    try:
        found = Source(**about["source"])
    except TypeError as error:
        raise StoreError(f"{store.folder / ABOUT} does not describe a source: {error}") from error
    return replace(found, span=None if found.span is None else (found.span[0], found.span[1]))


def export(made: Distilled, path: str | os.PathLike[str], span: tuple[float, float] | None = None) -> list[Path]:
    """Write the samples alone, in the units of the data they stand for, for other programs.

    Whitening is undone. `.npz` holds the numbers as they are; `.parquet` and a folder hold images as PNG, clipped and
    rounded to 256 steps. The recipe stays behind, and a loader measures another mean: train from the artefact.

    Args:
        made: The set.
        path: `.npz`, `.parquet` (and for tables `.csv`, `.tsv`, `.jsonl`), or no extension for a folder of PNG by class.
        span: The stored values that are black and white; those of the samples themselves when None.

    Returns:
        What was written.

    Raises:
        DataError: The form cannot hold these samples, such as soft labels in a folder.

    Example:
        >>> import tempfile
        >>> data = Dataset(torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), info=Info(modality="image", classes=("a", "b")))
        >>> export(Distilled(data, Recipe(), "dm"), tempfile.mkdtemp() + "/tiny.npz")[0].name
        'tiny.npz'
    """
    data = natural(made)
    if data.info.modality == "image" and Path(path).suffix.lower() in ("", ".parquet"):
        data = data.replace(inputs=pixels(data.inputs, span or natural_span(data)))
    return save(data, path)


def _opened(folder: str | os.PathLike[str]) -> tuple[Store, dict[str, Any]]:
    if not is_artefact(folder):
        raise StoreError(f"{folder} holds no {ABOUT}; expected the folder of a finished `modicum distill`")
    store = Store(folder)
    about = store.read_json(ABOUT)
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        given = about.get("format") if isinstance(about, dict) else type(about).__name__
        raise StoreError(f"{store.folder / ABOUT} has the format {given!r}; this version reads {FORMAT}")
    return store, about


def _about(made: Distilled, source: Source | None) -> dict[str, Any]:
    whitening, teacher = made.whitening, made.teacher
    return {
        "format": FORMAT,
        "method": made.method,
        "samples": len(made),
        "bytes": made.bytes,
        "seed": made.seed,
        "recipe": _plain_recipe(made.recipe),
        "info": asdict(made.dataset.info),
        "ids": made.dataset.ids.tolist(),
        "whitening": None if whitening is None else {"eps": whitening.eps, "scale": whitening.scale},
        "teacher": None
        if teacher is None
        else {"description": teacher.description, "temperature": teacher.temperature, "loss": teacher.loss},
        "stored": sorted(made.stored),
        "snapshots": [[s.iteration, _plain_recipe(s.recipe)] for s in made.snapshots],
        "source": None if source is None else asdict(source),
    }


def _plain_recipe(recipe: Recipe) -> dict[str, Any]:
    if not isinstance(recipe.model, str):
        raise ModicumError(
            "recipe model is a factory, which cannot be saved; expected a name such as 'convnet(width=32)'"
        )
    return asdict(recipe)


def _recipe(plain: Mapping[str, Any]) -> Recipe:
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    return Recipe(**given)


def _info(plain: Mapping[str, Any]) -> Info:
    known = {field.name for field in fields(Info)}
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items() if k in known}
    return Info(**given)


def _columns(data: Dataset) -> dict[str, Tensor]:
    columns = {name: getattr(data, name) for name in ("inputs", "targets", "weights", "sources")}
    return {name: column for name, column in columns.items() if column is not None}


def _moment(snapshot: Snapshot) -> dict[str, Tensor]:
    return {**_columns(snapshot.dataset), **{BEFORE + name: value for name, value in snapshot.stored.items()}}


def _dataset(columns: Mapping[str, Tensor], ids: np.ndarray[Any, Any], info: Info) -> Dataset:
    return Dataset(ids=ids, info=info, **columns)


def _teacher(like: Dataset, description: str, weights: Mapping[str, Tensor]) -> torch.nn.Module:
    """The network that a description builds, with these weights; on any other text or weights an error."""
    network = rebuild_teacher(description, like)
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ModicumError(
            f"teacher description={description!r} builds another network than the teacher, so a file cannot hold it; "
            "describe it as modicum.distillation.rebuild_teacher understands it"
        ) from error
    return network.eval()
