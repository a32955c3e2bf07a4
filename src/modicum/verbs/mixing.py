"""The verb mix: several sources as one training set, without what repeats, and with a share for each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from modicum.analysis import SourcePilot, allocate_samples, pilot_sources
from modicum.context import Context
from modicum.data import Duplicates, concatenate, duplicates, load, save, standardized
from modicum.data.bundled import BUNDLED
from modicum.data.load import words
from modicum.data.parting import stratified_rows
from modicum.data.text import PADDING, UNKNOWN, relearned
from modicum.dataset import Dataset, Splits
from modicum.errors import DataError, ModicumError
from modicum.evidence import environment
from modicum.ledger import epochs_elapsed
from modicum.scores import Budget, as_budget
from modicum.store import Store
from modicum.training.order import Mixture
from modicum.training.recipe import Recipe

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Mixed", "mix"]

KINDS = ("size", "equal", "a-mtrl")
EXPLORE = 500  # samples of each source that the pilot of a-mtrl looks at


@dataclass(frozen=True, eq=False)
class Mixed:
    """Several sources as one data set, and how much of training each is to get.

    Args:
        splits: The mixture for training, with a column of sources, and the samples to choose and test on.
        weights: Share of the visits of training by the name of a source; they add up to 1.
        samples: A row for each training sample of the sources: `id`, `source`, `status` (kept, duplicate or not drawn),
            `reason`, `of` (what stands for it), `nearness` and `same_label`.
        found: What was found to repeat, None where nobody looked.
        pilot: Of `a-mtrl`, None for other weights.
    """

    splits: Splits
    weights: dict[str, float]
    samples: pa.Table
    found: Duplicates | None = None
    pilot: SourcePilot | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Training samples of each source in the mixture."""
        return _sizes(self.splits.train)

    def sampler(self, seed: int = 0) -> Mixture:
        """The order of training that gives each source its share."""
        return Mixture(self.splits.train, self.weights, seed)

    def epochs(self, passes: float = 1.0) -> dict[str, float]:
        """Epochs of each source after so many passes, each of as many visits as there are samples."""
        sizes = {name: size for name, size in self.sizes.items() if size}
        return epochs_elapsed(sizes, self.weights, passes * len(self.splits.train))

    def rows(self) -> list[dict[str, Any]]:
        """For each source: samples, copies left out, samples not drawn and kept, weight, epochs a pass."""
        source, status = (np.array(self.samples[name].to_pylist(), dtype=str) for name in ("source", "status"))
        epochs, rows = self.epochs(), []
        for name in self.weights:
            counts = {
                kind: int(((source == name) & (status == kind)).sum()) for kind in ("duplicate", "not drawn", "kept")
            }
            row = {"source": name, "samples": sum(counts.values()), "copies": counts["duplicate"]}
            row |= {"not drawn": counts["not drawn"], "kept": counts["kept"], "weight": self.weights[name]}
            rows.append(row | {"epochs": epochs.get(name, 0.0)})
        return rows

    def __repr__(self) -> str:
        shares = ", ".join(f"{name}={weight:.3g}" for name, weight in self.weights.items())
        return f"Mixed({len(self.splits.train)} samples, {shares})"


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
    earlier one of its own source, or one of an earlier source (see `modicum.data.duplicates`). `fit` on the result
    visits every source in proportion to its weight, whatever its size; the ledger has the epochs elapsed of each.

    Args:
        sources: What `modicum.load` understands, by name, or paths and bundled names of which the names are made. Earlier
            ones have precedence where two hold the same sample.
        weights: A number >= 0 by the name of a source, `size` (as many visits as samples), `equal`, or `a-mtrl`: as
            relevant as a pilot finds it for the target (`modicum.analysis.pilot_sources`).
        target: Data to validate and test on, the name of a source or data of its own; the validation and test samples of
            all sources when None, which are cut off them where they have none. Its training samples tell `a-mtrl` what is relevant; a target that is a source counts
            with relevance 1 there, that of its own head.
        keep: How many training samples in all, as a fraction, a count or `30%`: each source gives its share, drawn at
            random with its classes in their proportions, and one that has too few gives all. None keeps everything.
        deduplicate: Whether to look for what repeats.
        near: How near is near; the usual for the kind of data when None, 0 for equal inputs only.
        by: What is compared (see `modicum.data.duplicates`).
        recipe: Of the pilot of `a-mtrl`; what suits the data when None.
        ctx: Device, seed, and the ledger that is charged.
        folder: Where `samples.parquet`, `run.json` and the mixture go; nothing is written when None.
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
    ctx, given, given_options = ctx or Context(), _named(sources), options
    goal, aim = _target(target, given, options)
    whole = {} if target is None else {"valid": 0.0, "test": 0.0}  # nothing is cut off a source that nobody tests on
    vocabulary = _vocabulary([*given.values(), *([] if aim is None else [target])], options)
    options = {**options, "vocabulary": vocabulary} if vocabulary else options
    loaded = {name: load(spec, **({} if name == goal else whole) | options) for name, spec in given.items()}
    aim = load(target, **options) if aim is not None and vocabulary else aim
    if isinstance(weights, str) and weights not in KINDS:
        raise ModicumError(f"weights={weights!r}; expected numbers by source, or one of {', '.join(KINDS)}")
    if weights == "a-mtrl" and goal is None and aim is None:
        raise ModicumError("weights='a-mtrl' weighs sources by what they tell of a target; give target=...")
    judged = {"target": aim} if aim is not None else {goal: loaded[goal]} if goal is not None else loaded
    parts = {f"{name} ({split})": getattr(s, split) for split in ("test", "valid") for name, s in judged.items()}
    parts = {name: data for name, data in parts.items() if len(data)}
    held = list(parts)
    parts |= {name: s.train for name, s in loaded.items()}
    if aim is not None:
        parts["target"] = aim.train  # last, so that it stands for nothing
    united = concatenate(parts)
    begin = dict(zip(parts, np.cumsum([0, *map(len, parts.values())]).tolist()))
    names, first = tuple(loaded), begin[next(iter(loaded))]
    last = begin["target"] if aim is not None else len(united)
    train = _relabeled(
        united[first:last], names, np.concatenate([np.full(len(loaded[n].train), i) for i, n in enumerate(names)])
    )
    found, keeps = None, np.ones(len(train), bool)
    if deduplicate:
        with ctx.ledger.clock("choose", "duplicates", samples=last):
            found = duplicates(united[:last], near, by=by)
        keeps = ~found.repeated[first:]
    status = np.where(keeps, "kept", "duplicate")
    shares, pilot = _weights(
        weights, names, train[np.flatnonzero(keeps)], goal, _aimed(united, parts, aim, goal, loaded), recipe, ctx
    )
    if keep is not None:
        drawn = _drawn(train, keeps, shares, keep, ctx)
        status[keeps & ~drawn] = "not drawn"
        keeps = drawn
    if not keeps.any():
        raise DataError("nothing is left to train on: every training sample repeats a validation or test sample")
    mixture = standardized(train[np.flatnonzero(keeps)])
    judges = [_judges(united, begin, parts, held, split, judged, names, mixture) for split in ("valid", "test")]
    if mixture.info.modality == "text" and mixture.info.vocabulary:
        mixture, *judges = relearned(mixture, *judges)
    mixed = Mixed(Splits(mixture, *judges), shares, _table(train, status, found, first), found, pilot)
    if folder is not None or out is not None:
        asked: dict[str, Any] = {
            **{
                "weights": weights if isinstance(weights, str) else dict(weights),
                "keep": None if keep is None else str(keep),
            },
            **{"target": None if target is None else str(target), "deduplicate": deduplicate, "near": near, "by": by},
            **{"out": None if out is None else str(out), "recipe": asdict(recipe) if recipe else {}, "seed": ctx.seed},
        }
        _write(mixed, given, asked, folder, {"label": None, "limit": None, **given_options}, ctx)
    return mixed


