"""A quality filter, written into its folder: a table for programs and a page for people."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from modicum.arrays import NumPy
from modicum.comparison.filtering import Filtered
from modicum.data import decode
from modicum.dataset import Dataset
from modicum.report.assemble import brightness
from modicum.report.content import DataSummary, Gallery, Item, ScoreSummary
from modicum.report.filter_page import FilterContent, filter_page
from modicum.report.format import count, percent, quantity, seconds
from modicum.report.pictures import thumbnail
from modicum.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["sample_table", "write_filter"]

Show: TypeAlias = "Callable[[Sequence[int]], list[dict[str, Any]]]"
SHOWN = 12
NOT_READ = ("id", "label")
WORDS = 600  # characters of a text that are shown
SETTINGS = (
    *("data", "inputs", "label", "limit", "judge", "ask", "keep", "precision", "level", "good"),
    *("encoder", "classifier", "calibration", "seed", "environment"),
)
OPTIONS = (
    "ask",
    "keep",
    "precision",
    "level",
    "good",
    "encoder",
    "classifier",
    "calibration",
    "seed",
    "label",
    "limit",
    "out",
)


def sample_table(found: Filtered, train: Dataset) -> pa.Table:
    """A row for each sample: id, status, probability, rank (0 is best), reason, what was judged, whether held out.

    Ranks are by the classifier before calibration, which may give several samples one probability.

    Args:
        found: The answer.
        train: All samples.
    """
    import pyarrow as pa

    judged = pa.array([None if np.isnan(x) else bool(x) for x in found.judged], pa.bool_())
    assert found.selection.reasons is not None
    return pa.table(
        {
            "id": train.ids,
            "status": np.where(_kept(found), "kept", "dropped"),
            "probability": _values(found),
            "rank": found.rank,
            "reason": found.selection.reasons.astype(str),
            "judged_good": judged,
            "held_out": found.held_out,
        }
    )


def write_filter(
    found: Filtered, train: Dataset, store: Store, settings: Mapping[str, Any], show: Show | None = None
) -> None:
    """Write `samples.parquet`, `run.json` and `report.html`.

    Args:
        found: The answer.
        train: All samples.
        store: The folder.
        settings: What was asked for.
        show: Gives samples at some positions as they stand in their file, for texts; words of the vocabulary when None.
    """
    store.write_table("samples.parquet", sample_table(found, train))
    cut = found.cut
    result = {
        "sentence": found.sentence,
        "detail": found.detail,
        "kept": len(found.dataset),
        "of": len(train),
        "precision": {**_ends(found.precision), "confidence": found.level},
        "cut": {"count": cut.count, "judged": cut.judged, "good": cut.good},
        "target": found.target,
        "recall": _ends(found.recall),
        "good": _ends(found.share),
        "classifier": found.classifier,
        "loss": found.loss,
        "blind": found.blind,
        "ledger": found.ledger.to_json(),
    }
    store.write("report.html", filter_page(_content(found, train, settings, show)).encode())
    store.write_json("run.json", {**settings, "result": result})


def _ends(share: tuple[float, float, float]) -> dict[str, float | None]:
    plain = (value if np.isfinite(value) else None for value in share)
    return dict(zip(("estimate", "low", "high"), plain, strict=True))


def _values(found: Filtered) -> NumPy:
    assert found.selection.values is not None
    return found.selection.values


def _kept(found: Filtered) -> NumPy:
    kept = np.zeros(len(found.judged), dtype=bool)
    kept[found.selection.positions] = True
    return kept


def _content(found: Filtered, train: Dataset, settings: Mapping[str, Any], show: Show | None) -> FilterContent:
    values, total = _values(found), found.ledger.total()
    good = np.where(np.isnan(found.judged), 0, np.where(found.judged == 1, 1, 2)).astype(int)
    spread = ScoreSummary.from_values(
        "all samples", "value", "probability", values, good, ("not judged", "good", "bad")
    )
    lost, inputs = 1 - found.recall[0], settings.get("inputs") or ()
    columns = (inputs,) if isinstance(inputs, str) else tuple(inputs)
    facts = (
        ("Kept", count(len(found.dataset)), f"of {count(len(train))} samples"),
        (
            "Precision",
            percent(found.precision[0]),
            f"{'at least' if found.target is not None else 'from'} {percent(found.precision[1])}; "
            f"{found.cut.good} of {found.cut.judged} held-out samples before the cut",
        ),
        ("Good ones lost", percent(lost), f"from {percent(1 - found.recall[2])} to {percent(1 - found.recall[1])}"),
        ("Good among all", percent(found.share[0]), f"from {percent(found.share[1])} to {percent(found.share[2])}"),
        (
            "Classifier",
            f"{found.loss:.2f} nats",
            f"on samples it did not see; {found.blind:.2f} without looking at them",
        ),
        (
            "Cost",
            seconds(total.seconds),
            f"{quantity(total.flops, 'FLOP')}, {int((~np.isnan(found.judged)).sum())} judged",
        ),
    )
    warnings: tuple[str, ...] = ()
    if found.loss > 0.95 * found.blind:
        warnings = (
            "The classifier tells good from bad hardly better than a guess: judge more samples, or use features that see "
            "the difference.",
        )
    shares, precision, low, high = zip(*found.curve, strict=True)
    return FilterContent(
        title=f"modicum filter {train.info.source}",
        sentence=found.sentence,
        detail=found.detail,
        facts=facts,
        data=DataSummary(train.info.source, len(train), 0, 0, train.info.classes, train.info.modality, (), warnings),
        spread=spread,
        shares=shares,
        precision=precision,
        low=low,
        high=high,
        kept=len(found.dataset) / len(train),
        target=found.target,
        predicted=tuple(b.predicted for b in found.bins),
        came=tuple(b.good for b in found.bins),
        came_low=tuple(b.low for b in found.bins),
        came_high=tuple(b.high for b in found.bins),
        held_out=int(found.held_out.sum()),
        galleries=tuple(g for g in _galleries(found, train, show, columns) if g.items),
        settings={key: settings[key] for key in SETTINGS if settings.get(key) is not None},
        command=shlex.join(_command(settings)),
    )


def _galleries(found: Filtered, train: Dataset, show: Show | None, inputs: Sequence[str]) -> list[Gallery]:
    values, judged = _values(found), found.judged
    ranking = np.argsort(found.rank)
    free = ranking[np.isnan(judged[ranking])]
    held = ranking[found.held_out[ranking]]
    off = np.abs(values[held] - judged[held])
    wrong = held[np.argsort(-off, kind="stable")]
    wrong = wrong[np.abs(values[wrong] - judged[wrong]) > 0.5]
    undecided = free[np.argsort(np.abs(values[free] - 0.5), kind="stable")]
    shown = (
        ("The most probably good", "Nobody judged these.", free),
        ("The most probably bad", "Nobody judged these.", free[::-1]),
        ("The least sure", "Judging these would teach the classifier most.", undecided),
        ("Where judge and classifier disagree", "Held out, so the classifier never saw what the judge said.", wrong),
    )
    span = brightness(train)
    texts = _texts(train, [int(i) for *_, rows in shown for i in rows[:SHOWN]], show, inputs)
    return [
        Gallery(title, text, tuple(_item(found, train, int(i), span, texts) for i in rows[:SHOWN]))
        for title, text, rows in shown
    ]


def _texts(train: Dataset, positions: list[int], show: Show | None, inputs: Sequence[str]) -> dict[int, str]:
    """Texts of some samples as people wrote them."""
    if train.info.modality != "text" or not train.info.vocabulary:
        return {}
    unique = sorted(set(positions))
    if show is None:
        return {i: decode(train, i) for i in unique}
    return {
        i: " · ".join(str(value) for name, value in row.items() if (name in inputs if inputs else name not in NOT_READ))
        for i, row in zip(unique, show(unique), strict=True)
    }


def _item(found: Filtered, train: Dataset, i: int, span: tuple[float, float], texts: Mapping[int, str]) -> Item:
    judged = "" if np.isnan(found.judged[i]) else f", judged {'good' if found.judged[i] else 'bad'}"
    note, label = f"{_values(found)[i]:.2f}{judged}", "kept" if _kept(found)[i] else "dropped"
    name = str(train.ids[i])
    if train.info.modality == "image":
        return Item(name, label, note, png=thumbnail(train.inputs[i].float().numpy(), *span))
    if i in texts:
        return Item(name, label, note, text=texts[i] if len(texts[i]) <= WORDS else f"{texts[i][:WORDS]} …")
    values = train.inputs[i].flatten().tolist()
    columns = train.info.columns or tuple(f"x{j}" for j in range(len(values)))
    return Item(name, label, note, text=", ".join(f"{c} {v:.4g}" for c, v in list(zip(columns, values))[:8]))


def _command(settings: Mapping[str, Any]) -> list[str]:
    kind, _, judge = str(settings["judge"]).partition(" ")
    parts = ["modicum", "filter", str(settings["data"])]
    parts += ["--command" if kind == "command" else "--labels", judge if kind in ("command", "labels") else "FILE"]
    for name in OPTIONS:
        value = settings.get(name)
        if value is not None and not (name == "label" and value is False):
            parts += [f"--{name}", str(value)]
    inputs = settings.get("inputs")
    return parts + (["--inputs", *([inputs] if isinstance(inputs, str) else map(str, inputs))] if inputs else [])
