"""The commands that learn without labels: `pretrain`, `probe`, `relabel`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from modicum.cli.common import Common, RecipeOptions, announce, cost, print_rows, recipe_given, stem, work_key

__all__ = ["Pretrain", "Probe", "Relabel"]


@dataclass(frozen=True)
class Pretrain(Common):
    """Learn a representation without labels. Writes an encoder, what it knows, and a page.

    Args:
        data: A built-in name, a file or a folder.
        method: Key of a pretraining method, with options or without; `modicum methods pretraining` lists them.
        share: Of the samples that an epoch visits, a fresh draw each time: the budget in steps.
        published: Start from the recipe of the paper instead of one that suits the data and two processors.
        folder: Of the run: encoder, tables, page, and the state of unfinished work.
        recipe: How; only what differs.
    """

    data: Positional[str]
    method: str = "sqrtkl"
    share: float = 1.0
    published: bool = False
    folder: str | None = None
    recipe: RecipeOptions = field(default_factory=RecipeOptions)  # type: ignore[valid-type]

    def run(self) -> None:
        """Learn, probe, write, print the probes."""
        from modicum.context import home
        from modicum.data import load
        from modicum.methods import make, spec
        from modicum.pretraining import recipe_for
        from modicum.store import Store
        from modicum.verbs import pretrain

        method = make(self.method)
        train = load(self.data, **self.loading).train
        start = method.published if self.published else recipe_for(method, train)
        recipe = replace(start, **recipe_given(self.recipe))
        key = work_key(os.path.abspath(self.data), spec(method), recipe, self.loading, self.seed, self.share)
        folder = Path(self.folder or home() / f"pretrain-{stem(self.data)}-{method.card.key}-{key}")
        store = Store(folder)
        begun = store.has("pretrain.state") or store.has("encoder.safetensors")
        done = pretrain(
            self.data,
            method,
            recipe,
            self.context(),
            share=self.share,
            folder=folder,
            announce=None if begun else lambda estimate: announce(estimate, "the same command goes on after a stop"),
            **self.loading,
        )
        saved = store.read_json("run.json")["result"]
        rows: list[dict[str, Any]] = saved["probes"]
        note = (
            f"{done.method}: {cost(done.ledger)}\n"
            f"Encoder: {store.folder / 'encoder.safetensors'}\n"
            f"Report: {store.folder / 'report.html'}"
        )
        more = {"folder": str(store.folder), "report": str(store.folder / "report.html"), "cost": saved["cost"]}
        _print_probes(rows, self.json, note, more)


@dataclass(frozen=True)
class Probe(Common):
    """What does an encoder know? k-NN, linear, naive Bayes and few-shot probes, beside raw inputs and no training.

    Args:
        run_folder: Folder of a finished `modicum pretrain`.
        on: Another data set to transfer to: a built-in name, a file or a folder.
    """

    run_folder: Positional[str]
    on: str | None = None

    def run(self) -> None:
        """Probe and print."""
        from modicum.verbs import probe

        ctx = self.context()
        loading = {name: value for name, value in self.loading.items() if value is not None}
        table = probe(self.run_folder, self.on, ctx, **loading)
        _print_probes(table.to_rows(), self.json, cost(ctx.ledger))


@dataclass(frozen=True)
class Relabel(Common):
    """Replace targets by what a prior model sees. Writes the data with whitened features of the prior as targets.

    Args:
        data: A built-in name, a file or a folder.
        prior: Folder of a `modicum pretrain` run, `untrained`, or `timm:NAME` and `hf:NAME` with the extras.
        dim: Width of the targets; that of the prior's features when left out.
        out: Where the relabeled samples go: .npz or .parquet.
        recipe: Of an untrained prior; only what differs from what suits the data.
    """

    data: Positional[str]
    prior: str = "untrained"
    dim: int | None = None
    out: str | None = None
    recipe: RecipeOptions = field(default_factory=RecipeOptions)  # type: ignore[valid-type]

    def run(self) -> None:
        """Relabel and write."""
        from modicum.data import load, save
        from modicum.pretraining import default_pretraining_recipe
        from modicum.verbs import relabel

        ctx = self.context()
        recipe = replace(default_pretraining_recipe(load(self.data, **self.loading).train), **recipe_given(self.recipe))
        made = relabel(self.data, self.prior, self.dim, recipe=recipe, ctx=ctx, **self.loading)
        out = Path(self.out or f"{stem(self.data)}-relabeled.npz")
        save(made, out)
        width = 0 if made.targets is None else made.targets.shape[1]
        rows = [{"samples": len(made), "targets": width, "prior": self.prior}]
        print_rows(rows, self.json, list(rows[0]), f"{cost(ctx.ledger)} Written to {out}.", {"file": str(out)})


def _print_probes(rows: list[dict[str, Any]], as_json: bool, note: str, more: dict[str, Any] | None = None) -> None:
    """For people a line for each probe and a column for each representation, in percent; for programs every row."""
    lines: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows if not as_json else []:
        name = row["probe"] + (f", {row['shots']} a class" if row["shots"] else "")
        line = lines.setdefault((row["probe"], row["shots"]), {"probe": name, "labels": row["labels"]})
        error = "" if row["error"] is None else f" ± {100 * row['error']:.1f}"
        line[row["representation"]] = f"{100 * row['accuracy']:.1f}{error}"
    shown = list(lines.values())
    about = "Accuracy on the test split in percent.\n" if shown else ""
    print_rows(rows if as_json else shown, as_json, list(shown[0]) if shown else [], about + note, more)