def _named(sources: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
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
        if not name or set(name) & set(",=/()") or name == "target":
            raise ModicumError(f"source name {name!r}; expected one without , = / ( ) and other than 'target'")
    return given


def _split_name(spec: str) -> tuple[str, str]:
    """The name and the data of `name=path`, `path` or `hf:name`."""
    if "=" in spec and not Path(spec).exists():
        name, _, path = spec.partition("=")
        return name, path
    whole = Path(os.path.normpath(spec))
    stem = spec if spec in BUNDLED else whole.stem if whole.suffix else whole.name
    return "".join("-" if c in ",=/():" else c for c in stem), spec


def _target(target: Any, given: Mapping[str, Any], options: dict[str, Any]) -> tuple[str | None, Splits | None]:
    """The source that is the target, or the target as data of its own."""
    if target is None:
        return None, None
    if isinstance(target, (str, os.PathLike)):
        for name, spec in given.items():
            if os.fspath(target) == name or (
                isinstance(spec, (str, os.PathLike)) and os.fspath(spec) == os.fspath(target)
            ):
                return name, None
    return None, load(target, **options)


def _vocabulary(specs: list[Any], options: dict[str, Any]) -> tuple[str, ...]:
    """Every word of every text: while copies are looked for, no two words may look alike."""
    counts = Counter[str]()
    for spec in specs:
        counts.update(words(spec, **options))
    return (PADDING, UNKNOWN, *(token for token in counts if token not in (PADDING, UNKNOWN))) if counts else ()


def _relabeled(data: Dataset, names: tuple[str, ...], column: Any) -> Dataset:
    """The same samples with these sources; ids keep the name of the source in front."""
    info = replace(data.info, sources=names, source=" + ".join(names))
    return data.replace(sources=torch.as_tensor(column, dtype=torch.int64), info=info)


def _aimed(
    united: Dataset, parts: Mapping[str, Dataset], aim: Splits | None, goal: str | None, loaded: Mapping[str, Splits]
) -> Dataset | None:
    """The training samples of the target, with the classes and the vocabulary of the mixture."""
    name = "target" if aim is not None else goal
    if name is None:
        return None
    at = list(parts).index(name)
    sizes = [len(part) for part in parts.values()]
    start = sum(sizes[:at])
    return united[start : start + sizes[at]]


def _weights(
    weights: Mapping[str, float] | str,
    names: tuple[str, ...],
    kept: Dataset,
    goal: str | None,
    aimed: Dataset | None,
    recipe: Recipe | None,
    ctx: Context,
) -> tuple[dict[str, float], SourcePilot | None]:
    sizes, pilot = _sizes(kept), None
    if not isinstance(weights, str):
        Mixture(kept, weights)  # says what is wrong
        numbers = {name: float(weights[name]) for name in names}
    elif weights == "a-mtrl":
        others = [i for i, name in enumerate(names) if name != goal and sizes[name]]
        if not others or aimed is None:
            raise ModicumError(f"weights='a-mtrl' needs a source beside the target; got {', '.join(names)}")
        assert kept.sources is not None
        rows = torch.isin(kept.sources, torch.tensor(others)).nonzero().flatten()
        back = {old: new for new, old in enumerate(others)}
        column = [back[s] for s in kept.sources[rows].tolist()]
        some = standardized(_relabeled(kept[rows], tuple(names[i] for i in others), column))
        pilot = pilot_sources(some, aimed, recipe, ctx, EXPLORE)
        numbers = {name: pilot.relevance.get(name, float(name == goal)) for name in names}
        if not any(numbers.values()):
            raise DataError("no source explains anything of the target; give weights by source, or 'equal'")
    else:
        numbers = {name: float(sizes[name]) if weights == "size" else float(sizes[name] > 0) for name in names}
    total = sum(numbers.values())
    return {name: number / total if total else 0.0 for name, number in numbers.items()}, pilot


def _sizes(data: Dataset) -> dict[str, int]:
    assert data.sources is not None
    counts = torch.bincount(data.sources, minlength=len(data.info.sources)).tolist()
    return dict(zip(data.info.sources, counts, strict=True))


def _drawn(train: Dataset, keeps: Any, shares: Mapping[str, float], keep: Any, ctx: Context) -> Any:
    """(n,) whether each sample is among those that its source gives."""
    assert train.sources is not None
    column = train.sources.numpy()
    members = [np.flatnonzero(keeps & (column == s)) for s in range(len(shares))]
    sizes = np.array([len(m) for m in members])
    count = as_budget(keep).count(int(sizes.sum()), max(1, train.classes))
    wanted = allocate_samples(np.array(list(shares.values())), count, sizes=sizes)
    labels = train.labels.numpy() if train.info.task == "classification" and train.targets is not None else None
    drawn = np.zeros(len(train), bool)
    for name, rows, number in zip(shares, members, wanted.tolist(), strict=True):
        seed = int(ctx.generator("mix", name).initial_seed())
        alike = None if labels is None else labels[rows]
        drawn[rows[stratified_rows(alike, len(rows), number, seed)]] = number > 0
    return drawn


def _judges(
    united: Dataset,
    begin: Mapping[str, int],
    parts: Mapping[str, Dataset],
    held: list[str],
    split: str,
    judged: Mapping[str, Splits],
    names: tuple[str, ...],
    mixture: Dataset,
) -> Dataset:
    """Validation or test samples, with what was measured on the mixture."""
    mine = [(name, f"{name} ({split})") for name in judged if f"{name} ({split})" in held]
    rows = [np.arange(begin[part], begin[part] + len(parts[part])) for _, part in mine]
    data = united[np.concatenate([*rows, np.empty(0, np.int64)]).astype(np.int64)]
    known = all(name in names for name, _ in mine)
    column = [np.full(len(at), names.index(name)) for (name, _), at in zip(mine, rows, strict=True)] if known else []
    ids = [np.char.add(f"{name}/", parts[part].ids.astype(str)) for name, part in mine]
    sources = torch.from_numpy(np.concatenate([*column, np.empty(0, np.int64)]).astype(np.int64)) if known else None
    return Dataset(
        data.inputs, data.targets, np.concatenate([*ids, np.empty(0, "U1")]), data.weights, sources, mixture.info
    )


def _table(train: Dataset, status: Any, found: Duplicates | None, first: int) -> pa.Table:
    import pyarrow as pa

    assert train.sources is not None
    n = len(train)
    reasons, of, nearness, same = np.full(n, "", object), np.full(n, "", object), np.full(n, np.nan), np.full(n, None)
    if found is not None:
        at = np.flatnonzero(found.repeated)
        for i, row in zip(at.tolist(), found.rows(), strict=True):
            if i < first:
                continue
            how = "equal to" if row.equal else f"nearly equal ({row.nearness:.3g}) to"
            reasons[i - first] = f"{how} {row.of}" + (
                "" if row.same_target is not False else ", which has another label"
            )
            of[i - first], nearness[i - first], same[i - first] = str(row.of), row.nearness, row.same_target
    reasons[status == "not drawn"] = "not among the samples drawn"
    names = np.array(train.info.sources)[train.sources.numpy()]
    columns = {
        **{"id": pa.array(train.ids.tolist(), pa.string()), "source": pa.array(names.tolist(), pa.string())},
        **{"status": pa.array(status.tolist(), pa.string()), "reason": pa.array(reasons.tolist(), pa.string())},
        **{"of": pa.array(of.tolist(), pa.string()), "nearness": pa.array(nearness, from_pandas=True)},
        **{"same_label": pa.array(same.tolist(), pa.bool_())},
    }
    return pa.table(columns)


def _write(
    mixed: Mixed, given: Mapping[str, Any], asked: dict[str, Any], folder: Any, options: dict[str, Any], ctx: Context
) -> None:
    if folder is None:
        save(mixed.splits, asked["out"])
        return
    store = Store(folder)
    with store.locked():
        file = store.folder / "mixture.npz"
        if asked["out"]:
            file = save(mixed.splits, asked["out"])[0]
        else:
            store.write("mixture.npz", lambda path: save(mixed.splits, path.with_suffix(".npz"))[0].replace(path))
        store.write_table("samples.parquet", mixed.samples)
        plain = {
            name: os.fspath(spec) if isinstance(spec, (str, os.PathLike)) else repr(spec)
            for name, spec in given.items()
        }
        result = {
            **{"rows": mixed.rows(), "file": str(file), "duplicates": str(mixed.found) if mixed.found else None},
            **{"pilot": asdict(mixed.pilot) if mixed.pilot else None, "ledger": ctx.ledger.to_json()},
        }
        settings = {"command": "mix", "sources": plain, **asked, **options, "environment": environment()}
        store.write_json("run.json", {**settings, "result": result})
