"""The verb mix: several sources as one training set, without what repeats, and with a share for each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modicum.comparison.mixing import KINDS, Copies, Mixed, draw, from_sources, sample_table, shares_of
from modicum.context import Context
from modicum.data import concatenate, duplicates, load, save, standardized
from modicum.data.bundled import BUNDLED
from modicum.data.text import PADDING, UNKNOWN, relearned
from modicum.data.written import Written, written, written_splits
from modicum.dataset import Dataset, Splits
from modicum.errors import DataError, ModicumError
from modicum.evidence import environment
from modicum.scores import Budget
from modicum.store import Store
from modicum.training.recipe import Recipe

__all__ = ["Mixed", "mix", "named_sources"]

TARGET = "target"  # the name of a target that is no source


def mix(
    sources: Mapping[str, Any] | Sequence[Any],
    weights: Mapping[str, float] | str = "size",
    *,
    target: Any = None,
    keep: Budget | float | int | str | None = None,
    deduplicate: bool = True,
    near: float | None = None,
    by: Any = "",
    recipe: Recipe | None = None,
    ctx: Context | None = None,
    folder: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Mixed:
    """Several sources as one data set for training, each with its share.

    What repeats is left out: a training sample that equals or nearly equals one of the validation or test samples, an
    earlier one of its own source, or one of an earlier source (see `modicum.data.duplicates`); texts of files are compared
    whole, with all their words. `fit` on the result
    visits every source in proportion to its weight, whatever its size; the ledger has the epochs elapsed of each.

    Args:
        sources: What `modicum.load` understands, by name, or paths and bundled names of which the names are made. Earlier
            ones have precedence where two hold the same sample.
        weights: A number >= 0 by the name of a source, `size` (as many visits as samples), `equal`, or `a-mtrl`: as
            relevant as a pilot finds it for the target (`modicum.analysis.pilot_sources`).
        target: Data to validate and test on, the name of a source or data of its own; the validation and test samples of
            all sources when None, which are cut off them where they have none. Its training samples tell `a-mtrl` what is
            relevant; a target that is a source counts with relevance 1 there, that of its own head.
        keep: How many training samples in all, as a fraction, a count or `30%`: each source gives its share, drawn at
            random with its classes in their proportions, and one that has too few gives all. None keeps everything.
        deduplicate: Whether to look for what repeats.
        near: How near is near; the usual for the kind of data when None, 0 for equal inputs only.
        by: What is compared (see `modicum.data.duplicates`).
        recipe: Of the pilot of `a-mtrl`; what suits the data when None.
        ctx: Device, seed, and the ledger that is charged.
        folder: Where the table `samples.parquet`, the page `report.html` and the mixture go; nothing is written when None.
        out: File of the mixture: .npz, .parquet, .csv, .tsv or .jsonl; `mixture.npz` in the folder when None.
        options: For `load`, such as `label` or `limit`, the same for all.

    Returns:
        The mixture, its weights, and what became of every sample.

    Raises:
        DataError: The sources do not fit together.
        ModicumError: Wrong weights, or `a-mtrl` without a target.

    Example:
        >>> train = load("iris").train
        >>> mixed = mix({"web": train[:60], "books": train[30:]}, {"web": 3, "books": 1}, valid=0, test=0)
        >>> mixed.sizes, mixed.weights
        ({'web': 60, 'books': 30}, {'web': 0.75, 'books': 0.25})
        >>> mixed.rows()[1]["copies"]
        30
    """
    ctx, given = ctx or Context(), named_sources(sources)
    if isinstance(weights, str) and weights not in KINDS:
        raise ModicumError(f"weights={weights!r}; expected numbers by source, or one of {', '.join(KINDS)}")
    if weights == "a-mtrl" and target is None:
        raise ModicumError("weights='a-mtrl' weighs sources by what they tell of a target; give target=...")
    goal = _goal(target, given)
    pool = _pooled(given, target, goal, options)
    train, first = from_sources(pool.whole[pool.training], tuple(given), pool.column), pool.training.start
    copies, keeps = None, np.ones(len(train), bool)
    if deduplicate:
        with ctx.ledger.clock("choose", "duplicates", samples=pool.training.stop):
            some = np.arange(pool.training.stop)
            texts = None if pool.texts is None else pool.texts.take(some)
            copies = Copies.among(duplicates(pool.whole[some], near, by=by, texts=texts), first)
        keeps[copies.at - first] = False
    if not keeps.any():
        raise DataError("nothing is left to train on: every training sample repeats a validation or test sample")
    aimed = None if goal is None else pool.whole[pool.spans[goal, "train"]]
    shares, pilot = shares_of(weights, train[np.flatnonzero(keeps)], goal, aimed, recipe, ctx)
    status = np.where(keeps, "kept", "duplicate")
    if keep is not None:
        drawn, shares = draw(train, keeps, shares, keep, ctx)
        status[keeps & ~drawn] = "not drawn"
        keeps = drawn
    mixture = standardized(train[np.flatnonzero(keeps)])
    judges = [pool.judge(split, mixture) for split in ("valid", "test")]
    if mixture.info.modality == "text" and mixture.info.vocabulary:
        mixture, *judges = relearned(mixture, *judges)
    mixed = Mixed(Splits(mixture, *judges), shares, sample_table(train, status, copies, first), copies, pilot)
    if folder is not None:
        asked = {
            **{"weights": weights if isinstance(weights, str) else dict(weights), "seed": ctx.seed},
            **{"keep": None if keep is None else str(keep), "target": None if target is None else str(target)},
            **{"deduplicate": deduplicate, "near": near, "by": by, "out": None if out is None else str(out)},
            **{"recipe": asdict(recipe) if recipe else {}, "label": None, "limit": None, **options},
        }
        _write(
            mixed,
            {"command": "mix", "sources": _plain(given), **asked},
            Store(folder),
            ctx,
            pool.text if pool.texts else None,
        )
    elif out is not None:
        save(mixed.splits, out)
    return mixed


def named_sources(sources: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Data by name; a path gives its own.

    Example:
        >>> named_sources(["web=a/b.jsonl", "books.csv", "more/books.csv"])
        {'web': 'a/b.jsonl', 'books': 'books.csv', 'books-2': 'more/books.csv'}
    """
    if isinstance(sources, str):
        raise ModicumError(f"sources={sources!r} is one text; expected several data sets, by name or in a list")
    if isinstance(sources, Mapping):
        given = {str(name): spec for name, spec in sources.items()}
    else:
        given = {}
        for spec in sources:
            if not isinstance(spec, (str, os.PathLike)):
                raise ModicumError(
                    f"sources hold a {type(spec).__name__}, which has no name; give them as {{name: data}}"
                )
            name, path = _split_name(os.fspath(spec))
            unique, number = name, 2
            while unique in given:
                unique, number = f"{name}-{number}", number + 1
            given[unique] = path
    if not given:
        raise ModicumError("sources are empty; expected at least one data set")
    for name in given:
        if not name or set(name) & set(",=/()") or name == TARGET:
            raise ModicumError(f"source name {name!r}; expected one without , = / ( ) and other than {TARGET!r}")
    return given


