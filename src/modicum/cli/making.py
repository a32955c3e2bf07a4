"""The commands that make a data set or a model: `select`, `distill`, `fit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from modicum.cli.common import Common, RecipeOptions, cost, print_rows, recipe_of, say, stem, work_key

__all__ = ["Distill", "Fit", "Select"]


@dataclass(frozen=True)
class Select(Common):
    """Which samples to keep? Writes the kept samples.

    Args:
        data: A built-in name, a file or a folder.
        method: Key of a valuation or selection method, with options or without.
        keep: How much: 30%, 0.3, 500 or 10/class.
        out: Where the kept samples go: .npz, .parquet, .csv, .tsv, .jsonl or a folder of images.
        recipe: How proxies are trained; only what differs from what suits the data.
    """

    data: Positional[str]
    method: str = "knn-shapley"
    keep: str = "30%"
    out: str | None = None
    recipe: RecipeOptions = field(default_factory=RecipeOptions)  # type: ignore[valid-type]

    def run(self) -> None:
        """Select and write."""
        from modicum.verbs import select

        _make_dataset(select, self, f"{stem(self.data)}-kept.npz")


@dataclass(frozen=True)
class Distill(Common):
    """Make a small synthetic training set.

    Args:
        data: A built-in name, a file or a folder.
        method: Key of a distillation method, with options or without.
        keep: How much: 10/class, 100 or 1%.
        out: Where the synthetic samples go: .npz, .parquet or a folder of images.
        recipe: How models are trained; only what differs from what suits the data.
    """

    data: Positional[str]
    method: str = "dm"
    keep: str = "10/class"
    out: str | None = None
    recipe: RecipeOptions = field(default_factory=RecipeOptions)  # type: ignore[valid-type]

    def run(self) -> None:
        """Distill and write."""
        from modicum.verbs import distill

        _make_dataset(distill, self, f"{stem(self.data)}-distilled.npz")


@dataclass(frozen=True)
class Fit(Common):
    """Train a model on the training split, evaluate it on the test split.

    Args:
        data: A built-in name, a file or a folder.
        out: Folder for the weights and the ledger; running again continues there.
        recipe: How; only what differs from what suits the data.
    """

    data: Positional[str]
    out: str | None = None
    recipe: RecipeOptions = field(default_factory=RecipeOptions)  # type: ignore[valid-type]

    def run(self) -> None:
        """Train, evaluate, write."""
        from modicum.context import home
        from modicum.data import load
        from modicum.store import Store
        from modicum.training.fit import default_recipe, fit

        data = load(self.data, **self.loading)
        recipe = recipe_of(self.recipe, self.data, self.loading) or default_recipe(data.train)
        store = Store(
            self.out or home() / f"fit-{stem(self.data)}-{work_key(recipe, data.train.fingerprint, self.seed)}"
        )
        with store.locked():
            ctx = self.context().with_(store=store)
            if store.has("result.json"):
                say(f"Already done: {store.folder}")
                result = store.read_json("result.json")
            else:
                done = fit(data.train, recipe, ctx)
                test = done.evaluate(data.test)
                result = {"metric": test.metric, "test": test.score, "loss": test.loss, "ledger": done.ledger.to_json()}
                store.write_tensors("model.safetensors", done.model.state_dict())
                store.write_json("result.json", result)
                store.remove("fit.state")
        row = {"metric": result["metric"], "test": round(result["test"], 4), "loss": round(result["loss"], 4)}
        print_rows(
            [row], self.json, list(row), f"Weights and ledger are in {store.folder}.", {"folder": str(store.folder)}
        )


def _make_dataset(verb: Callable[..., Any], command: Any, default: str) -> None:
    from modicum.data import save

    ctx = command.context()
    recipe = recipe_of(command.recipe, command.data, command.loading)
    made = verb(command.data, command.method, command.keep, recipe=recipe, ctx=ctx, **command.loading)
    made = getattr(made, "dataset", made)
    out = Path(command.out or default)
    save(made, out)
    counts = made.class_counts().tolist() if made.info.task == "classification" else [len(made)]
    rows = [{"class": name, "samples": count} for name, count in zip(made.info.classes or ("all",), counts)]
    note = f"{len(made)} samples. {cost(ctx.ledger)} Written to {out}."
    print_rows(rows, command.json, ["class", "samples"], note, {"file": str(out), "samples": len(made)})
