"""A distillation run, written into its folder: what was found for programs, and a page for people."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from modicum.dataset import Dataset, Splits
from modicum.distillation.distilled import Distilled
from modicum.distillation.preview import natural, natural_span
from modicum.ledger import Charge, Ledger
from modicum.report.assemble import common_options, item
from modicum.report.content import DataSummary, Gallery
from modicum.report.costs import CostRow, cost_row, cost_rows
from modicum.report.distillation_page import DistillationContent, MomentRow, TrialRow, distillation_page
from modicum.report.format import count, percent, plus_minus, quantity, ratio, seconds
from modicum.report.pictures import thumbnail

if TYPE_CHECKING:
    from modicum.store import Store

__all__ = ["write_distillation"]

SETTINGS = ("data", "label", "limit", "method", "keep", "zca", "seed", "networks")
CLASSES, PER_CLASS = 10, 20  # shown at most
MEANINGS = {
    "random": "as many real samples, others for each network",
    "k-center": "as many real samples, spread over each class",
    "soft labels": "the random samples with the answers of a network trained on all data as labels",
    "random, common protocol": "the random samples by the plain recipe of the field",
    "full": "every training sample, by the recipe that suits them",
}

RIVALS = {
    "k-center": "as many k-center samples",
    "soft labels": "random samples with soft labels",
    "random, common protocol": "random samples by the common protocol",
}


def write_distillation(
    made: Distilled,
    data: Splits,
    store: Store,
    settings: Mapping[str, Any],
    spent: Ledger,
    found: Mapping[str, Any],
) -> None:
    """Write `report.html`, and the findings into `run.json`.

    Args:
        made: The set.
        data: What it was made from, as it was before any whitening.
        store: The folder.
        settings: What was asked for.
        spent: On making it.
        found: What `modicum.comparison.distilling.judge` found.
    """
    judged = Ledger.from_json(found["ledger"]).charges
    spent = Ledger([*spent.charges, *(charge for charge in judged if charge.phase == "choose")])
    trials = _trials(found)
    networks = tuple(TrialRow(name, "", tuple(a)) for name, a in found.get("architectures") or ())
    sentence, detail = _answer(made, data, trials, spent, found)
    content = DistillationContent(
        title=f"modicum distill {data.train.info.source} by {made.method}",
        sentence=sentence,
        detail=detail,
        facts=_facts(made, data, trials, spent),
        data=DataSummary(
            name=data.train.info.source,
            train=len(data.train),
            valid=len(data.valid),
            test=len(data.test),
            classes=data.train.info.classes,
            modality=data.train.info.modality,
            warnings=_unfinished(made, settings, found),
        ),
        gallery=_gallery(made, data.train),
        classes=data.train.info.classes[:CLASSES] if _shown(data.train) else (),
        moments=_moments(made, data.train, found),
        loss=_loss(made),
        loss_name="loss" if "loss" in made.history else next((c for c in made.history if c != "iteration"), "loss"),
        trials=trials,
        tested=len(data.test),
        architectures=networks,
        robust=found.get("robust") or {},
        costs=_costs(spent, judged),
        uncounted=spent.total().uncounted,
        advice=_advice(made),
        settings={
            "distillation": {name: settings[name] for name in SETTINGS if settings.get(name) is not None},
            "recipe of the set": _recipe(made),
            "environment": settings["environment"],
        },
        command=shlex.join(_command(settings, store)),
        train_command=shlex.join(["modicum", "fit", str(store.folder)]),
    )
    store.write("report.html", distillation_page(content).encode())
    total = spent.total()
    rows = [{"trained on": row.name, "network": made.recipe.model, **_numbers(row)} for row in trials] + [
        {"trained on": "the set", "network": row.name, **_numbers(row)} for row in networks
    ]
    result = {
        "sentence": sentence,
        "method": made.method,
        "samples": len(made),
        "bytes": made.bytes,
        "rows": rows,
        "robust": found.get("robust") or {},
        "curve": found.get("curve") or [],
        "cost": {name: getattr(total, name) for name in ("samples", "labels", "flops", "seconds", "peak_bytes")},
        "training": found.get("costs") or {},
        "finished": bool(settings["making"]["finished"] and found["finished"]),
    }
    store.write_json("run.json", {**settings, "result": result})


def _numbers(row: TrialRow) -> dict[str, Any]:
    std = row.std if math.isfinite(row.std) else 0.0
    return {"test": row.mean, "std": std, "networks": len(row.accuracies), "accuracies": list(row.accuracies)}


def _trials(found: Mapping[str, Any]) -> tuple[TrialRow, ...]:
    rows = [TrialRow("the set", "", tuple(found["set"]), own=True)] if found.get("set") else []
    others = found.get("controls") or ()
    return (*rows, *(TrialRow(name, MEANINGS.get(name, ""), tuple(a)) for name, a in others))


# -- the answer --------------------------------------------------------------------------------------------------------


def _answer(
    made: Distilled, data: Splits, trials: Sequence[TrialRow], spent: Ledger, found: Mapping[str, Any]
) -> tuple[str, str]:
    """One sentence that says whether the set is worth more than random samples, and the numbers behind it."""
    by = {row.name: row for row in trials}
    total, own, size = spent.total(), by.get("the set"), f"{count(len(made))} synthetic samples"
    cost = f"Making it cost {quantity(total.flops, 'FLOP')} and {seconds(total.seconds)}"
    costs = found.get("costs") or {}
    if "full" in costs and costs["full"]["flops"]:
        cost += f", {ratio(total.flops / costs['full']['flops'])} of what training on all data once costs"
        if "set" in costs:
            cost += f"; each training on it then costs {ratio(costs['set']['flops'] / costs['full']['flops'])} of that"
    if own is None:
        return f"{size} in place of {count(len(data.train))}: what they are worth was not measured.", f"{cost}."
    reached = f"{size} train a network to {percent(own.mean / 100)}"
    detail = f"{_told(own)} over {len(own.accuracies)} networks"
    if "full" in by:
        share = by["full"].mean and own.mean / by["full"].mean
        detail += (
            f", {percent(share)} of the {percent(by['full'].mean / 100)} that all {count(len(data.train))} samples give"
        )
    random = by.get("random")
    if random is None:
        return f"{reached}; nothing was measured beside it.", f"{detail}. {cost}."
    gap, error = own.mean - random.mean, _error(own, random)
    detail += f"; as many random real samples give {_told(random)}"
    labels = by.get("soft labels")
    if labels is not None and labels.mean > random.mean:
        detail += f", and {_told(labels)} with soft labels"
    detail += f". The difference is {gap:+.1f} ± {2 * error:.1f} points (two standard errors over networks). {cost}."
    best = max((row for row in trials if not row.own and row.name != "full"), key=lambda row: row.mean)
    if len(own.accuracies) == len(random.accuracies) == 1:
        sentence = f"{reached}, as many random real samples to {percent(random.mean / 100)}: one network each."
    elif gap <= 2 * error:
        sentence = f"Not better than random: {reached}, as many random real samples to {percent(random.mean / 100)}."
    elif best.mean > own.mean:
        sentence = f"{reached}, but {RIVALS.get(best.name, best.name)} to {percent(best.mean / 100)}."
    else:
        sentence = f"{reached}: {gap:.1f} points more than as many random real samples."
    return sentence, detail


def _told(row: TrialRow) -> str:
    return plus_minus(row.mean / 100, row.std / 100, "accuracy")


def _error(one: TrialRow, other: TrialRow) -> float:
    """The standard error of the difference of two means; 0 where each is one network."""
    parts = [row.std**2 / len(row.accuracies) for row in (one, other) if math.isfinite(row.std)]
    return math.sqrt(sum(parts))


def _facts(
    made: Distilled, data: Splits, trials: Sequence[TrialRow], spent: Ledger
) -> tuple[tuple[str, str, str], ...]:
    names = {"the set": "This set", "random": "Random real samples", "full": "All the data"}
    facts = [
        (names[row.name], _told(row), f"test accuracy, {len(row.accuracies)} network{'s' * (len(row.accuracies) > 1)}")
        for row in trials
        if row.name in names
    ]
    total, share = spent.total(), len(made) / max(1, len(data.train))
    size = f"{count(len(made))} samples of {quantity(made.bytes, 'B')} in all, {percent(share)} of the data"
    return (*facts, ("Cost", quantity(total.flops, "FLOP"), f"{seconds(total.seconds)} to make {size}"))


def _unfinished(made: Distilled, settings: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[str, ...]:
    lines = []
    if not settings["making"]["finished"]:
        steps = int(made.history.get("iteration", [0])[-1])
        lines.append(f"Stopped early after {count(steps)} iterations, and not judged.")
    elif not found["finished"]:
        lines.append("Stopped early: not everything was measured.")
    return (*lines, "Run the same command again to go on.") if lines else ()


def _advice(made: Distilled) -> tuple[str, ...]:
    """What a training on the set must keep to."""
    recipe, lines = made.recipe, []
    if made.whitening is not None:
        lines.append("The samples are whitened (ZCA): real data must be whitened alike before the network sees them.")
    if made.seed is not None:
        lines.append(f"It was made for one initialization, that of seed {made.seed}, and is for no other.")
    if not recipe.shuffle or recipe.rates:
        lines.append("Its steps have an order and learning rates of their own: samples must not be shuffled.")
    if made.dataset.targets is not None and made.dataset.targets.is_floating_point():
        lines.append(f"Its labels are soft, and are read by {recipe.loss}.")
    if made.teacher is not None:
        lines.append(
            f"A teacher ({made.teacher.description}) labels every augmented view while a network is trained on it."
        )
    if recipe.augment:
        lines.append(f"It wants augmentation: {', '.join(recipe.augment)}.")
    return tuple(lines)


def _recipe(made: Distilled) -> dict[str, Any]:
    plain = asdict(made.recipe)
    keep = ("model", "epochs", "steps", "batch_size", "optimizer", "lr", "momentum", "weight_decay", "schedule", "loss")
    chosen = {name: plain[name] for name in (*keep, "shuffle", "ema", "augment")}
    if chosen["steps"] is not None:
        del chosen["epochs"]
    return {name: value for name, value in chosen.items() if value not in (None, (), 0.0)}


def _command(settings: Mapping[str, Any], store: Store) -> list[str]:
    parts = ["modicum", "distill", str(settings["data"]), "--method", str(settings["method"])]
    parts += ["--keep", str(settings["keep"]), "--seed", str(settings.get("seed", 0)), "--out", str(store.folder)]
    if settings.get("zca"):
        parts += ["--zca", str(settings["zca"])]
    if settings["networks"] != 5:
        parts += ["--networks", str(settings["networks"])]
    if not settings["controls"]:
        parts.append("--no-controls")
    if settings.get("architectures"):
        parts += ["--architectures", *settings["architectures"]]
    recipe = {k: v for k, v in settings["recipe"].items() if isinstance(v, (int, float, str, list, tuple))}
    return parts + common_options({**settings, "recipe": recipe})


def _costs(spent: Ledger, judged: Sequence[Charge]) -> tuple[CostRow, ...]:
    return (*cost_rows(spent, "making it in all"), *(cost_row(charge) for charge in judged if charge.phase != "choose"))


# -- what is shown -----------------------------------------------------------------------------------------------------


def _shown(train: Dataset) -> bool:
    return train.info.modality == "image" and train.inputs.ndim == 4 and train.inputs.shape[1] in (1, 3)


def _gallery(made: Distilled, train: Dataset) -> Gallery:
    data, span = natural(made), natural_span(train)
    labels, classes = data.labels, data.classes
    picked = [i for c in range(classes) for i in (labels == c).nonzero().flatten()[:PER_CLASS].tolist()]
    if data.info.modality == "image" and not _shown(data):
        picked = []
    items = tuple(item(data, i, _labels(data, i), span) for i in picked)
    left = f" {count(len(data) - len(picked))} more are in the folder." if len(picked) < len(data) else ""
    undone = " They are shown with the whitening undone." if made.whitening is not None else ""
    return Gallery("The samples by class", f"{count(len(data))} of them.{left}{undone}", items)


def _labels(data: Dataset, i: int) -> str:
    """The greatest soft labels of a sample, where they are probabilities."""
    targets = data.targets
    if targets is None or not targets.is_floating_point():
        return ""
    row = targets[i]
    if bool((row < 0).any()) or abs(float(row.sum()) - 1) > 1e-3:
        return ""
    top = row.topk(min(3, len(row)))
    told = [
        f"{data.info.classes[int(c)]} {100 * float(p):.0f} %"
        for p, c in zip(top.values, top.indices)
        if float(p) >= 0.005
    ]
    return ", ".join(told)


def _moments(made: Distilled, train: Dataset, found: Mapping[str, Any]) -> tuple[MomentRow, ...]:
    judged = {int(row["iteration"]): row["accuracy"] for row in found.get("curve") or []}
    best = max(judged, key=lambda at: (judged[at], at)) if judged else None
    span, rows = natural_span(train), []
    for snapshot in made.snapshots:
        pictures: tuple[bytes, ...] = ()
        if _shown(train):
            data = natural(made.at(snapshot))
            firsts = [(data.labels == c).nonzero().flatten()[:1] for c in range(min(CLASSES, data.classes))]
            if all(len(first) for first in firsts):
                inputs = data.inputs[torch.cat(firsts)].float().numpy()
                pictures = tuple(thumbnail(image, *span, largest=64) for image in inputs)
        at = snapshot.iteration
        rows.append(MomentRow(at, judged.get(at, math.nan), pictures, at == best))
    return tuple(rows)


def _loss(made: Distilled) -> tuple[tuple[float, float], ...]:
    history = made.history
    name = "loss" if "loss" in history else next((c for c in history if c != "iteration"), None)
    if name is None or len(history.get("iteration", ())) != len(history[name]):
        return ()
    return tuple(zip(history["iteration"], history[name]))
