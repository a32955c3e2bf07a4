"""A pretraining run, written into its folder: tables for programs and a page for people."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.context import Context
from modicum.data import decode
from modicum.dataset import Dataset, Splits
from modicum.pretraining import CurvePoint, Pretrained, ProbeTable
from modicum.report.assemble import brightness, common_options, item
from modicum.report.content import DataSummary
from modicum.report.costs import CostRow, cost_row, cost_rows
from modicum.report.format import count, percent, quantity, seconds
from modicum.report.plane import plane, sprite
from modicum.report.pretraining_page import (
    MapSummary,
    MomentSummary,
    NeighborRow,
    PretrainingContent,
    ProbeSummary,
    pretraining_page,
)
from modicum.store import Store
from modicum.training.evaluate import forward

__all__ = ["write_pretraining"]

SETTINGS = ("data", "label", "limit", "method", "recipe", "share", "seed", "environment")
NEAREST, QUERIES = 8, 10
ON_MAP, REFERENCES = 2_000, 10_000


def write_pretraining(
    done: Pretrained,
    data: Splits,
    store: Store,
    settings: Mapping[str, Any],
    table: ProbeTable | None = None,
    curve: Sequence[CurvePoint] = (),
) -> None:
    """Write `probes.parquet`, `curve.parquet`, `run.json` and `report.html`.

    Args:
        done: What was learned.
        data: The splits.
        store: The folder.
        settings: What was asked for.
        table: What the probes found; None where there are no labels.
        curve: Moments of the run, from `Curve.rows`.
    """
    import pyarrow as pa

    probes, moments = table.to_rows() if table else [], [asdict(point) for point in curve]
    for name, rows in (("probes.parquet", probes), ("curve.parquet", moments)):
        if rows:
            store.write_table(name, pa.Table.from_pylist(rows))
    total = done.ledger.total()
    cost = {name: getattr(total, name) for name in ("samples", "labels", "flops", "seconds", "peak_bytes")}
    result = {
        "method": done.method,
        "width": done.encoder.width,
        "probes": probes,
        "curve": moments,
        "cost": cost,
        "history": done.history,
        "ledger": done.ledger.to_json(),
    }
    store.write("report.html", pretraining_page(_content(done, data, settings, table, curve)).encode())
    store.write_json("run.json", {**settings, "result": result})


def _content(
    done: Pretrained, data: Splits, settings: Mapping[str, Any], table: ProbeTable | None, curve: Sequence[CurvePoint]
) -> PretrainingContent:
    train = data.train
    sentence, detail = _answer(done, table, len(train))
    seen, shown = _spread(train, REFERENCES), _spread(data.test, ON_MAP)
    drawn: dict[str, Any] = {}
    if len(shown):
        scratch = Context(device=done.device)  # what is drawn is no part of the cost
        near, here = (F.normalize(forward(done.encoder, d, scratch).flatten(1)) for d in (seen, shown))
        drawn = _drawn(seen, near, shown, here, int(settings.get("seed", 0)))
    return PretrainingContent(
        title=f"modicum pretrain {train.info.source} by {done.method}",
        sentence=sentence,
        detail=detail,
        facts=_facts(done, table, len(train)),
        data=DataSummary(
            name=train.info.source,
            train=len(train),
            valid=len(data.valid),
            test=len(data.test),
            classes=train.info.classes,
            modality=train.info.modality,
        ),
        probes=tuple(ProbeSummary(**row) for row in table.to_rows()) if table else (),
        tested=table.tested if table else {},
        curve=tuple(MomentSummary(**asdict(point)) for point in curve),
        costs=_costs(done, table),
        uncounted=done.ledger.total().uncounted,
        settings={key: settings[key] for key in SETTINGS if settings.get(key) is not None},
        command=shlex.join(_command(settings)),
        **drawn,
    )


# -- the answer --------------------------------------------------------------------------------------------------------


def _compared(table: ProbeTable, probe: str) -> tuple[float, float, str, float] | None:
    """Accuracy of the encoder, of the best control and its name, and the standard error of their difference."""
    found = {r.representation: r.accuracy for r in table.rows if (r.data, r.probe, r.shots) == ("", probe, 0)}
    own = found.pop("encoder", None)
    if own is None or not found:
        return None
    name = max(found, key=lambda key: found[key])
    other, m = found[name], max(1, table.tested.get("", 1))
    return own, other, name, math.sqrt((own * (1 - own) + other * (1 - other)) / m)


def _answer(done: Pretrained, table: ProbeTable | None, n: int) -> tuple[str, str]:
    """One sentence that says whether learning brought something, and the numbers behind it."""
    total = done.ledger.total()
    cost = f"Learning from {count(n)} samples cost {quantity(total.flops, 'FLOP')} and {seconds(total.seconds)}."
    told = [(p, found) for p in ("linear", "k-NN") if (found := _compared(table, p) if table else None)]
    if not told:
        labels = "without labels" if not total.labels else f"with {count(total.labels)} labels"
        return f"An encoder of {count(done.encoder.width)} numbers a sample, learned {labels}.", cost
    probe, (own, other, name, error) = told[0]
    reader = "a linear layer" if probe == "linear" else "nearest neighbors"
    article = "raw inputs" if name == "raw inputs" else "the untrained network"
    gap = 100 * abs(own - other)
    if own > other + 2 * error:
        sentence = (
            f"{percent(own)} of the test labels by {reader} on this encoder: {gap:.1f} points more than on {article}."
        )
    elif own < other - 2 * error:
        sentence = f"Not worth its cost here: {reader} on {article} is {gap:.1f} points better than on this encoder."
    else:
        sentence = f"No difference can be told from {article}: {percent(own)} and {percent(other)} by {reader}."
    lines = []
    for probe, (own, other, name, error) in told:
        lines.append(
            f"By {'a linear probe' if probe == 'linear' else 'k nearest neighbors'} {percent(own)}, against {percent(other)} on "
            f"the best control ({name}), a difference of {100 * (own - other):+.1f} ± {200 * error:.1f} points (two standard "
            "errors of the test split)."
        )
    return sentence, " ".join([*lines, cost])


def _facts(done: Pretrained, table: ProbeTable | None, n: int) -> tuple[tuple[str, str, str], ...]:
    total = done.ledger.total()
    facts = []
    for probe, name in (("linear", "Linear probe"), ("k-NN", "Nearest neighbors")):
        found = _compared(table, probe) if table else None
        if found:
            own, other, control, _ = found
            facts.append((name, percent(own), f"{percent(other)} on the best control, {control}"))
    size = sum(p.numel() for p in done.encoder.parameters())
    facts.append(("Representation", count(done.encoder.width), f"numbers a sample, from {count(size)} parameters"))
    labels = "no labels read" if not total.labels else f"{count(total.labels)} labels read"
    facts.append(("Cost", quantity(total.flops, "FLOP"), f"{seconds(total.seconds)}, {labels}"))
    return tuple(facts)


def _costs(done: Pretrained, table: ProbeTable | None) -> tuple[CostRow, ...]:
    probed = [] if table is None else [cost_row(table.ledger.total(), "probes and their controls", "evaluate")]
    return (*cost_rows(done.ledger, "learning in all"), *probed)


def _command(settings: Mapping[str, Any]) -> list[str]:
    parts = ["modicum", "pretrain", str(settings["data"]), "--method", str(settings["method"])]
    parts += ["--seed", str(settings.get("seed", 0))]
    if settings.get("share") not in (None, 1.0):
        parts += ["--share", str(settings["share"])]
    recipe = {k: v for k, v in settings.get("recipe", {}).items() if isinstance(v, (int, float, str, list, tuple))}
    return parts + common_options({**settings, "recipe": recipe})


# -- what is drawn -----------------------------------------------------------------------------------------------------


def _spread(dataset: Dataset, most: int) -> Dataset:
    """At most so many samples, evenly spaced."""
    return dataset[:: max(1, math.ceil(len(dataset) / most))]


def _drawn(seen: Dataset, near: Tensor, shown: Dataset, here: Tensor, seed: int) -> dict[str, Any]:
    classified = seen.info.task == "classification"
    if not classified:  # one class without a name
        blank = replace(seen.info, task="classification", classes=("",))
        seen, shown = (d.replace(targets=torch.zeros(len(d), dtype=torch.int64), info=blank) for d in (seen, shown))
    k = min(NEAREST, len(seen))
    nearest = torch.cat([(rows @ near.T).topk(k).indices for rows in torch.split(here, 512)])
    same = seen.labels[nearest] == shown.labels[:, None]
    shares = torch.bincount(seen.labels, minlength=seen.classes) / len(seen)
    span = brightness(seen)
    picked = _queries(shown)
    rows = tuple(
        NeighborRow(
            item(shown, i, "", span),
            tuple(item(seen, j, "", span) for j in nearest[i].tolist()),
            tuple((~same[i]).tolist()),
        )
        for i in picked
    )
    agreement = (float(same.double().mean()), float(shares.square().sum())) if classified else None
    return {"neighbors": rows, "agreement": agreement, "plane": _plane(shown, here, span, seed)}


def _queries(shown: Dataset) -> list[int]:
    """The first sample of each class, then the second, until there are enough."""
    labels = shown.labels
    one = F.one_hot(labels, int(labels.max()) + 1)
    turn = (one.cumsum(0) * one).sum(1)  # 1 for the first of its class
    return [int(i) for i in (turn * (int(labels.max()) + 1) + labels).argsort(stable=True)[:QUERIES]]


def _plane(shown: Dataset, here: Tensor, span: tuple[float, float], seed: int) -> MapSummary:
    places, kind = plane(here, seed)
    made: bytes | None = None
    side = 0
    notes: tuple[str, ...] = ()
    if shown.info.modality == "image" and shown.inputs.ndim == 4 and shown.inputs.shape[1] in (1, 3):
        made, side = sprite(shown.inputs, *span)
    if shown.info.modality == "text":
        notes = tuple(decode(shown, i)[:80] for i in range(len(shown)))
    return MapSummary(
        places=tuple((float(x), float(y)) for x, y in places),
        labels=tuple(shown.labels.tolist()),
        classes=shown.info.classes,
        ids=tuple(map(str, shown.ids)),
        kind=kind,
        notes=notes,
        sprite=made,
        side=side,
    )
