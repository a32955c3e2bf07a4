"""The commands that make a synthetic data set or a model: `distill`, `fit`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from modicum.cli.common import (
    Common,
    RecipeOptions,
    announce,
    cost,
    print_rows,
    recipe_given,
    recipe_of,
    say,
    stem,
    work_key,
)
from modicum.cli.mixing import parse_shares

if TYPE_CHECKING:
    from modicum.dataset import Dataset
    from modicum.distillation.distilled import Distilled
    from modicum.training.recipe import Recipe

__all__ = ["Distill", "Fit"]

FILES = (".npz", ".parquet", ".csv", ".tsv", ".jsonl")


@dataclass(frozen=True)
class Distill(Common):
    """Make a small synthetic training set. Writes a folder that `modicum fit` trains on, and a page that judges it.

    Args:
        data: A built-in name, a file or a folder.
        method: Key of a distillation method, with options or without.
        keep: How much: 10/class, 100 or 1%.
        per_class: How many of each class, instead of keep.
        zca: Whiten the images first, with so much added to the variances: 0.1 is published, 0 is off.
        out: Folder of the set, its page, and the state of unfinished work. A file .npz or .parquet gets the samples
            alone, unjudged.
        export: Write the samples to this file .npz or .parquet, or folder of PNG, as well.
        networks: How many networks are trained for each accuracy; 0 leaves the set unjudged.
        controls: Measure random and k-center real samples, soft labels alone, all data, other architectures and robust
            scores beside it.
        architectures: Of the table of other architectures; what suits the data when left out.
        max_seconds: Stop then, with the set as it is; the same command goes on later.
        recipe: How models are trained; only what differs from what suits the data.
    """

    data: Positional[str]
    method: str = "dm"
    keep: str | None = None
    per_class: int | None = None
    zca: float = 0.0
    out: str | None = None
    export: str | None = None
    networks: int = 3
    controls: bool = True
    architectures: tuple[str, ...] | None = None
    max_seconds: float | None = None
    recipe: RecipeOptions = field(default_factory=RecipeOptions)  # type: ignore[valid-type]

    def run(self) -> None:
        """Distill, judge, write, print the accuracies."""
        from modicum.distillation.artefact import export, read_source
        from modicum.store import Store
        from modicum.verbs import distill

        keep = "10/class" if self.keep is None and self.per_class is None else self.keep
        recipe, ctx = recipe_of(self.recipe, self.data, self.loading), self.context()
        common: dict[str, Any] = {
            **{"per_class": self.per_class, "zca": self.zca, "recipe": recipe, "ctx": ctx},
            **{"max_seconds": self.max_seconds, "announce": announce, **self.loading},
        }
        if self.out is not None and Path(self.out).suffix.lower() in FILES:
            made, span = distill(self.data, self.method, keep, **common), self._span()
            files = [path for file in (self.out, self.export) if file for path in export(made, file, span)]
            note = f"{len(made)} samples. {cost(ctx.ledger)} Written to {', '.join(map(str, files))}."
            counts = made.dataset.class_counts().tolist()
            rows = [{"class": c, "samples": n} for c, n in zip(made.dataset.info.classes, counts)]
            more = {"file": str(files[0]), "samples": len(made)}
            print_rows(rows, self.json, ["class", "samples"], note, more)
            return
        folder = self._folder(keep, recipe)
        begun = Store(folder).has("run.json") if folder.exists() else False
        common |= {"networks": self.networks, "controls": self.controls, "architectures": self.architectures}
        common["announce"] = None if begun else announce
        made = distill(self.data, self.method, keep, folder=folder, **common)
        result, total = Store(folder).read_json("run.json")["result"], ctx.ledger.total()
        note = (
            f"{result['sentence']}\n{len(made)} samples by {made.method}. Making them cost {result['cost']['flops']:.3g} FLOPs "
            f"and {result['cost']['seconds']:.1f} s. With judging: {total.flops:.3g} FLOPs, {total.seconds:.1f} s.\n"
            f"Train on it: modicum fit {folder}\nReport: {folder / 'report.html'}"
        )
        more = {**result, "folder": str(folder), "report": str(folder / "report.html"), "samples": len(made)}
        if self.export:
            source = read_source(folder)
            files = export(made, self.export, source.span if source else None)
            note, more["file"] = f"{note}\nSamples alone: {files[0]}", str(files[0])
        rows = result["rows"]
        shown = rows if self.json else [{**row, "test": _spread(row)} for row in rows]
        columns = ["trained on", "network", "test"] if rows else []
        print_rows(shown, self.json, columns, ("Accuracy in percent.\n" if rows else "") + note, more)

    def _span(self) -> tuple[float, float]:
        from modicum.data import load
        from modicum.distillation.preview import natural_span

        return natural_span(load(self.data, **self.loading).train)

    def _folder(self, keep: str | None, recipe: Any) -> Path:
        from modicum.context import home
        from modicum.methods import make, spec

        method = make(self.method)
        parts = (spec(method), keep, self.per_class, self.zca, recipe, self.loading, self.seed)
        key = work_key(os.path.abspath(self.data), *parts)
        return Path(self.out or home() / f"distill-{stem(self.data)}-{method.card.key}-{key}")


@dataclass(frozen=True)
class Fit(Common):
    """Train a model on the training split, evaluate it on the test split.

    Args:
        data: A built-in name, a file or a folder; or the folder of a distilled set, which is trained on by its own recipe.
        test: Evaluate on the test split of these data instead; a distilled set knows the data that it was made from.
        method: Which samples are visited when: a method that selects while training, such as infobatch or hard-samples.
        mixture: Share of the visits of each source of a mixture, such as web=3,books=1; every sample once an epoch when
            left out.
        out: Folder for the weights and the ledger; running again continues there.
        recipe: How; only what differs from what suits the data, or from the recipe of a distilled set.
    """

    data: Positional[str]
    test: str | None = None
    method: str | None = None
    mixture: str | None = None
    out: str | None = None
    recipe: RecipeOptions = field(default_factory=RecipeOptions)  # type: ignore[valid-type]

    def run(self) -> None:
        """Train, evaluate, write."""
        from modicum.context import home
        from modicum.ledger import Ledger
        from modicum.methods import make, spec
        from modicum.store import Store
        from modicum.verbs import fit

        what, dataset, recipe, test = self._prepared()
        shares = None if self.mixture is None else parse_shares(self.mixture)
        method = None if self.method is None else spec(make(self.method))
        how = [part for part in (shares, method) if part]
        key = work_key(recipe, dataset.fingerprint, test.fingerprint, self.seed, *how)
        store = Store(self.out or home() / f"fit-{stem(self.data)}-{key}")
        with store.locked():
            ctx = self.context().with_(store=store)
            if store.has("result.json"):
                say(f"Already done: {store.folder}")
                result = store.read_json("result.json")
            else:
                done = fit(what, recipe, ctx, method=method, mixture=shares)
                seen = done.evaluate(test)
                result = {"metric": seen.metric, "test": seen.score, "loss": seen.loss, "ledger": done.ledger.to_json()}
                store.write_tensors("model.safetensors", done.model.state_dict())
                store.write_json("result.json", result)
                store.remove("fit.state")
        row = {"metric": result["metric"], "test": round(result["test"], 4), "loss": round(result["loss"], 4)}
        ledger = Ledger.from_json(result["ledger"])
        epochs, visited = ledger.epochs(), ledger.total("train").samples
        told = (
            f"Epochs elapsed: {', '.join(f'{name} {count:.2f}' for name, count in epochs.items())}.\n" if epochs else ""
        )
        if method is not None:
            whole = recipe.visits_for(len(dataset))
            told += (
                f"{method} trained on {visited} samples, {visited / whole:.0%} of the visits of the plain schedule.\n"
            )
        note = f"{told}{cost(ledger)} Weights and ledger are in {store.folder}."
        more = {"folder": str(store.folder), "epochs": epochs, "samples": visited, "flops": ledger.total().flops}
        print_rows([row], self.json, list(row), note, more)

    def _prepared(self) -> tuple[Any, Dataset, Recipe, Dataset]:
        """What is trained on, its samples, how, and what is tested on."""
        from modicum.data import load
        from modicum.distillation.artefact import is_artefact, load_distilled
        from modicum.training.fit import default_recipe

        if is_artefact(self.data):
            made = load_distilled(self.data)
            return made, made.dataset, replace(made.recipe, **recipe_given(self.recipe)), self._test_of(made)
        data = load(self.data, **self.loading)
        recipe = recipe_of(self.recipe, self.data, self.loading) or default_recipe(data.train)
        test = data.test if self.test is None else load(self.test, **self.loading).test
        return data, data.train, recipe, _as_trained(test, data.train)

    def _test_of(self, made: Distilled) -> Dataset:
        from modicum.data import load
        from modicum.distillation.artefact import read_source
        from modicum.errors import ModicumError

        name, loading, source = self.test, self.loading, read_source(self.data)
        if name is None:
            if source is None or not source.data:
                raise ModicumError(f"{self.data} does not say what it was distilled from; give --test DATA")
            name, loading = source.data, {"label": self.label or source.label, "limit": source.limit}
        return made.prepared(_as_trained(load(name, **loading).test, made.dataset, made.whitening))


def _as_trained(test: Dataset, trained: Dataset, whitening: Any = None) -> Dataset:
    """Test samples standardized as those that are trained on.

    Raises:
        DataError: They have other classes, or another shape.
    """
    from modicum.errors import DataError

    if test.info.classes != trained.info.classes or test.inputs.shape[1:] != trained.inputs.shape[1:]:
        told = [f"{tuple(d.inputs.shape[1:])} of the classes {', '.join(d.info.classes)}" for d in (test, trained)]
        raise DataError(f"test samples are {told[0]}, but the model is trained on {told[1]}")
    if test.info.vocabulary != trained.info.vocabulary:
        raise DataError(
            "test texts have another vocabulary than those that the model is trained on; load them together"
        )
    own = test.info if whitening is not None else trained.info
    return test.replace(info=replace(test.info, mean=own.mean, std=own.std))


def _spread(row: dict[str, Any]) -> str:
    return f"{row['test']:.1f}" + (f" ± {row['std']:.1f}" if row["networks"] > 1 else "")
