"""`modicum filter`."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from modicum.cli.common import Common, cost, print_rows, stem, work_key
from modicum.errors import ModicumError

__all__ = ["Filter"]


@dataclass(frozen=True)
class Filter(Common):
    """Keep the good samples, by a judge of a few of them. Writes the kept ones, a table of all, and a page.

    The judge is a file of labels, or a command that reads a JSON object for each sample, one a line, from its standard
    input ({"id": ..., "text" or the columns: ..., images as PNG in base64 in "image"}) and writes a score for each, one a
    line. The command is started without a shell, once for every batch.

    Args:
        data: A built-in name, a file or a folder.
        labels: File with the columns id and label (1 or 0, good or bad) of some samples, drawn at random.
        command: Command that judges.
        ask: How many samples the command is asked about; what it said before is not asked again.
        precision: Share of good ones that the kept ones must have; 0.9 when keep is not given either.
        keep: Or how many to keep: 30%, 0.3 or 500.
        level: Confidence of the bound on the precision.
        good: The least score of a good sample.
        encoder: What the classifier sees: inputs, statistics, both, trained, or auto for the best of the first three.
        classifier: logistic, forest, or auto for the better.
        calibration: platt, isotonic or none.
        inputs: Names of the input columns; several columns of text are read one after the other.
        batch: Samples that the command gets at a time.
        timeout: Seconds that it may take for them.
        out: Where the kept samples go; beside the input's name, in its form, when left out.
        folder: Of the run: judgments, table, page.
    """

    data: Positional[str]
    labels: str | None = None
    command: str | None = None
    ask: int = 200
    precision: float | None = None
    keep: str | None = None
    level: float = 0.95
    good: float = 0.5
    encoder: str = "auto"
    classifier: str = "auto"
    calibration: str = "platt"
    inputs: tuple[str, ...] = ()
    batch: int = 50
    timeout: float = 600.0
    out: str | None = None
    folder: str | None = None

    def run(self) -> None:
        """Ask, learn, filter, write."""
        from modicum.context import home
        from modicum.data import form_of
        from modicum.data.judging import CommandJudge
        from modicum.store import Store
        from modicum.valuation import Quality
        from modicum.verbs import filter

        if (self.labels is None) == (self.command is None):
            raise ModicumError("give --labels FILE or --command CMD, and not both: somebody has to judge a few samples")
        judge: Any = Path(self.labels) if self.labels else CommandJudge(str(self.command), self.timeout)
        key = work_key(os.path.abspath(self.data), self.labels, self.command, self.inputs, self.loading, self.seed)
        folder = Path(self.folder or home() / f"filter-{stem(self.data)}-{key}")
        out = Path(self.out or f"{stem(self.data)}-kept{form_of(self.data)}")
        loading = {**self.loading, **({"inputs": list(self.inputs)} if self.inputs else {})}
        found = filter(
            self.data,
            judge,
            self.keep,
            self.precision,
            ask=self.ask,
            level=self.level,
            good=self.good,
            method=Quality("", self.encoder, self.classifier, self.calibration),
            batch=self.batch,
            folder=folder,
            out=out,
            ctx=self.context(),
            **loading,
        )
        store, n = Store(folder), len(found.judged)
        parts = (("kept", len(found.dataset), found.precision), ("all", n, found.share))
        rows = [
            {"": name, "samples": size, "share": size / n, "good at least": low, "good about": about}
            for name, size, (about, low, _) in parts
        ]
        if math.isnan(found.precision[0]):
            rows[0]["good about"] = None if self.json else "–"
        note = (
            f"{found.sentence}\n{found.detail}\n{cost(found.ledger)}\nKept samples: {out}\n"
            f"Table of all: {store.folder / 'samples.parquet'}\nReport: {store.folder / 'report.html'}"
        )
        result = store.read_json("run.json")["result"]
        more = {**result, "file": str(out), "folder": str(folder), "report": str(folder / "report.html")}
        print_rows(rows, self.json, list(rows[0]), note, more)
