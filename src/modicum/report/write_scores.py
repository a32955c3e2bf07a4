"""Scores, written into their folder: tables for programs and a page for people."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from modicum.arrays import NumPy
from modicum.comparison.scoring import Curves, Detection, class_summaries
from modicum.dataset import Splits
from modicum.report.assemble import brightness, common_options, disputed, distribution, extremes, item
from modicum.report.content import DataSummary, Gallery, ScoreSummary
from modicum.report.format import count, percent, quantity, seconds
from modicum.report.scores_page import CurveSummary, DetectionSummary, ScoresContent, scores_page
from modicum.scores import Scores
from modicum.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["score_table", "write_scores"]

SUSPECTS = 24
SETTINGS = ("data", "label", "limit", "method", "recipe", "seed", "truth", "corrupt", "curves", "environment")


def score_table(scores: Scores, data: Splits) -> pa.Table:
    """A row for each training sample: id, value, standard error (null where there is none), rank (0 is kept first), label,
    and the other numbers of the method.

    Args:
        scores: Of the training samples.
        data: The splits.
    """
    import pyarrow as pa

    rank = np.empty(len(scores), dtype=np.int64)
    rank[scores.ranking()] = np.arange(len(scores))
    errors = pa.nulls(len(scores), pa.float64()) if scores.errors is None else pa.array(scores.errors, pa.float64())
    columns: dict[str, Any] = {"id": scores.ids, "value": scores.values, "standard_error": errors, "rank": rank}
    if data.train.info.task == "classification":
        columns["label"] = [data.train.info.classes[c] for c in data.train.labels.tolist()]
    columns |= scores.columns
    return pa.table(columns)


def write_scores(
    scores: Scores,
    data: Splits,
    store: Store,
    settings: Mapping[str, Any],
    curves: Curves | None = None,
    found: Detection | None = None,
    truth: NumPy | None = None,
) -> None:
    """Write `scores.parquet`, `classes.parquet`, `run.json` and `report.html`.

    Args:
        scores: Of the training samples.
        data: The splits.
        store: The folder.
        settings: What was asked for.
        curves: What the scores are good for.
        found: How well they find labels known to be wrong.
        truth: (n,) the right class of each training sample where it is known.
    """
    import pyarrow as pa

    classes = class_summaries(scores, data.train)
    store.write_table("scores.parquet", score_table(scores, data))
    store.write_table("classes.parquet", pa.Table.from_pylist(classes))
    result = {
        "kind": scores.kind,
        "unit": scores.unit,
        "note": scores.note,
        "stability": scores.stability,
        "curves": asdict(curves) if curves else None,
        "detection": asdict(found) if found else None,
        "ledger": scores.ledger.to_json() if scores.ledger else None,
    }
    content = _content(scores, data, settings, curves, found, truth, classes)
    store.write("report.html", scores_page(content).encode())
    store.write_json("run.json", {**settings, "result": result})


def _content(
    scores: Scores,
    data: Splits,
    settings: Mapping[str, Any],
    curves: Curves | None,
    found: Detection | None,
    truth: NumPy | None,
    classes: list[dict[str, Any]],
) -> ScoresContent:
    train, name = data.train, str(settings["method"])
    classified = train.info.task == "classification"
    shown = {name: scores}
    spread = (
        distribution(name, scores, train)
        if classified
        else ScoreSummary.from_values(name, scores.kind, scores.unit, scores.values)
    )
    sentence, detail = _answer(scores, curves, found, name)
    pictures = [*(extremes(shown, train) if classified else []), *disputed(shown, data)]
    if truth is not None:
        pictures.insert(0, _found(scores, data, truth))
    return ScoresContent(
        title=f"modicum score {train.info.source} by {name}",
        sentence=sentence,
        detail=detail,
        facts=_facts(scores, found),
        data=DataSummary(
            name=train.info.source,
            train=len(train),
            valid=len(data.valid),
            test=len(data.test),
            classes=train.info.classes,
            modality=train.info.modality,
            warnings=(scores.note,) if scores.note else (),
        ),
        score=spread,
        curves=CurveSummary(**asdict(curves)) if curves else None,
        detection=DetectionSummary(**asdict(found)) if found else None,
        columns=scores.columns,
        wrong=() if truth is None else tuple(np.flatnonzero(truth != train.labels.numpy()).tolist()),
        galleries=tuple(g for g in pictures if g.items),
        rows=tuple(_suspects(scores, data, truth)),
        classes=tuple({k.replace("_", " "): v for k, v in row.items()} for row in classes),
        settings={key: settings[key] for key in SETTINGS if settings.get(key) is not None},
        command=shlex.join(_command(settings)),
    )


def _answer(scores: Scores, curves: Curves | None, found: Detection | None, name: str) -> tuple[str, str]:
    """One sentence that says what the scores are good for, and the numbers behind it."""
    first, last = ("best", "worst") if scores.kind == "value" else ("hardest", "easiest")
    lines = []
    if curves is not None:
        number = percent if curves.metric == "accuracy" else "{:.3f}".format
        gain, loss = (
            f"{100 * g:+.1f} points" if curves.metric == "accuracy" else f"{g:+.3f}"
            for g in (curves.gain(), curves.loss())
        )
        lines.append(
            f"On average over all shares kept, the {first} train a learner ({curves.learner}) to a test {curves.metric} "
            f"{gain} from random samples of the same number, the {last} {loss}."
        )
        full = curves.best[-1]
        enough = [i for i, y in enumerate(curves.best) if y >= full]
        least = min(enough)
        peak = max(range(len(curves.best)), key=lambda i: curves.best[i])
        if found is None and curves.gain() <= 0 <= curves.loss():
            sentence = f"By {name} the {first} samples train no better model here than random ones."
        elif curves.best[peak] > full + 2 * max(curves.deviation):
            sentence = (
                f"The {first} {percent(curves.shares[peak])} train a better model than everything: "
                f"{number(curves.best[peak])} against {number(full)}."
            )
        elif curves.shares[least] < 1:
            sentence = (
                f"The {first} {percent(curves.shares[least])} train as good a model as everything: {number(full)}."
            )
        else:
            sentence = f"Every part counts: no smaller share of the {first} trains as good a model as everything ({number(full)})."
    else:
        sentence = f"{count(len(scores))} training samples scored by {name}."
    if found is not None:
        lines.insert(0, sentence)
        sentence = (
            f"{percent(found.precision)} of the {count(found.wrong)} most suspicious labels are wrong; "
            f"of all labels {percent(found.wrong / found.of)} are."
        )
    if scores.stability is not None:
        lines.append(f"A repetition would agree with these scores at a correlation of about {scores.stability:.2f}.")
    return sentence, " ".join(lines)


def _facts(scores: Scores, found: Detection | None) -> tuple[tuple[str, str, str], ...]:
    facts = [("Samples", count(len(scores)), f"each with a {scores.kind} in {scores.unit}")]
    if scores.kind == "value":
        facts.append(
            ("Below zero", percent(float((scores.values < 0).mean())), "samples that hurt more than they help")
        )
    if scores.stability is not None:
        facts.append(
            ("Stability", f"{scores.stability:.2f}", "expected correlation with a repetition, from standard errors")
        )
    if found is not None:
        facts.append(("AUROC", f"{found.auroc:.3f}", "of wrong labels against right ones"))
    if scores.ledger is not None:
        total = scores.ledger.total()
        facts.append(("Cost", seconds(total.seconds), quantity(total.flops, "FLOP")))
    return tuple(facts)


def _suspicious(scores: Scores) -> NumPy:
    suspicion = -scores.values if scores.kind == "value" else scores.values
    return np.lexsort((scores.ids, -suspicion))


def _suspects(scores: Scores, data: Splits, truth: NumPy | None) -> list[dict[str, str]]:
    classes = data.train.info.classes
    labels = data.train.labels.numpy() if data.train.info.task == "classification" else None
    rows = []
    for place, i in enumerate(_suspicious(scores)[:SUSPECTS]):
        row = {"place": str(place + 1), "id": str(scores.ids[i]), scores.kind: f"{scores.values[i]:.4g}"}
        if scores.errors is not None:
            row["standard error"] = f"{scores.errors[i]:.2g}"
        if labels is not None:
            row["label"] = classes[labels[i]]
        if truth is not None:
            row["true label"] = classes[truth[i]]
        rows.append(row)
    return rows


def _found(scores: Scores, data: Splits, truth: NumPy) -> Gallery:
    train = data.train
    labels, classes, span = train.labels.numpy(), train.info.classes, brightness(train)
    items = tuple(
        item(train, int(i), f"truly {classes[truth[i]]}" if truth[i] != labels[i] else "label is right", span)
        for i in _suspicious(scores)[:SUSPECTS]
    )
    return Gallery(
        "The most suspicious labels, and the truth", "Each is shown with the label that it was given.", items
    )


def _command(settings: Mapping[str, Any]) -> list[str]:
    parts = [
        "modicum",
        "score",
        str(settings["data"]),
        "--method",
        str(settings["method"]),
        "--seed",
        str(settings["seed"]),
    ]
    for name in ("truth", "corrupt", "curves"):
        if settings.get(name) is not None:
            parts += [f"--{name}", str(settings[name])]
    return parts + common_options(settings)
