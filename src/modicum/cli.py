"""The command line: one subcommand per verb, options generated from dataclasses.

Nothing heavy is imported before a command is known, so that help comes at once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

import tyro
from tyro.conf import Positional, subcommand

from modicum.errors import ModicumError
from modicum.training.recipe import Recipe

if TYPE_CHECKING:
    import pyarrow as pa

    from modicum.comparison.estimate import Estimate
    from modicum.comparison.frontier import Frontier
    from modicum.context import Context

__all__ = ["main"]


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


@dataclass(frozen=True)
class Methods:
    """What there is, what it saves, what it needs.

    Args:
        family: Only this family.
        json: Print as JSON.
    """

    family: Positional[str] = ""
    json: bool = False

    def run(self) -> None:
        """Print the table of methods."""
        from modicum.methods import FAMILIES, family_of, table

        if self.family and self.family not in FAMILIES:
            raise ModicumError(f"family {self.family!r} is unknown; expected one of {', '.join(FAMILIES)}")
        rows = [
            {
                "method": key,
                "family": family_of(kind),
                "what": kind.card.title,
                "saves": ", ".join(kind.card.saves),
                "needs": ", ".join(str(need) for need in kind().needs()),
                "paper": kind.card.paper,
            }
            for key, kind in table().items()
            if self.family in ("", family_of(kind))
        ]
        _print(rows, self.json, ["method", "family", "what", "saves", "needs"], "methods")


@dataclass(frozen=True)
class Compare(Common):
    """The main job: which way of spending less works on this data set, and what does it save?

    Args:
        data: A built-in name (digits, iris, wine, breast_cancer, diabetes), a file or a folder.
        methods: Keys, with options or without: el2n "dm(iterations=500)"; a good choice when left out.
        budgets: How much to keep: 10%, 500 or 10/class.
        seeds: Number of repetitions.
        target: Score on the validation split to reach; full data less the margin when left out.
        margin: How much less than full data is good enough.
        max_seconds: Stop then, with the best answer so far; the same command goes on later.
        out: Folder of the run.
        recipe: How to train; only what differs from what suits the data.
    """

    data: Positional[str]
    methods: tuple[str, ...] = ()
    budgets: tuple[str, ...] = ("10%", "30%", "50%")
    seeds: int = 5
    target: float | None = None
    margin: float = 0.005
    max_seconds: float | None = None
    out: str | None = None
    recipe: RecipeOptions = field(default_factory=RecipeOptions)  # type: ignore[valid-type]

    def run(self) -> None:
        """Compare, print the table and where the page is."""
        from modicum.comparison import DEFAULT_METHODS
        from modicum.verbs import compare

        frontier = compare(
            self.data,
            self.methods or DEFAULT_METHODS,
            self.budgets,
            self.seeds,
            _recipe(self.recipe, self.data, self.loading),
            target=self.target,
            margin=self.margin,
            max_seconds=self.max_seconds,
            ctx=self.context(),
            folder=self.out,
            announce=_announce,
            **self.loading,
        )
        _print_frontier(frontier, self.json)


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
        recipe = _recipe(self.recipe, self.data, self.loading)
        key = _key(os.path.abspath(self.data), spec(method), recipe, self.loading, self.seed, self.truth, self.corrupt)
        folder = Path(self.folder or home() / f"score-{_stem(self.data)}-{method.card.key}-{key}")
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
            announce=_announce,
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
            f"{scores.method}: a {scores.kind} in {scores.unit}; rank 0 is kept first. {_cost(scores.ledger)}\n"
            + (f"{scores.note[:1].upper()}{scores.note[1:]}.\n" if scores.note else "")
            + _how_sure(scores.stability, saved["detection"])
            + f"Table: {store.folder / 'scores.parquet'}{f' and {self.out}' if self.out else ''}\n"
            + f"Report: {store.folder / 'report.html'}"
        )
        more = {name: saved[name] for name in ("kind", "unit", "note", "stability", "detection", "curves")}
        more |= {"file": str(store.folder / "scores.parquet"), "report": str(store.folder / "report.html")}
        _print(rows, self.json, columns, note, more)


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

        _make_dataset(select, self, f"{_stem(self.data)}-kept.npz")


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

        _make_dataset(distill, self, f"{_stem(self.data)}-distilled.npz")


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
        recipe = _recipe(self.recipe, self.data, self.loading) or default_recipe(data.train)
        store = Store(self.out or home() / f"fit-{_stem(self.data)}-{_key(recipe, data.train.fingerprint, self.seed)}")
        with store.locked():
            ctx = self.context().with_(store=store)
            if store.has("result.json"):
                _say(f"Already done: {store.folder}")
                result = store.read_json("result.json")
            else:
                done = fit(data.train, recipe, ctx)
                test = done.evaluate(data.test)
                result = {"metric": test.metric, "test": test.score, "loss": test.loss, "ledger": done.ledger.to_json()}
                store.write_tensors("model.safetensors", done.model.state_dict())
                store.write_json("result.json", result)
                store.remove("fit.state")
        row = {"metric": result["metric"], "test": round(result["test"], 4), "loss": round(result["loss"], 4)}
        _print([row], self.json, list(row), f"Weights and ledger are in {store.folder}.", {"folder": str(store.folder)})


@dataclass(frozen=True)
class Resume:
    """Go on with an interrupted comparison or scoring, or say that it is done.

    Args:
        run: Folder of the run.
        max_seconds: Stop then, with the best answer so far.
        json: Print the result as JSON.
    """

    run_folder: Positional[str]
    max_seconds: float | None = None
    json: bool = False

    def run(self) -> None:
        """Run the same comparison again in its folder."""
        _again(self.run_folder, self.json, self.max_seconds)


@dataclass(frozen=True)
class Report:
    """Make the page of a comparison, or of scores, anew.

    Args:
        run: Folder of the run.
        json: Print the result as JSON.
    """

    run_folder: Positional[str]
    json: bool = False

    def run(self) -> None:
        """Remove the page and let the comparison write it again; what is measured stays."""
        _run_store(self.run_folder).remove("report.html")
        _again(self.run_folder, self.json, 0.0)


@dataclass(frozen=True)
class Verify:
    """Check every file of a run against its sha256.

    Args:
        run: Folder of the run.
        json: Print the result as JSON.
    """

    run_folder: Positional[str]
    json: bool = False

    def run(self) -> None:
        """Print what is damaged; exit 1 when something is."""
        store = _run_store(self.run_folder)
        rows = [{"file": d.name, "problem": d.problem} for d in store.verify()]
        good = f"{len(store.names())} files in {store.folder}, {len(rows)} damaged, missing or foreign."
        _print(rows, self.json, ["file", "problem"], good)
        if rows:
            raise ModicumError(
                f"{store.folder}: {', '.join(r['file'] for r in rows)} cannot be trusted; delete them and run the same "
                "command again: what is whole is kept, the rest is made anew"
            )


@dataclass(frozen=True)
class Evidence:
    """Run the claims of a method, or of all.

    Args:
        keys: Methods; all when left out.
        seeds: Number of repetitions of each claim.
        folder: Where the evidence is.
        out: JSON file to write.
        json: Print the result as JSON.
    """

    keys: Positional[tuple[str, ...]] = ()
    seeds: int = 3
    folder: str = "evidence"
    out: str | None = None
    json: bool = False

    def run(self) -> None:
        """Run and print; a claim that fails is shown as failing."""
        from modicum.evidence import run_evidence

        rows = run_evidence(Path(self.folder), self.keys, self.seeds, _say)
        if self.out:
            Path(self.out).write_text(json.dumps(rows, indent=1))
        claims = [claim for row in rows["methods"] for claim in row["claims"]]
        note = f"{sum(c['holds'] for c in claims)} of {len(claims)} claims hold here."
        if self.json:
            _print(claims, True, [], note, rows)
            return
        short = [
            {
                "method": row["method"],
                "claims": len(row["claims"]),
                "hold": sum(c["holds"] for c in row["claims"]),
                "seconds": row["seconds"],
            }
            for row in rows["methods"]
        ]
        _print(short, False, list(short[0]), note)


COMMANDS = (Methods, Compare, Score, Select, Distill, Fit, Resume, Report, Verify, Evidence)


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 when done, 1 for a `ModicumError` (one line), 2 for wrong usage."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if (sys.argv[1:] if argv is None else argv) == ["--version"]:
        from importlib.metadata import version

        print(f"modicum {version('modicum')}")
        return 0
    kinds: Any = tuple(Annotated[c, subcommand(c.__name__.lower(), prefix_name=False)] for c in COMMANDS)
    every: Any = Union[kinds]  # noqa: UP007  # of a tuple that is made here
    command: Any = tyro.cli(every, prog="modicum", description="Make models cost less to train.", args=argv)
    try:
        command.run()
    except ModicumError as error:
        print(f"modicum: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("modicum: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _recipe(options: Any, data: str, loading: dict[str, Any]) -> Recipe | None:
    given = {k: v for k, v in vars(options).items() if v is not None}
    if not given:
        return None
    from modicum.data import load
    from modicum.training.fit import default_recipe

    return dataclasses.replace(default_recipe(load(data, **loading).train), **given)


def _make_dataset(verb: Callable[..., Any], command: Any, default: str) -> None:
    from modicum.data import save

    ctx = command.context()
    recipe = _recipe(command.recipe, command.data, command.loading)
    made = verb(command.data, command.method, command.keep, recipe=recipe, ctx=ctx, **command.loading)
    out = Path(command.out or default)
    save(made, out)
    counts = made.class_counts().tolist() if made.info.task == "classification" else [len(made)]
    rows = [{"class": name, "samples": count} for name, count in zip(made.info.classes or ("all",), counts)]
    note = f"{len(made)} samples. {_cost(ctx.ledger)} Written to {out}."
    _print(rows, command.json, ["class", "samples"], note, {"file": str(out), "samples": len(made)})


def _run_store(folder: str) -> Any:
    from modicum.store import Store

    if not (Path(folder) / "run.json").is_file():
        raise ModicumError(f"{folder} is not a run: it has no run.json; expected a folder that a command printed")
    return Store(folder)


def _again(folder: str, as_json: bool, max_seconds: float | None) -> None:
    from modicum.verbs import compare

    saved = _run_store(folder).read_json("run.json")
    if saved["command"] == "score":
        known = {name: saved[name] for name in ("data", "method", "label", "limit", "truth", "corrupt", "seed")}
        known |= {"curves": saved["curves"] or "none", "recipe": RecipeOptions(**saved["recipe"])}
        Score(**known, folder=folder, max_seconds=max_seconds, json=as_json).run()
        return
    recipe = Recipe(**{**saved["recipe"], "augment": tuple(saved["recipe"]["augment"])})
    ctx = Common(seed=saved["seed"]).context()
    target, margin = saved["target"]
    frontier = compare(
        saved["data"],
        saved["methods"],
        saved["budgets"],
        saved["seeds"],
        recipe,
        target=target,
        margin=margin,
        max_seconds=max_seconds,
        limit=saved["limit"],
        label=saved["label"],
        ctx=ctx,
        folder=folder,
    )
    _print_frontier(frontier, as_json)


def _print_frontier(frontier: Frontier, as_json: bool) -> None:
    """The table of a comparison, the answer, and where the page is."""
    import numpy as np

    rows = []
    for row in frontier.rows():
        deviation = f" ± {100 * np.std(row.test, ddof=1):.1f}" if len(row.seeds) > 1 else ""
        score = (
            f"{100 * np.mean(row.test):.1f}{deviation}" if frontier.metric == "accuracy" else f"{np.mean(row.test):.3f}"
        )
        rows.append(
            {
                "method": row.method,
                "keep": row.budget,
                frontier.metric: score,
                "cost %": f"{100 * row.cost:.0f}",
                "choosing %": f"{100 * row.cost * row.choose['flops'] / max(1.0, row.choose['flops'] + row.train['flops']):.0f}",
                "seconds": f"{row.choose['seconds'] + row.train['seconds']:.1f}",
                "seeds": len(row.seeds),
            }
        )
    advice = frontier.recommendation
    state = (
        ""
        if frontier.finished
        else f" So far: {len(frontier.points)} of {frontier.planned} points; run again to go on."
    )
    note = f"\n{advice.sentence}\n{advice.detail}{state}\n" + "".join(f"Note: {n}\n" for n in frontier.notes)
    more = {
        "recommendation": {"sentence": advice.sentence, "detail": advice.detail, "verdict": advice.verdict},
        "finished": frontier.finished,
        "folder": str(frontier.folder),
        "report": str(frontier.report),
    }
    _print(rows, as_json, list(rows[0]) if rows else [], note + f"Report: {frontier.report}", more)


def _print(rows: list[dict[str, Any]], as_json: bool, columns: list[str], note: str, more: Any = None) -> None:
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


def _announce(estimate: Estimate) -> None:
    work = f" for {estimate.trainings:,} training{'s' * (estimate.trainings > 1)}" if estimate.trainings else ""
    _say(
        f"About {_duration(estimate.seconds)} and {estimate.peak_bytes / 1e6:.0f} MB{work} "
        "(--max-seconds stops earlier with the best answer so far)."
    )


def _how_sure(stability: float | None, found: Any) -> str:
    text = "" if stability is None else f"A repetition would agree at a correlation of about {stability:.2f}.\n"
    if found:
        text += (
            f"Of the {found['wrong']} most suspicious labels {100 * found['precision']:.1f} % are wrong "
            f"({100 * found['wrong'] / found['of']:.1f} % of all are); AUROC {found['auroc']:.3f}.\n"
        )
    return text


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _cost(ledger: Any) -> str:
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


def _stem(data: str) -> str:
    return Path(os.path.normpath(data)).stem.replace(":", "-")


def _key(*parts: Any) -> str:
    from modicum.spec import content_key

    return content_key(*parts, length=8)


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


if __name__ == "__main__":
    sys.exit(main())
