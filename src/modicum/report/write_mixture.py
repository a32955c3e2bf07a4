"""A mixture, written into its folder: a table for programs and a page for people."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from modicum.comparison.mixing import Copies, Mixed
from modicum.data import Duplicates
from modicum.ledger import Ledger
from modicum.report.assemble import brightness, common_options, item
from modicum.report.content import DataSummary, Item
from modicum.report.format import count, percent, quantity, seconds
from modicum.report.mixture_page import Bar, MixtureContent, Pairs, SourceRow, mixture_page
from modicum.store import Store

__all__ = ["write_mixture"]

Show: TypeAlias = "Callable[[int], str]"
SHOWN = 12  # pairs of a kind
LETTERS = 1000  # of a text that are shown
SETTINGS = (
    *("sources", "inputs", "label", "limit", "weights", "target", "keep", "deduplicate", "near", "by", "seed", "out"),
    *("recipe", "environment"),
)
MEASURES = {
    "text": "Texts are near when {near:g} of their runs of three words are shared; 1 is all of them.",
    "pixels": "Images are near when their distance is at most {near:g}, brightness and contrast taken out.",
    "columns": "Rows are near when their distance is at most {near:g} of the usual one.",
    "code": "Images are near when at most {near:g} of the 64 bits of their perceptual hash differ.",
    "features": "Samples are near when the distance of their features is at most {near:g}.",
}


def write_mixture(
    mixed: Mixed, store: Store, settings: Mapping[str, Any], file: Path, ledger: Ledger, show: Show | None = None
) -> None:
    """Write `samples.parquet`, `run.json` and `report.html`.

    Args:
        mixed: The mixture.
        store: The folder.
        settings: What was asked for.
        file: Where the mixture was written to.
        ledger: What it cost.
        show: Gives the text of a sample of `mixed.copies.found`, for texts; the words of its vocabulary when None.
    """
    store.write_table("samples.parquet", mixed.samples)
    result = {
        **{"rows": mixed.rows(), "file": str(file), "duplicates": str(mixed.copies) if mixed.copies else None},
        **{"pilot": asdict(mixed.pilot) if mixed.pilot else None, "ledger": ledger.to_json()},
    }
    store.write("report.html", mixture_page(_content(mixed, settings, ledger, show)).encode())
    store.write_json("run.json", {**settings, "result": result})


def _content(mixed: Mixed, settings: Mapping[str, Any], ledger: Ledger, show: Show | None) -> MixtureContent:
    train, rows = mixed.splits.train, mixed.rows()
    samples, kept, gone = (sum(row[key] for row in rows) for key in ("samples", "kept", "copies"))
    copies = mixed.copies
    parts = f"{count(len(rows))} source{'s' * (len(rows) > 1)}"
    sentence = f"{count(kept)} of {count(samples)} training samples of {parts} are kept."
    looked = str(copies) if copies else "Whether samples repeat others was not looked at"
    drawn = samples - kept - gone
    more = f"; {count(drawn)} were not drawn" if drawn else ""
    total = ledger.total()
    most = max(rows, key=lambda row: row["epochs"])
    facts = [
        ("Kept", count(kept), f"of {count(samples)} training samples, {percent(kept / samples)}"),
        ("Copies", count(gone) if copies else "–", "left out" if copies else "nobody looked"),
        (
            "Most repeated",
            f"{most['epochs']:.3g} ×",
            f"every sample of {most['source']} in a pass of {count(kept)} visits",
        ),
        ("Cost", seconds(total.seconds), quantity(total.flops, "FLOP")),
    ]
    warnings = []
    if copies:
        if copies.leaked.any():
            facts.insert(
                2, ("Leaks", count(int(copies.leaked.sum())), "of the copies repeat a validation or test sample")
            )
        if copies.other.any():
            warnings.append(
                f"{count(int(copies.other.sum()))} of the samples left out have another label than what stands for them."
            )
    warnings += [f"Nothing of {row['source']} is left." for row in rows if not row["kept"]]
    relevance = mixed.pilot.relevance if mixed.pilot else {}
    return MixtureContent(
        title=f"modicum mix {' + '.join(row['source'] for row in rows)}",
        sentence=sentence,
        detail=f"{looked}{more}.",
        facts=tuple(facts),
        data=DataSummary(
            name=" + ".join(row["source"] for row in rows),
            train=kept,
            valid=len(mixed.splits.valid),
            test=len(mixed.splits.test),
            classes=train.info.classes,
            modality=train.info.modality,
            warnings=tuple(warnings),
        ),
        sources=tuple(
            SourceRow(
                **{"name": r["source"], "not_drawn": r["not drawn"], "relevance": relevance.get(r["source"])},
                **{key: r[key] for key in ("samples", "copies", "kept", "weight", "epochs")},
            )
            for r in rows
        ),
        bars=(
            Bar("before", f"{count(samples)} samples", tuple(row["samples"] / samples for row in rows)),
            Bar("after", f"{count(kept)} samples", tuple(row["kept"] / kept for row in rows)),
            Bar("visits of training", f"{count(kept)} in a pass", tuple(row["weight"] for row in rows)),
        ),
        counts=tuple(_counts(copies)) if copies else (),
        pairs=tuple(_pairs(copies, show)) if copies else (),
        compared=_compared(copies.found) if copies else "",
        pilot=_pilot(mixed),
        settings={key: settings[key] for key in SETTINGS if settings.get(key) not in (None, "", {}, [])},
        command=shlex.join(_command(settings)),
    )


def _compared(found: Duplicates) -> str:
    """How samples were compared."""
    how = MEASURES[found.by].format(near=found.near) if found.near else "Only equal samples were looked for."
    return f"{how} The earliest of those that are alike stays; validation and test samples come first, then the sources in their order."


def _pilot(mixed: Mixed) -> str:
    if mixed.pilot is None:
        return ""
    seen = sum(mixed.pilot.explored.values())
    return (
        f"The weights are the relevance for the target, as a pilot on {count(seen)} samples found it; the sources leave "
        f"{percent(mixed.pilot.residual)} of the target's heads unexplained."
    )


def _counts(copies: Copies) -> list[dict[str, str]]:
    names, rows = copies.found.dataset.info.sources, []
    columns = sorted(set(copies.of_source.tolist()))
    for source in sorted(set(copies.source.tolist())):
        mine = copies.source == source
        equal, of = copies.found.equal[copies.at[mine]], copies.of_source[mine]
        row = {"left out of": names[source], "in all": count(len(of)), "equal": count(int(equal.sum()))}
        rows.append(row | {f"like {names[c]}": count(int((of == c).sum())) for c in columns})
    return rows


def _pairs(copies: Copies, show: Show | None) -> list[Pairs]:
    """A few of each kind, spread over what there is; the least alike where there are degrees."""
    found, span = copies.found, brightness(copies.found.dataset)
    equal, across = found.equal[copies.at], copies.source != copies.of_source
    nearness = found.nearness[copies.at]
    kinds = (
        (
            "With another label",
            "Of two samples that are alike, one label is wrong, or both can be argued for.",
            copies.other,
        ),
        (
            "Copies of validation and test samples",
            "Trained on, they make results look better than they are.",
            copies.leaked,
        ),
        ("Nearly equal", "The least alike first: where these are no copies, ask for nearer ones with --near.", ~equal),
        ("Equal, of another source", "The earlier source has precedence.", equal & across & ~copies.leaked),
        ("Equal, inside a source", "The first of them stays.", equal & ~across),
    )
    made = []
    for title, caption, mask in kinds:
        places = np.flatnonzero(mask)
        if title == "Nearly equal":
            places = places[np.argsort(nearness[places] * (1 if found.by == "text" else -1), kind="stable")][:SHOWN]
        else:
            places = (
                places[np.unique(np.linspace(0, len(places) - 1, SHOWN).round().astype(int))] if len(places) else places
            )
        pairs = tuple(
            (
                _item(found, int(copies.of[p]), span, show),
                _item(found, int(copies.at[p]), span, show),
                _how(found, int(copies.at[p])),
            )
            for p in places
        )
        made.append(Pairs(title, caption, int(mask.sum()), pairs))
    return [pairs for pairs in made if pairs.total]


def _item(found: Duplicates, i: int, span: tuple[float, float], show: Show | None) -> Item:
    shown = item(found.dataset, i, "", span)
    if show is None or shown.text is None:
        return shown
    text = show(i)
    return replace(shown, text=text if len(text) <= LETTERS else f"{text[:LETTERS]} …")


def _how(found: Duplicates, i: int) -> str:
    return "equal" if found.equal[i] else f"{_measure(found)} {found.nearness[i]:.3g}"


def _measure(found: Duplicates) -> str:
    return {"text": "shared runs", "code": "bits that differ"}.get(found.by, "distance")


def _command(settings: Mapping[str, Any]) -> list[str]:
    parts = ["modicum", "mix", *settings["sources"]]
    weights = settings["weights"]
    if not isinstance(weights, str):
        weights = ",".join(f"{name}={weight!r}" for name, weight in weights.items())
    parts += ["--weights", weights, "--seed", str(settings["seed"])]
    for name in ("target", "keep", "near", "by", "out"):
        if settings.get(name) not in (None, ""):
            parts += [f"--{name}", str(settings[name])]
    if not settings["deduplicate"]:
        parts.append("--no-deduplicate")
    inputs = settings.get("inputs")
    parts += ["--inputs", *([inputs] if isinstance(inputs, str) else map(str, inputs))] if inputs else []
    return parts + common_options(settings)