def _split_name(spec: str) -> tuple[str, str]:
    """The name and the data of `name=path`, `path` or `hf:name`."""
    if "=" in spec and not Path(spec).exists():
        name, _, path = spec.partition("=")
        return name, path
    whole = Path(os.path.normpath(spec))
    stem = spec if spec in BUNDLED else whole.stem if whole.suffix else whole.name
    return "".join("-" if c in ",=/():" else c for c in stem), spec


def _goal(target: Any, given: Mapping[str, Any]) -> str | None:
    """The source that is the target, or `target` for data of its own."""
    if target is None:
        return None
    if isinstance(target, (str, os.PathLike)):
        for name, spec in given.items():
            path = os.fspath(spec) if isinstance(spec, (str, os.PathLike)) else None
            if os.fspath(target) in (name, path):
                return name
    return TARGET


@dataclass(frozen=True, eq=False)
class _Pool:
    """All samples of all sources and of the target, one after another: what is tested on, what is trained on, the rest.

    Args:
        whole: The samples.
        texts: As they are written, for texts.
        spans: Where each part stands, by source and split.
        ids: Of each part, as its source has them.
        names: Of the sources.
        words: By number, for texts.
    """

    whole: Dataset
    texts: Written | None
    spans: dict[tuple[str, str], slice]
    ids: dict[tuple[str, str], Any]
    names: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def training(self) -> slice:
        """What may be trained on."""
        return slice(self.spans[self.names[0], "train"].start, self.spans[self.names[-1], "train"].stop)

    @property
    def column(self) -> torch.Tensor:
        """The number of the source of each sample to train on."""
        sizes = torch.tensor([len(self.ids[name, "train"]) for name in self.names])
        return torch.repeat_interleave(torch.arange(len(self.names)), sizes)

    def text(self, position: int) -> str:
        """A text as it was compared."""
        assert self.texts is not None
        numbers = self.texts.flat[self.texts.starts[position] : self.texts.starts[position + 1]].tolist()
        return " ".join(self.words[number] if number >= 0 else UNKNOWN for number in numbers)

    def judge(self, split: str, mixture: Dataset) -> Dataset:
        """Validation or test samples, with what was measured on the mixture."""
        mine = [name for name, part in self.spans if part == split]
        rows = [np.arange(self.spans[name, split].start, self.spans[name, split].stop) for name in mine]
        data = self.whole[np.concatenate([*rows, np.empty(0, np.int64)]).astype(np.int64)]
        ids = [np.char.add(f"{name}/", self.ids[name, split].astype(str)) for name in mine]
        sources = None
        if TARGET not in mine:
            column = [np.full(len(at), self.names.index(name)) for name, at in zip(mine, rows, strict=True)]
            sources = torch.from_numpy(np.concatenate([*column, np.empty(0, np.int64)]).astype(np.int64))
        named = np.concatenate([*ids, np.empty(0, "U1")])
        return Dataset(data.inputs, data.targets, named, data.weights, sources, mixture.info)


