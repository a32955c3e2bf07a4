"""A forecast of pruning, written into its folder: tables for programs and a page for people."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from modicum.dataset import Splits
from modicum.ledger import Ledger
from modicum.report.assemble import common_options
from modicum.report.content import DataSummary
from modicum.report.forecast_page import ForecastContent, forecast_page
from modicum.report.format import count, quantity, seconds
from modicum.selection.pruning_forecast import PruningForecast
from modicum.store import Store

__all__ = ["write_forecast"]

SETTINGS = (
    "data",
    "label",
    "limit",
    "keep",
    "shares",
    "runs",
    "steps",
    "floor",
    "score",
    "angle",
    "trials",
    "recipe",
    "seed",
    "environment",
)


def write_forecast(
    found: PruningForecast, data: Splits, store: Store, settings: Mapping[str, Any], ledger: Ledger
) -> None:
    """Write `forecast.parquet`, `curve.parquet`, `diagram.parquet`, `report.html` and `run.json`.

    Args:
        found: The forecast.
        data: The splits it is about.
        store: The folder.
        settings: What was asked for.
        ledger: What the pilot cost.
    """
    import pyarrow as pa

    rows = [{**asdict(row), "choice": row.choice, "why": row.why} for row in found.rows]
    fitted = found.chance * found.fit.curve(found.shares)
    curve = {"share": found.shares, "error": found.errors, "standard_error": found.deviations, "fitted": fitted}
    if found.pilot is not None:
        for rule in ("hardest", "easiest"):
            measured = getattr(found.pilot, rule)
            curve |= {rule: measured.means.numpy(), f"{rule}_standard_error": measured.deviations.numpy()}
    a, k = found.diagram.shape[:2]
    diagram = {
        "alpha": np.repeat(found.alphas, k),
        "keep": np.tile([row.keep for row in found.rows], a),
        **{name: found.diagram[..., i].ravel() for i, name in enumerate(("random", "hardest", "easiest"))},
    }
    store.write_table("forecast.parquet", pa.Table.from_pylist(rows))
    store.write_table("curve.parquet", pa.table(curve))
    store.write_table("diagram.parquet", pa.table(diagram))
    result = {
        "sentence": found.sentence,
        "alpha": found.fit.alpha,
        "interval": [found.fit.low, found.fit.high],
        "floor": found.fit.floor,
        "misfit": found.fit.misfit,
        "angle": found.angle,
        "rows": [{key: None if value != value else value for key, value in row.items()} for row in rows],
        "ledger": ledger.to_json(),
    }
    store.write("report.html", forecast_page(_content(found, data, settings, ledger, fitted)).encode())
    store.write_json("run.json", {**settings, "result": result})


def _content(
    found: PruningForecast, data: Splits, settings: Mapping[str, Any], ledger: Ledger, fitted: Any
) -> ForecastContent:
    train, fit, total = data.train, found.fit, ledger.total()
    per_class = "Errors are relative to guessing, so that any number of classes has one scale."
    facts = (
        (
            "Samples per effective dimension",
            f"{fit.alpha:.3g}",
            f"90 % interval {fit.low:.3g} to {fit.high:.3g}; the place of this data set on the horizontal axis",
        ),
        (
            "Angle of the scores",
            f"{math.degrees(found.angle):.3g}°",
            f"between the truth and the model that {settings['score']} comes from; 0° is a perfect score, 90° a useless one",
        ),
        (
            "Shape of the learning curve",
            "as in theory" if not found.misfit else "unlike theory",
            f"mean squared residual {fit.misfit:.2g} standard errors² (1 where theory holds)",
        ),
        ("Cost of the pilot", seconds(total.seconds), quantity(total.flops, "FLOP")),
    )
    return ForecastContent(
        title=f"modicum forecast prune {train.info.source}",
        sentence=found.sentence,
        detail=f"From {count(total.samples)} sample visits of a pilot. {per_class} The theory is that of a linear teacher "
        "and Gaussian inputs: it says which way to prune, and its errors are no promise for a network.",
        facts=facts,
        data=DataSummary(
            name=train.info.source,
            train=len(train),
            valid=len(data.valid),
            test=len(data.test),
            classes=train.info.classes,
            modality=train.info.modality,
        ),
        rows=found.rows,
        alphas=tuple(found.alphas.tolist()),
        diagram=found.diagram,
        alpha=(fit.low, fit.alpha, fit.high),
        degrees=math.degrees(found.angle),
        shares=tuple(found.shares.tolist()),
        errors=tuple(found.errors.tolist()),
        deviations=tuple(found.deviations.tolist()),
        fitted=tuple(np.asarray(fitted).tolist()),
        tried=tuple(_tried(found)),
        settings={name: settings[name] for name in SETTINGS if settings.get(name) is not None},
        command=shlex.join(_command(settings)),
    )


def _tried(found: PruningForecast) -> Iterator[tuple[str, tuple[float, ...], tuple[float, ...]]]:
    if found.pilot is not None:
        for rule in ("hardest", "easiest"):
            curve = getattr(found.pilot, rule)
            yield rule, tuple(curve.means.tolist()), tuple(curve.deviations.tolist())


def _command(settings: Mapping[str, Any]) -> list[str]:
    parts = ["modicum", "forecast", "prune", str(settings["data"]), "--seed", str(settings["seed"])]
    parts += ["--keep", *(f"{keep:.12g}" for keep in settings["keep"])]
    parts += ["--shares", *map(str, settings["shares"]), "--runs", str(settings["runs"]), "--steps", settings["steps"]]
    parts += ["--floor"] if settings["floor"] else []
    parts += ["--score", str(settings["score"])]
    parts += ["--angle", str(settings["angle"])] if settings["angle"] is not None else []
    parts += [] if settings["trials"] else ["--no-trials"]
    return parts + common_options(settings)
