"""The verb filter."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modicum.arrays import NumPy
from modicum.comparison.filtering import Filtered, decide
from modicum.context import Context
from modicum.data import load, save_rows
from modicum.data.files import TABLES, open_table
from modicum.data.judging import CommandJudge, Judge, checked_scores, read_judgments, samples_of
from modicum.data.load import training_file
from modicum.data.raw import Options
from modicum.data.tables import interpret
from modicum.dataset import Dataset
from modicum.errors import DataError, ModicumError, StoreError
from modicum.evidence import environment
from modicum.ledger import Charge
from modicum.reading import by_id
from modicum.scores import Budget, as_budget
from modicum.spec import content_key
from modicum.store import Store
from modicum.training.fit import default_recipe
from modicum.training.recipe import Recipe
from modicum.valuation.quality import Quality, tables_of

__all__ = ["filter"]

BATCH = 50  # samples that a judge sees at a time
KNOWN = "judgments.json"


def filter(
    data: Any,
    judge: Any,
    keep: Budget | float | int | str | None = None,
    precision: float | None = None,
    *,
    ask: int = 200,
    level: float = 0.95,
    good: float = 0.5,
    method: Quality | None = None,
    batch: int = BATCH,
    folder: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    recipe: Recipe | None = None,
    ctx: Context | None = None,
    **options: Any,
) -> Filtered:
    """The samples that are good, by a judge of a few of them and a small classifier of the rest.

    A random part of the samples is judged. The classifier learns from half of them; how good the kept ones are is measured
    on the other half (see `modicum.valuation.precision.count_for_precision`).

    Args:
        data: What `modicum.load` understands; all samples of the training split are filtered, none are put aside.
        judge: A function of a list of samples (dictionaries, see `modicum.data.judging.samples_of`) that gives a score
            for each; a file of labels (see `read_judgments`); scores by id; a `CommandJudge` or the text of its command.
        keep: How many to keep: a fraction, a count, `30%`.
        precision: Or the share of good ones that the kept ones must have; 0.9 when neither is given.
        ask: How many samples the judge is asked about; what is in the folder already is not asked again, even if the judge
            would say something else now: delete `judgments.json` then. A file of labels is read whole; it should name random samples, or what is said about precision holds for samples like those.
        level: Confidence of the bound on the precision.
        good: The least score of a good sample.
        method: How the classifier is made; `Quality()` when None.
        batch: Samples that the judge sees at a time; its answers are kept after each.
        folder: Where judgments, the table of all samples and the page `report.html` go; nothing is written when None.
        out: File or folder for the kept samples, rows as they stand in the input where that was a file.
        recipe: Of the model, for `Quality(encoder='trained')`.
        ctx: Device, seed, ledger, cache.
        options: For `load`, such as `inputs`, `label` or `limit`.

    Returns:
        The kept samples, the probability of each sample, precision and recall with their intervals.

    Raises:
        ModicumError: The judge fails, an argument cannot be used, or the precision cannot be shown; judgments that were
            made stay in the folder.

    Example:
        >>> found = filter("iris", lambda rows: [r["petal width (cm)"] > 1 for r in rows], keep=0.5, ask=60)
        >>> len(found.dataset), found.precision[0]
        (75, 1.0)
    """
    if keep is not None and precision is not None:
        raise ModicumError(f"keep={keep!r} and precision={precision} are both given; expected one of them")
    if keep is None and precision is None:
        precision = 0.9
    if precision is not None and not 0 < precision < 1:
        raise ModicumError(f"precision={precision}; expected a share of good samples in (0, 1)")
    if ask < 8 or batch < 1:
        raise ModicumError(f"ask={ask} and batch={batch}; expected at least 8 samples to judge, at least 1 at a time")
    if not 0 < level < 1:
        raise ModicumError(f"level={level}; expected a confidence in (0, 1)")
    ctx, method = ctx or Context(), method or Quality()
    budget = None if keep is None else as_budget(keep)
    if budget is not None and budget.per_class is not None:
        raise ModicumError(f"keep={keep!r} is a budget per class; expected a fraction or a count of all samples")
    who, judge, options = _name(judge), _judge(judge), _loading(data, options)
    splits = load(data, **options)
    train: Dataset = splits.train
    if budget is not None:
        budget.count(len(train))  # before anybody is asked
    store = None if folder is None else Store(folder)
    to = None if out is None else Path(out).absolute()
    made_here = to is not None and store is not None and _written(store) == str(to)
    if to is not None and to.is_dir() and any(to.iterdir()) and not made_here:
        raise ModicumError(f"out={str(to)!r} is not an empty folder; choose another one, or a file name")
    settings = {
        **{"command": "filter", "data": str(data), "label": None, "limit": None, **options},
        **{"judge": who, "keep": str(budget) if budget else None, "precision": precision, "ask": ask},
        **{"level": level, "good": good, "encoder": method.encoder, "classifier": method.classifier},
        **{"calibration": method.calibration, "seed": ctx.seed, "environment": environment(), "recipe": {}},
        **{"batch": batch, "out": None if to is None else str(to), "written": str(to) if made_here else None},
    }
    with nullcontext() if store is None else store.locked():
        if store is not None:
            for name in ("report.html", "samples.parquet"):  # of another answer
                store.remove(name)
            store.write_json("run.json", settings)
        asked, scores, earlier = _judgments(judge, data, train, ask, store, ctx, batch, options)
        recipe = recipe or (default_recipe(train) if method.encoder == "trained" else Recipe())
        inner = ctx if store is None else ctx.with_(store=store)
        measured = [need.measure(splits, recipe, inner) for need in method.needs()]
        labels = (scores >= good).astype(np.int64)
        if store is not None and earlier and labels.min() == labels.max():
            raise DataError(
                f"all {len(labels)} judged samples are {'good' if labels[0] else 'bad'}, {earlier} of them by what the judge "
                f"said in an earlier run; when it judges otherwise now, delete {store.folder / KNOWN}, else judge more"
            )
        found = decide(
            train,
            tables_of(method.encoder, [m.train for m in measured]),
            asked,
            labels,
            ctx,
            budget=budget,
            precision=precision,
            level=level,
            classifier=method.classifier,
            calibration=method.calibration,
            folds=method.folds,
        )
        found = replace(found, earlier=earlier)
        if to is not None:
            if to.is_dir():  # empty, or made by this run before
                shutil.rmtree(to)
            save_rows(data, found.dataset, to, **_columns(options))
        if store is not None:
            from modicum.report.write_filter import write_filter

            settings["written"] = settings["out"]
            write_filter(found, train, store, settings, lambda rows: samples_of(data, train, rows, **_columns(options)))
    return found


def _written(store: Store) -> str | None:
    """Where a filter in this folder has put what it kept."""
    before = store.read_json("run.json") if store.has("run.json") else {}
    return before.get("written") if before.get("command") == "filter" else None


def _judgments(
    judge: Judge | Mapping[Any, float],
    data: Any,
    train: Dataset,
    ask: int,
    store: Store | None,
    ctx: Context,
    batch: int,
    options: Mapping[str, Any],
) -> tuple[NumPy, NumPy, int]:
    """Positions of the judged samples in a random order, their scores, and how many of them an earlier run asked for."""
    drawn = by_id(train).numpy()[torch.randperm(len(train), generator=ctx.generator("filter", "ask")).numpy()]
    earlier = 0
    if isinstance(judge, Mapping):
        known = dict(zip(map(str, judge), checked_scores(judge.values(), len(judge), "judge"), strict=True))
        asked = np.array([i for i in drawn.tolist() if str(train.ids[i]) in known], dtype=np.int64)
        if not len(asked):
            raise DataError(
                f"judge: none of its {len(known)} ids, such as {next(iter(known), '')!r}, is one of the {len(train)} samples; "
                f"expected ids such as {train.ids[0].item()!r}"
            )
    else:
        asked = drawn[:ask]
        known, earlier = _ask(judge, data, train, asked, store, ctx, batch, options)
    return asked, np.array([known[str(train.ids[i])] for i in asked.tolist()]), earlier


def _judge(judge: Any) -> Any:
    """A function, or scores by id."""
    if isinstance(judge, Mapping) or callable(judge):
        return judge
    if isinstance(judge, os.PathLike) or (isinstance(judge, str) and _names_a_file(judge)):
        return read_judgments(judge)
    if isinstance(judge, str):
        return CommandJudge(judge)
    raise ModicumError(
        f"judge is a {type(judge).__name__}; expected a function, a file of labels, scores by id, or a command"
    )


def _names_a_file(text: str) -> bool:
    return Path(text).suffix.lower() in TABLES and (Path(text).is_file() or len(text.split()) == 1)


def _name(judge: Any) -> str:
    if isinstance(judge, CommandJudge):
        return f"command {judge.command}"
    if isinstance(judge, (str, os.PathLike)):
        return f"{'labels' if not isinstance(judge, str) or _names_a_file(judge) else 'command'} {judge}"
    if isinstance(judge, Mapping):
        return f"{len(judge)} labels"
    return f"function {getattr(judge, '__qualname__', type(judge).__name__)}"


def _loading(data: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `load` that put nothing aside, and do not ask for labels where the file has none."""
    made = {"valid": 0, "test": 0, **{k: v for k, v in options.items() if v is not None}}
    if "label" in made or not isinstance(data, (str, os.PathLike)) or not Path(data).exists():
        return made
    file = training_file(Path(data))
    if file is None or file.suffix.lower() not in TABLES:
        return made
    inputs = made.get("inputs", ())
    asked = Options((inputs,) if isinstance(inputs, str) else tuple(inputs), None, header=made.get("header"))
    if interpret(open_table(file, asked), asked, labelled=False).labels is None:
        made["label"] = False
    return made