def _pooled(given: Mapping[str, Any], target: Any, goal: str | None, options: Mapping[str, Any]) -> _Pool:
    specs = {**given, TARGET: target} if goal == TARGET else dict(given)
    numbers = {PADDING: 0, UNKNOWN: 1}
    read = {
        name: {} if isinstance(spec, (Splits, Dataset)) else written(spec, numbers, **options)
        for name, spec in specs.items()
    }
    # while copies are looked for, no two words may look alike
    known = {"vocabulary": tuple(numbers)} if len(numbers) > 2 else {}
    uncut = {} if target is None else {"valid": 0.0, "test": 0.0}  # nothing is cut off a source that nobody tests on
    loaded = {
        name: load(spec, **({} if name == goal else uncut) | dict(options) | known) for name, spec in specs.items()
    }
    judges = list(given) if goal is None else [goal]
    order = [(name, split) for split in ("test", "valid") for name in judges if len(getattr(loaded[name], split))]
    order += [(name, "train") for name in specs]  # a target of its own comes last, so that it stands for nothing
    parts = {part: getattr(loaded[part[0]], part[1]) for part in order}
    labels = {name if split == "train" else f"{name} ({split})": data for (name, split), data in parts.items()}
    whole, ends = concatenate(labels), np.cumsum([0, *map(len, parts.values())]).tolist()
    texts = None
    if whole.info.modality == "text":
        lined = {name: written_splits(read[name], loaded[name]) for name in specs}
        texts = Written.joined(
            [lined[n][s] if lined[n] else Written.of_dataset(data, numbers) for (n, s), data in parts.items()]
        )
    spans = {part: slice(a, b) for part, a, b in zip(order, ends, ends[1:])}
    return _Pool(whole, texts, spans, {part: data.ids for part, data in parts.items()}, tuple(given), tuple(numbers))


def _plain(given: Mapping[str, Any]) -> list[str]:
    """Names and data in their order, which says who has precedence."""
    texts = {n: os.fspath(spec) if isinstance(spec, (str, os.PathLike)) else repr(spec) for n, spec in given.items()}
    return [f"{name}={spec}" for name, spec in texts.items()]


def _write(mixed: Mixed, settings: Mapping[str, Any], store: Store, ctx: Context, show: Any) -> None:
    from modicum.report.write_mixture import write_mixture

    with store.locked():
        file = store.folder / "mixture.npz"
        if settings["out"]:
            file = save(mixed.splits, settings["out"])[0]
        else:
            store.write("mixture.npz", lambda path: save(mixed.splits, path.with_suffix(".npz"))[0].replace(path))
        write_mixture(mixed, store, {**settings, "environment": environment()}, file, ctx.ledger, show)
