"""A selection, written into its folder as a page for people and as numbers for programs."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from modicum.comparison.checking import Check
from modicum.comparison.prepare import Plan
from modicum.dataset import Dataset, Splits
from modicum.ledger import Ledger
from modicum.report.assemble import brightness, common_options, item
from modicum.report.content import DataSummary, Gallery, ScoreSummary
from modicum.report.format import count, metric, percent, plus_minus, quantity, seconds
from modicum.report.selection_page import SelectionContent, selection_page
from modicum.scores import Selection
from modicum.selection.table import keep_rates
from modicum.store import Store

__all__ = ["write_selection"]

PER_CLASS, ALL = 4, 24  # pictures in a gallery
SETTINGS = ("data", "label", "limit", "method", "keep", "table", "recipe", "seed", "models", "environment")


def write_selection(
    plan: Plan, data: Splits, store: Store, settings: Mapping[str, Any], choosing: Ledger, check: Check | None = None
) -> None:
    """Write `report.html`, and the findings to `run.json`.

    Args:
        plan: What is kept.
        data: The splits.
        store: The folder.
        settings: What was asked for.
        choosing: What choosing cost.
        check: Whether it was worth it.
    """
    assert plan.selection is not None
    classes = keep_rates(plan.selection, data.train)
    result = {
        "kept": len(plan.selection),
        "of": len(data.train),
        "note": plan.selection.note,
        "unit": plan.selection.unit,
        "classes": classes,
        "check": _plain(check) if check else None,
        "ledger": choosing.to_json(),
    }
    content = _content(plan, data, settings, choosing, check, classes)
    store.write("report.html", selection_page(content).encode())
    store.write_json("run.json", {**settings, "result": result})


def _plain(check: Check) -> dict[str, Any]:
    return {
        **{"verdict": check.verdict, "sentence": check.sentence, "detail": check.detail, "metric": check.metric},
        "rows": [{"method": row.method, "valid": list(row.valid), "test": list(row.test)} for row in check.rows],
        "ledger": check.ledger.to_json(),
    }


def _content(
    plan: Plan,
    data: Splits,
    settings: Mapping[str, Any],
    choosing: Ledger,
    check: Check | None,
    classes: list[dict[str, Any]],
) -> SelectionContent:
    assert plan.selection is not None
    chosen, train, name = plan.selection, data.train, str(settings["method"])
    kind = plan.scores.kind if plan.scores else ""
    total = choosing.total()
    share = percent(len(chosen) / max(1, len(train)))
    sentence = f"{count(len(chosen))} of {count(len(train))} samples ({share}) are kept by {name}."
    facts = [("Kept", count(len(chosen)), f"of {count(len(train))} training samples, {share}")]
    if check:
        ours = check.rows[0]
        facts.append(
            (
                f"Test {check.metric}",
                _mean(ours.test, check.metric),
                f"of {len(ours.test)} models trained on the selection",
            )
        )
        facts.append(
            ("Random", _mean(check.rows[1].test, check.metric), "on random subsets of the same size, as many models")
        )
    facts.append(("Choosing", seconds(total.seconds), quantity(total.flops, "FLOP")))
    return SelectionContent(
        title=f"modicum select {train.info.source} by {name}",
        sentence=f"{sentence} {check.sentence}" if check else sentence,
        detail=check.detail
        if check
        else "Whether models trained on it are any better than on random samples was not checked.",
        facts=tuple(facts),
        data=DataSummary(
            name=train.info.source,
            train=len(train),
            valid=len(data.valid),
            test=len(data.test),
            classes=train.info.classes,
            modality=train.info.modality,
            warnings=(chosen.note,) if chosen.note else (),
        ),
        checks=tuple(_checks(check)) if check else (),
        columns=plan.scores.columns if plan.scores else {},
        spread=_spread(chosen, len(train), kind),
        galleries=tuple(g for g in _galleries(chosen, train) if g.items),
        classes=tuple(classes),
        reasons=tuple(_reasons(chosen, len(train))),
        settings={key: settings[key] for key in SETTINGS if settings.get(key) is not None},
        command=shlex.join(_command(settings)),
    )


def _mean(values: tuple[float, ...], name: str) -> str:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return plus_minus(float(np.mean(values)), spread, name)


def _checks(check: Check) -> list[dict[str, str]]:
    rows = []
    for row, found in zip(check.rows, (None, *check.gaps)):
        against = "" if found is None else _gap(found.mean, *found.interval, check.metric)
        rows.append(
            {
                "trained on": {"short": "all data, as many steps"}.get(row.method, row.method),
                f"test {check.metric}": _mean(row.test, check.metric),
                f"validation {check.metric}": _mean(row.valid, check.metric),
                "selection better by, on validation": against,
                "training": quantity(row.train["flops"], "FLOP"),
            }
        )
    return rows


def _gap(mean: float, low: float, high: float, name: str) -> str:
    scale, end = (100, " points") if name == "accuracy" else (1, "")
    text = f"{scale * mean:+.2f}{end} ({scale * low:+.2f} to {scale * high:+.2f})"
    return text.replace("-", "\N{MINUS SIGN}") if np.isfinite(low) else metric(mean, name)


def _spread(chosen: Selection, n: int, kind: Literal["value", "difficulty", ""]) -> ScoreSummary | None:
    if chosen.values is None:
        return None
    known = np.isfinite(chosen.values)
    if not known.any():
        return None
    kept = np.zeros(n, dtype=np.int64)
    kept[chosen.positions] = 1
    return ScoreSummary.from_values("value", kind, chosen.unit, chosen.values[known], kept[known], ("left out", "kept"))


def _galleries(chosen: Selection, train: Dataset) -> list[Gallery]:
    kept = np.zeros(len(train), dtype=bool)
    kept[chosen.positions] = True
    values = np.zeros(len(train)) if chosen.values is None else np.nan_to_num(chosen.values, nan=-np.inf)
    labels = train.labels.numpy() if train.info.task == "classification" and train.targets is not None else None
    made, span = [], brightness(train)
    for title, mask, sign in (("Kept", kept, -1), ("Left out", ~kept, 1)):
        at = np.flatnonzero(mask)
        at = at[np.lexsort((at, sign * values[at]))]
        if labels is not None and train.classes <= 20:
            picked = [i for c in range(train.classes) for i in at[labels[at] == c][:PER_CLASS]]
        else:
            picked = list(at[:ALL])
        items = tuple(item(train, int(i), _note(chosen, int(i)), span) for i in picked)
        caption = "" if chosen.values is None else f"Those with the {'highest' if sign < 0 else 'lowest'} values."
        made.append(Gallery(title, caption, items))
    return made


def _note(chosen: Selection, i: int) -> str:
    if chosen.reasons is not None and chosen.reasons[i]:
        return str(chosen.reasons[i])
    return "" if chosen.values is None or np.isnan(chosen.values[i]) else f"{chosen.values[i]:.3g}"


def _reasons(chosen: Selection, n: int) -> list[tuple[str, str, int]]:
    if chosen.reasons is None:
        return []
    kept = np.zeros(n, dtype=bool)
    kept[chosen.positions] = True
    pairs = Counter(zip(map(str, chosen.reasons), np.where(kept, "kept", "dropped").tolist()))
    return [(text, status, number) for (text, status), number in pairs.most_common()]


def _command(settings: Mapping[str, Any]) -> list[str]:
    parts = ["modicum", "select", str(settings["data"]), "--seed", str(settings["seed"])]
    parts += ["--models", str(settings["models"])]
    if settings.get("table"):
        parts += ["--table", str(settings["table"])]
    else:
        parts += ["--method", str(settings["method"]), "--keep", str(settings["keep"])]
    return parts + common_options(settings)