def _columns(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in ("inputs", "label", "header")}


def _ask(
    judge: Judge,
    data: Any,
    train: Dataset,
    asked: NumPy,
    store: Store | None,
    ctx: Context,
    batch: int,
    options: Mapping[str, Any],
) -> tuple[dict[str, float], int]:
    """Scores by id of these samples, of which only those are asked for that are not known yet, and how many were."""
    who = {"judge": _name(judge), "data": content_key(train.fingerprint)}
    held: dict[str, Any] = {**who, "seconds": 0.0, "scores": {}}
    if store is not None and store.has(KNOWN):
        held = store.read_json(KNOWN)
        other = next((name for name in who if held[name] != who[name]), None)
        if other is not None:
            raise StoreError(
                f"{store.folder / KNOWN} holds judgments of another {other} ({held[other]!r}, now {who[other]!r}); use "
                "another folder"
            )
    known: dict[str, float] = held["scores"]
    missing = [i for i in asked.tolist() if str(train.ids[i]) not in known]
    samples = samples_of(data, train, missing, **_columns(options)) if missing else []
    with ctx.progress("judging", len(missing)) as done:
        for start in range(0, len(missing), batch):
            began = time.monotonic()
            part = samples[start : start + batch]
            scores = checked_scores(judge(part), len(part), _name(judge))
            known |= {str(train.ids[i]): score for i, score in zip(missing[start : start + batch], scores, strict=True)}
            held["seconds"] += time.monotonic() - began
            if store is not None:
                store.write_json(KNOWN, held)
            done(min(start + batch, len(missing)))
    ctx.ledger.add(Charge("choose", "judging", samples=len(asked), seconds=held["seconds"]))
    return known, len(asked) - len(missing)
