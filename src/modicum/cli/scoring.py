"""`modicum score`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from modicum.cli.common import Common, RecipeOptions, announce, cost, print_rows, recipe_of, stem, work_key
from modicum.errors import ModicumError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Score"]


@dataclass(frozen=True)
class Score(Common):
    """What is each training sample worth? Writes a table with id, value, standard error and rank, and a page.

    Args:
        data: A built-in name, a file or a folder.
        method: Key of a valuation method, with options or without.
        max_seconds: Give the best answer so far then, with standard errors; the same command goes on later.
        truth: Column with the right labels, where they are known, to see how many wrong ones are found.
        corrupt: Share of the training labels to make wrong first, for the same purpose.
        curves: Learner of the curves on the page: ridge, logistic, network, ...; none leaves them out.
        folder: Of the run: tables, page, and the state of unfinished work.
        out: Parquet or CSV file to write the table to as well.
        recipe: How proxies are trained; only what differs from what suits the data.
    """

    data: Positional[str]
    method: str = "knn-shapley"
    max_seconds: float | None = None
    truth: str | None = None
    corrupt: float | None = None
    curves: str = "ridge"
    folder: str | None = None
    out: str | None = None
    recipe: RecipeOptions = field(default_factory=RecipeOptions)  # type: ignore[valid-type]

    def run(self) -> None:
        """Score, write the tables and the page, print the extremes."""
        from modicum.context import home
        from modicum.methods import make, spec
        from modicum.store import Store
        from modicum.verbs import score

        if self.out is not None:
            _table_kind(Path(self.out))
        method = make(self.method)
        recipe = recipe_of(self.recipe, self.data, self.loading)
        key = work_key(
            os.path.abspath(self.data), spec(method), recipe, self.loading, self.seed, self.truth, self.corrupt
        )
        folder = Path(self.folder or home() / f"score-{stem(self.data)}-{method.card.key}-{key}")
        scores = score(
            self.data,
            method,
            recipe,
            self.context(),
            max_seconds=self.max_seconds,
            folder=folder,
            truth=self.truth,
            corrupt=self.corrupt,
            curves=None if self.curves == "none" else self.curves,
            announce=announce,
            **self.loading,
        )
        store = Store(folder)
        table, saved = store.read_table("scores.parquet"), store.read_json("run.json")["result"]
        if self.out:
            _write_table(Path(self.out), table)
        ranking = scores.ranking()
        extremes = [*ranking[:5], *ranking[-5:]] if len(ranking) > 10 else ranking
        rows = [table.slice(int(i), 1).to_pylist()[0] for i in extremes]
        columns = [c for c in table.column_names if scores.errors is not None or c != "standard_error"]
        note = (
            f"{scores.method}: a {scores.kind} in {scores.unit}; rank 0 is kept first. {cost(scores.ledger)}\n"
            + (f"{scores.note[:1].upper()}{scores.note[1:]}.\n" if scores.note else "")
            + _how_sure(scores.stability, saved["detection"])
            + f"Table: {store.folder / 'scores.parquet'}{f' and {self.out}' if self.out else ''}\n"
            + f"Report: {store.folder / 'report.html'}"
        )
        more = {name: saved[name] for name in ("kind", "unit", "note", "stability", "detection", "curves")}
        more |= {"file": str(store.folder / "scores.parquet"), "report": str(store.folder / "report.html")}
        print_rows(rows, self.json, columns, note, more)


def _how_sure(stability: float | None, found: Any) -> str:
    text = "" if stability is None else f"A repetition would agree at a correlation of about {stability:.2f}.\n"
    if found:
        text += (
            f"Of the {found['wrong']} most suspicious labels {100 * found['precision']:.1f} % are wrong "
            f"({100 * found['wrong'] / found['of']:.1f} % of all are); AUROC {found['auroc']:.3f}.\n"
        )
    return text


def _table_kind(path: Path) -> str:
    if path.suffix not in (".csv", ".parquet"):
        raise ModicumError(f"out={str(path)!r}; expected a file that ends with .parquet or .csv")
    return path.suffix


def _write_table(path: Path, table: pa.Table) -> None:
    if _table_kind(path) == ".csv":
        from pyarrow import csv

        csv.write_csv(table, path)
    else:
        import pyarrow.parquet as pq

        pq.write_table(table, path)
