"""From a finished comparison to what its page shows."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from modicum.comparison.frontier import Frontier
from modicum.comparison.frontier import Row as Summary
from modicum.comparison.recommend import gap
from modicum.data import decode
from modicum.dataset import Dataset, Splits
from modicum.methods import find
from modicum.report.content import (
    DataSummary,
    Gallery,
    Item,
    KeepRate,
    Recommendation,
    ReportContent,
    Row,
    ScoreSummary,
)
from modicum.report.pictures import thumbnail
from modicum.scores import Scores

__all__ = ["assemble", "brightness", "common_options", "disputed", "distribution", "extremes", "item"]

PER_CLASS = 4  # pictures of a class in a gallery
DISPUTED = 24
SETTINGS = ("data", "label", "limit", "recipe", "methods", "budgets", "seeds", "seed", "target", "environment")


def assemble(
    frontier: Frontier,
    data: Splits,
    scores: Mapping[str, Scores],
    synthetic: Mapping[str, Dataset],
    settings: Mapping[str, Any],
) -> ReportContent:
    """Everything on the page of a comparison.

    Args:
        frontier: What it found.
        data: The splits that it was run on.
        scores: Of the first seed, by method.
        synthetic: What was distilled with the first seed, by a name for people.
        settings: The description of the run, `run.json`.
    """
    train, advice = data.train, frontier.recommendation
    rows = frontier.rows()
    uncounted = sorted({name for p in frontier.points for name in p.ledger.total().uncounted})
    names, values = list(scores), [s.values for s in scores.values()]
    return ReportContent(
        title=f"modicum compare {train.info.source}",
        data=DataSummary(
            name=train.info.source,
            train=len(train),
            valid=len(data.valid),
            test=len(data.test),
            classes=train.info.classes,
            modality=train.info.modality,
            warnings=frontier.notes + _unfinished(frontier),
        ),
        metric=frontier.metric,  # type: ignore[arg-type]
        target=advice.target,
        recommendation=Recommendation(advice.sentence, advice.detail, advice.verdict),  # type: ignore[arg-type]
        rows=tuple(_row(row, rows, frontier) for row in rows),
        scores=tuple(distribution(name, scores[name], train) for name in names),
        correlation=_rank_correlation(values),
        galleries=tuple(
            g for g in (*extremes(scores, train), *disputed(_voters(scores), data), *_made(synthetic, train)) if g.items
        ),
        keep_rates=_keep_rates(rows, train),
        uncounted=tuple(uncounted),
        settings={name: settings[name] for name in SETTINGS if settings.get(name) is not None},
        command=repeat(settings),
    )


def repeat(settings: Mapping[str, Any]) -> str:
    """The command that repeats a comparison."""
    parts = ["modicum", "compare", settings["data"], "--seeds", str(settings["seeds"]), "--seed", str(settings["seed"])]
    parts += ["--budgets", *settings["budgets"], "--methods", *settings["methods"]]
    return shlex.join(parts + common_options(settings))


def common_options(settings: Mapping[str, Any]) -> list[str]:
    """The options of the data and of the recipe, as they are written in a command."""
    parts = []
    for name in ("label", "limit"):
        if settings.get(name) is not None:
            parts += [f"--{name}", str(settings[name])]
    for name, value in settings["recipe"].items():
        if value is not None and value != ():
            parts += [
                f"--recipe.{name.replace('_', '-')}",
                *(map(str, value) if isinstance(value, (list, tuple)) else [str(value)]),
            ]
    return parts


def _unfinished(frontier: Frontier) -> tuple[str, ...]:
    if frontier.finished:
        return ()
    return (
        f"Stopped early with {len(frontier.points)} of {frontier.planned} points: this is the best answer so far. "
        "Run the same command again to go on.",
    )


def _row(row: Summary, rows: list[Summary], frontier: Frontier) -> Row:
    kind = find(row.method.partition("(")[0])
    advice = frontier.recommendation
    rival = next((r for r in rows if r.method == "random" and r.budget == row.budget and r is not row), None)
    found = gap(row, rival, "test") if rival else None
    return Row(
        method=row.method,
        title=kind.card.title,
        family="control" if row.control else kind.__module__.split(".")[1],
        budget=row.budget,
        keep=row.keep,
        control=row.control,
        n_seeds=len(row.seeds),
        valid_mean=float(np.mean(row.valid)),
        valid_std=_deviation(row.valid),
        test_mean=float(np.mean(row.test)),
        test_std=_deviation(row.test),
        samples=row.train["samples"] + row.choose["samples"],
        labels=row.train["labels"],
        flops_choose=row.choose["flops"],
        flops_train=row.train["flops"],
        seconds_choose=row.choose["seconds"],
        seconds_train=row.train["seconds"],
        peak_bytes=row.peak_bytes,
        parameters=row.parameters,
        cost_ratio=row.cost,
        reaches_target=row.name in advice.sure or row.method == "full",
        recommended=advice.row is not None and (row.method, row.budget) == (advice.row.method, advice.row.budget),
        random_gap=found.mean if found else float("nan"),
        random_p=found.p if found else float("nan"),
    )


def _deviation(values: tuple[float, ...]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def distribution(method: str, scores: Scores, train: Dataset) -> ScoreSummary:
    """How the scores of a method are spread over the classes."""
    return ScoreSummary.from_values(
        method, scores.kind, scores.unit, scores.values, train.labels.numpy(), train.info.classes
    )


def _rank_correlation(values: list[np.ndarray[Any, Any]]) -> tuple[tuple[float, ...], ...]:
    from scipy.stats import rankdata

    if not values:
        return ()
    ranks = np.stack([rankdata(v) for v in values])
    ranks -= ranks.mean(1, keepdims=True)
    norms = np.sqrt((ranks**2).sum(1))
    matrix = ranks @ ranks.T / np.maximum(np.outer(norms, norms), 1e-12)
    return tuple(tuple(float(x) for x in row) for row in matrix)


# -- galleries ---------------------------------------------------------------------------------------------------------


def extremes(scores: Mapping[str, Scores], train: Dataset) -> list[Gallery]:
    """The samples with the highest and the lowest scores of each class, by kNN-Shapley where it is there."""
    name = next((n for n in scores if n.startswith("knn-shapley")), next(iter(scores), None))
    if name is None:
        return []
    chosen = scores[name]
    best, worst = ("most valuable", "least valuable") if chosen.kind == "value" else ("hardest", "easiest")
    descending = np.lexsort((chosen.ids, -chosen.values))
    labels = train.labels.numpy()
    galleries, span = [], brightness(train)
    for title, ranking in ((best, descending), (worst, descending[::-1])):
        picked = [i for c in range(train.classes) for i in ranking[labels[ranking] == c][:PER_CLASS]]
        items = tuple(item(train, int(i), f"{chosen.values[i]:.3g}", span) for i in picked)
        galleries.append(Gallery(f"The {title} samples of each class", f"By {name}, in {chosen.unit}.", items))
    return galleries


def _voters(scores: Mapping[str, Scores]) -> dict[str, Scores]:
    """Those of a comparison whose lowest values are labels to doubt."""
    return {n: s for n, s in scores.items() if n.partition("(")[0] in ("aum", "knn-shapley")}


def disputed(scores: Mapping[str, Scores], data: Splits) -> list[Gallery]:
    """The most suspicious samples whose neighbors have another label."""
    from scipy.stats import rankdata

    if not scores or data.train.info.task != "classification":
        return []
    ranks = np.mean([rankdata(s.values if s.kind == "value" else -s.values) for s in scores.values()], axis=0)
    ids = next(iter(scores.values())).ids
    picked = np.lexsort((ids, ranks))[:DISPUTED]
    looks = _neighbors_say(data.train, picked)
    classes, labels = data.train.info.classes, data.train.labels.tolist()
    items = tuple(
        item(data.train, int(i), f"given {classes[labels[i]]}, neighbors say {classes[look]}", brightness(data.train))
        for i, look in zip(picked, looks)
        if look != labels[i]
    )
    caption = (
        f"Most suspicious by {' and '.join(scores)}, where the five nearest other samples disagree with the label. "
        "Nothing is removed: look, and decide."
    )
    return [Gallery("Labels worth a second look", caption, items)]


def _neighbors_say(train: Dataset, picked: np.ndarray[Any, Any], k: int = 5) -> list[int]:
    """The most frequent label of the k nearest other samples; of bags of tokens for text."""
    import torch

    if train.info.modality == "text":
        width = len(train.info.vocabulary)
        few = torch.zeros(len(picked), width).scatter_(1, train.inputs[picked].long(), 1.0)[:, 2:]
    else:
        few = train.prepare(train.inputs[picked]).flatten(1)
    distances = []
    for _, inputs in train.batches(4096):
        if train.info.modality == "text":
            rows = torch.zeros(len(inputs), width).scatter_(1, inputs.long(), 1.0)[:, 2:]
        else:
            rows = train.prepare(inputs).flatten(1)
        distances.append(torch.cdist(few, rows))
    table = torch.cat(distances, 1)
    table[torch.arange(len(picked)), torch.from_numpy(picked.copy())] = float("inf")
    nearest: Tensor = train.labels[table.topk(min(k, len(train) - 1), largest=False).indices]
    return [int(x) for x in nearest.mode(1).values]


def _made(synthetic: Mapping[str, Dataset], train: Dataset) -> list[Gallery]:
    galleries, span = [], brightness(train)
    for name, made in synthetic.items():
        labels = made.labels.tolist()
        picked = [i for c in range(train.classes) for i in [j for j, y in enumerate(labels) if y == c][: 2 * PER_CLASS]]
        items = tuple(item(made, i, "", span) for i in picked)
        galleries.append(Gallery(f"Synthetic samples: {name}", "Made to train on, not to be looked like.", items))
    return galleries


def brightness(train: Dataset) -> tuple[float, float]:
    """What is shown as black and as white."""
    few = train.inputs[:1000].float()
    return (0.0, 255.0) if not train.inputs.is_floating_point() else (float(few.min()), float(few.max()) + 1e-6)


def item(dataset: Dataset, i: int, note: str, span: tuple[float, float]) -> Item:
    """A sample with its picture, its words or its columns."""
    label, name = _label(dataset, i), str(dataset.ids[i])
    if dataset.info.modality == "image":
        image = dataset.inputs[i].float().numpy()
        return Item(name, label, note, png=thumbnail(image, *span))
    if dataset.info.modality == "text":
        return Item(name, label, note, text=decode(dataset, i)[:280])
    columns = dataset.info.columns or tuple(f"x{j}" for j in range(dataset.inputs[i].numel()))
    values = dataset.inputs[i].flatten().tolist()
    return Item(name, label, note, text=", ".join(f"{c} {v:.4g}" for c, v in list(zip(columns, values))[:8]))


def _label(dataset: Dataset, i: int) -> str:
    if dataset.targets is None:
        return ""
    if dataset.info.task == "classification":
        return dataset.info.classes[int(dataset.labels[i])]
    return ", ".join(f"{x:.4g}" for x in dataset.targets[i].flatten().tolist())


def _keep_rates(rows: list[Summary], train: Dataset) -> tuple[KeepRate, ...]:
    rates = []
    there = train.class_counts().numpy() if train.info.task == "classification" else np.zeros(0)
    for row in rows:
        kept = np.array(row.class_counts, dtype=float)
        if row.method in ("full", "short") or not len(there) or kept.sum() >= there.sum():
            continue
        share = kept / np.maximum(there, 1)
        low = share < 0.5 * kept.sum() / there.sum()
        for name, rate, warning in zip(train.info.classes, share, low):
            rates.append(KeepRate(row.method, row.budget, name, float(rate), bool(warning)))
    return tuple(rates)
