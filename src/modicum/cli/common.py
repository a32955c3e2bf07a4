"""What the commands share: options, and how a result is printed."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modicum.errors import ModicumError
from modicum.training.recipe import Recipe

if TYPE_CHECKING:
    from modicum.comparison.estimate import Estimate
    from modicum.context import Context

__all__ = [
    "Common",
    "RecipeOptions",
    "announce",
    "cost",
    "print_rows",
    "recipe_given",
    "recipe_of",
    "run_store",
    "say",
    "stem",
    "work_key",
]


def _optional_recipe() -> type[Any]:
    """The fields of `Recipe`, each None unless it is given."""
    hints = Recipe.__dataclass_fields__
    plain = {"model": "str", "augment": "tuple[str, ...]"}
    fields = [(name, f"{plain.get(name, hints[name].type)} | None", field(default=None)) for name in hints]
    made = dataclasses.make_dataclass("RecipeOptions", fields, frozen=True, namespace={"__module__": Recipe.__module__})
    made.__doc__ = Recipe.__doc__
    return made


RecipeOptions = _optional_recipe()


@dataclass(frozen=True, kw_only=True)
class Common:
    """Where it runs and how it reports.

    Args:
        device: cpu, cuda, mps or auto.
        seed: Everything random is made from it.
        json: Print the result as JSON, and nothing else on standard output.
        label: Which label column of the data to use.
        limit: Use at most so many training samples.
        checkpoint_seconds: Seconds between two checkpoints of long work.
    """

    device: str = "auto"
    seed: int = 0
    json: bool = False
    label: str | None = None
    limit: int | None = None
    checkpoint_seconds: float = 30.0

    def context(self) -> Context:
        """The context of the command, with the shared cache."""
        from modicum.context import Context, home

        return Context(
            device=self.device,
            seed=self.seed,
            cache=home() / "cache",
            checkpoint_seconds=self.checkpoint_seconds,
            show=sys.stderr.isatty(),
        )

    @property
    def loading(self) -> dict[str, Any]:
        """The options for `modicum.load`."""
        return {"label": self.label, "limit": self.limit}


def recipe_given(options: Any) -> dict[str, Any]:
    """The fields of a recipe that were asked for."""
    return {name: value for name, value in vars(options).items() if value is not None}


def recipe_of(options: Any, data: str, loading: dict[str, Any]) -> Recipe | None:
    """The recipe that suits the data with what was asked for; None when nothing was."""
    given = recipe_given(options)
    if not given:
        return None
    from modicum.data import load
    from modicum.training.fit import default_recipe

    return dataclasses.replace(default_recipe(load(data, **loading).train), **given)


def run_store(folder: str) -> Any:
    """The store of a folder that holds a run."""
    from modicum.store import Store

    if not (Path(folder) / "run.json").is_file():
        raise ModicumError(f"{folder} is not a run: it has no run.json; expected a folder that a command printed")
    return Store(folder)


def print_rows(rows: list[dict[str, Any]], as_json: bool, columns: list[str], note: str, more: Any = None) -> None:
    """A table and a note for people, or both as JSON."""
    if as_json:
        print(json.dumps({"rows": rows, "note": note, **(more or {})}, default=lambda x: x.item()))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(f"{row[c]:.4g}" if isinstance(row[c], float) else str(row[c]) for c in columns))
    console = Console()
    if rows:
        console.print(table)
    console.print(note, soft_wrap=True, highlight=False, markup=False)


def announce(estimate: Estimate, hint: str = "--max-seconds stops earlier with the best answer so far") -> None:
    """Say what the work will take."""
    work = f" for {estimate.trainings:,} training{'s' * (estimate.trainings > 1)}" if estimate.trainings else ""
    say(f"About {_duration(estimate.seconds)} and {estimate.peak_bytes / 1e6:.0f} MB{work} ({hint}).")


def say(text: str) -> None:
    """A line for people, not part of the result."""
    print(text, file=sys.stderr, flush=True)


def cost(ledger: Any) -> str:
    """What was spent, in one sentence."""
    total = ledger.total()
    return f"It cost {total.flops:.3g} FLOPs and {total.seconds:.1f} s."


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if 1 <= seconds < 90
        else "a second"
        if seconds < 1
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


def stem(data: str) -> str:
    """The name of a data set, fit for a file name."""
    return Path(os.path.normpath(data)).stem.replace(":", "-")


def work_key(*parts: Any) -> str:
    """A short name for a description of work."""
    from modicum.spec import content_key

    return content_key(*parts, length=8)
