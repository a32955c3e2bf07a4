"""The command `select`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from modicum.cli.common import Common, RecipeOptions, announce, cost, print_rows, recipe_of, stem, work_key
from modicum.errors import ModicumError

__all__ = ["Select"]


@dataclass(frozen=True)
class Select(Common):
    """Which samples to keep? Writes the kept samples in the form they came in, a table of all, and a page that says whether
    it was worth it.

    Args:
        data: A built-in name, a file or a folder.
        method: Key of a valuation or selection method, with options or without.
        keep: How much: 30%, 0.3, 500 or 10/class; 30% when left out.
        rule: Of scores: hardest, easiest, middle, ccs, d2-pruning or auto; what the score is for when left out.
        class_balance: Every class keeps at least this share of what it would get if all classes got as many.
        table: Table of an earlier selection, perhaps edited, to apply instead of a method.
        out: Where the kept samples go: .npz, .parquet, .csv, .tsv, .jsonl or a folder of images; here, in the form the data
            came in, when left out.
        dropped: Write the samples that are left out to this file or folder as well.
        models: How many models are trained on the selection and on each control to check it; 0 leaves it unchecked.
        max_seconds: Train no further model then.
        folder: Of the run: table of all samples and page.
        recipe: How models are trained; only what differs from what suits the data.
    """

    data: Positional[str]
    method: str = "facility-location"
    keep: str | None = None
    rule: str | None = None
    class_balance: float | None = None
    table: str | None = None
    out: str | None = None
    dropped: str | None = None
    models: int = 3
    max_seconds: float | None = None
    folder: str | None = None
    recipe: RecipeOptions = field(default_factory=RecipeOptions)  # type: ignore[valid-type]

    def run(self) -> None:
        """Select, check, write, print."""
        from modicum.context import home
        from modicum.data import form_of
        from modicum.store import Store
        from modicum.verbs import select

        if self.table is not None and self.keep is not None:
            raise ModicumError(f"table={self.table!r} says which samples to keep; leave keep={self.keep!r} out")
        keep = None if self.table is not None else self.keep or "30%"
        recipe, ctx = recipe_of(self.recipe, self.data, self.loading), self.context()
        what = [self.method, keep, self.rule, self.class_balance, self.table and os.path.abspath(self.table)]
        key = work_key(os.path.abspath(self.data), *what, recipe, self.loading, self.seed)
        name = "table" if self.table else self.method.partition("(")[0]
        folder = Path(self.folder or home() / f"select-{stem(self.data)}-{name}-{key}")
        out = Path(self.out or f"{stem(self.data)}-kept{form_of(self.data)}")
        kept = select(
            self.data,
            self.method,
            keep,
            rule=self.rule,
            class_balance=self.class_balance,
            table=self.table,
            recipe=recipe,
            ctx=ctx,
            max_seconds=self.max_seconds,
            folder=folder,
            out=out,
            dropped=self.dropped,
            models=self.models,
            announce=announce,
            **self.loading,
        )
        store = Store(folder)
        saved = store.read_json("run.json")["result"]
        files = f"Kept samples: {out}\n" + (f"Left out: {self.dropped}\n" if self.dropped else "")
        check = saved["check"]
        told = f"{len(kept)} of {saved['of']} samples are kept. " + (
            f"{check['sentence']}\n{check['detail']}\n" if check else "\n"
        )
        low = [row["class"] for row in saved["classes"] if row["warning"]]
        if low:
            told += f"Warning: less than half of the usual share is kept of {', '.join(low[:6])}{' and others' if len(low) > 6 else ''}.\n"
        told += f"{saved['note'][:1].upper()}{saved['note'][1:]}.\n" if saved["note"] else ""
        note = (
            f"{told}{cost(ctx.ledger)}\n{files}Table of all samples: {store.folder / 'samples.parquet'}\n"
            f"Report: {store.folder / 'report.html'}"
        )
        rows = [{k: row[k] for k in ("class", "samples", "kept", "share")} for row in saved["classes"]]
        more: dict[str, Any] = {
            **{"file": str(out), "samples": len(kept), "of": saved["of"], "check": check, "classes": saved["classes"]},
            **{"table": str(store.folder / "samples.parquet"), "report": str(store.folder / "report.html")},
        }
        print_rows(rows, self.json, ["class", "samples", "kept", "share"], note, more)
