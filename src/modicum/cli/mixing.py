"""The command `mix`, and what a share for each source looks like on the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from modicum.cli.common import Common, RecipeOptions, cost, print_rows, recipe_given, work_key
from modicum.errors import ModicumError

__all__ = ["Mix", "parse_shares", "share_text"]


def parse_shares(text: str) -> dict[str, float]:
    """`web=3,books=1` as numbers by name.

    Raises:
        ModicumError: It reads otherwise.

    Example:
        >>> parse_shares("web=3, books=0.5")
        {'web': 3.0, 'books': 0.5}
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, sign, number = part.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            sign, value = "", 0.0
        if not sign or not name.strip() or name.strip() in shares:
            raise ModicumError(f"{text!r} is not a share for each source; expected for example 'web=3,books=1'")
        shares[name.strip()] = value
    return shares


def share_text(shares: dict[str, float]) -> str:
    """The inverse of `parse_shares`, to the last bit.

    Example:
        >>> share_text({"web": 0.75, "books": 0.25, "rest": 1})
        'web=0.75,books=0.25,rest=1'
    """
    return ",".join(f"{name}={repr(float(share)).removesuffix('.0')}" for name, share in shares.items())


@dataclass(frozen=True)
class Mix(Common):
    """Several sources as one training set, without what repeats. Writes the mixture, a table of
    what was removed and why, and a page.

    Args:
        sources: Built-in names, files or folders, each as NAME=DATA or DATA; earlier ones have precedence where two hold
            the same sample.
        weights: How much of training each gets: size, equal, a-mtrl (as relevant as a pilot finds it for the target), or
            numbers such as web=3,books=1.
        target: Validate and test on these data, or on one of the sources; on all of them when left out.
        keep: How many training samples in all: 30%, 0.3 or 500; all when left out.
        deduplicate: Leave out training samples that repeat one of the validation or test samples or an earlier one.
        near: How near is near; 0 for equal inputs only.
        by: What is compared: text, pixels, columns, or code (a perceptual hash of images).
        inputs: Names of the input columns; several columns of text are read one after the other.
        out: File of the mixture: .npz, .parquet, .csv, .tsv or .jsonl; in the folder of the run when left out.
        folder: Of the run: table, page and mixture.
        recipe: Of the pilot of a-mtrl; only what differs from what suits the data.
    """

    sources: Positional[tuple[str, ...]]
    weights: str = "size"
    target: str | None = None
    keep: str | None = None
    deduplicate: bool = True
    near: float | None = None
    by: str = ""
    inputs: tuple[str, ...] = ()
    out: str | None = None
    folder: str | None = None
    recipe: RecipeOptions = field(default_factory=RecipeOptions)  # type: ignore[valid-type]

    def run(self) -> None:
        """Mix, write, print what became of each source."""
        from dataclasses import replace

        from modicum.context import home
        from modicum.data import load
        from modicum.store import Store
        from modicum.training.fit import default_recipe
        from modicum.verbs import mix
        from modicum.verbs.mixing import named_sources

        weights = parse_shares(self.weights) if "=" in self.weights else self.weights
        recipe, given = None, recipe_given(self.recipe)
        loading = {**self.loading, **({"inputs": list(self.inputs)} if self.inputs else {})}
        if given and self.sources:
            first = next(iter(named_sources(self.sources).values()))
            recipe = replace(default_recipe(load(first, **loading).train), **given)
        what = [*(os.path.abspath(s) for s in self.sources), self.weights, self.target, self.keep, self.deduplicate]
        key = work_key(*what, self.near, self.by, recipe, loading, self.seed)
        folder, ctx = Path(self.folder or home() / f"mix-{key}"), self.context()
        mixed = mix(
            self.sources,
            weights,
            target=self.target,
            keep=self.keep,
            deduplicate=self.deduplicate,
            near=self.near,
            by=self.by,
            recipe=recipe,
            ctx=ctx,
            folder=folder,
            out=self.out,
            **loading,
        )
        file = Store(folder).read_json("run.json")["result"]["file"]
        note = f"{len(mixed.splits.train)} training samples; epochs are those of a pass of as many visits.\n"
        if mixed.copies is not None:
            note += f"{mixed.copies}.\n"
        if mixed.pilot is not None:
            note += f"The sources leave {100 * mixed.pilot.residual:.0f} % of the target's heads unexplained.\n"
        rounded = {name: float(f"{weight:.4g}") for name, weight in mixed.weights.items()}
        train = f"modicum fit {file} --mixture {share_text(rounded)}"
        note += f"{cost(ctx.ledger)}\nMixture: {file}\nTable of all samples: {folder / 'samples.parquet'}\n"
        note += f"Report: {folder / 'report.html'}\nTrain on it: {train}"
        more: dict[str, Any] = {
            "file": file,
            "table": str(folder / "samples.parquet"),
            "folder": str(folder),
            "report": str(folder / "report.html"),
        }
        more |= {"weights": mixed.weights, "samples": len(mixed.splits.train), "fit": train}
        rows = mixed.rows()
        print_rows(rows, self.json, list(rows[0]), note, more)
