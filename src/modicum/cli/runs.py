"""The commands about a run that there is: `resume`, `report`, `verify`."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from modicum.cli.common import Common, RecipeOptions, print_rows, run_store
from modicum.cli.comparing import print_frontier
from modicum.cli.filtering import Filter
from modicum.cli.forecasting import Forecast
from modicum.cli.learning import Pretrain
from modicum.cli.making import Distill
from modicum.cli.mixing import Mix, share_text
from modicum.cli.scoring import Score
from modicum.cli.selecting import Select
from modicum.errors import ModicumError
from modicum.training.recipe import Recipe

__all__ = ["Report", "Resume", "Verify"]


@dataclass(frozen=True)
class Resume:
    """Go on with an interrupted run of any command, or say that it is done.

    Args:
        run: Folder of the run.
        max_seconds: Stop then, with the best answer so far.
        json: Print the result as JSON.
    """

    run_folder: Positional[str]
    max_seconds: float | None = None
    json: bool = False

    def run(self) -> None:
        """Run the same command again in its folder."""
        _again(self.run_folder, self.json, self.max_seconds)


@dataclass(frozen=True)
class Report:
    """Make the page of a run anew.

    Args:
        run: Folder of the run.
        json: Print the result as JSON.
    """

    run_folder: Positional[str]
    json: bool = False

    def run(self) -> None:
        """Remove the page and let the command write it again; what is measured stays."""
        run_store(self.run_folder).remove("report.html")
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
        store = run_store(self.run_folder)
        rows = [{"file": d.name, "problem": d.problem} for d in store.verify()]
        good = f"{len(store.names())} files in {store.folder}, {len(rows)} damaged, missing or foreign."
        print_rows(rows, self.json, ["file", "problem"], good)
        if rows:
            raise ModicumError(
                f"{store.folder}: {', '.join(r['file'] for r in rows)} cannot be trusted; delete them and run the same "
                "command again: what is whole is kept, the rest is made anew"
            )


def _again(folder: str, as_json: bool, max_seconds: float | None) -> None:
    from modicum.verbs import compare

    saved = run_store(folder).read_json("run.json")
    if saved["command"] == "score":
        known = {name: saved[name] for name in ("data", "method", "label", "limit", "truth", "corrupt", "seed")}
        known |= {"curves": saved["curves"] or "none", "recipe": RecipeOptions(**saved["recipe"])}
        Score(**known, folder=folder, max_seconds=max_seconds, json=as_json).run()
        return
    if saved["command"] == "select":
        known = {
            name: saved[name]
            for name in ("data", "label", "limit", "keep", "table", "seed", "models", "out", "dropped")
        }
        known |= {"recipe": RecipeOptions(**saved["recipe"])} | ({} if saved["table"] else {"method": saved["method"]})
        Select(**known, folder=folder, max_seconds=max_seconds, json=as_json).run()
        return
    if saved["command"] == "pretrain":
        known = {name: saved[name] for name in ("data", "method", "label", "limit", "share", "seed")}
        Pretrain(**known, recipe=RecipeOptions(**saved["recipe"]), folder=folder, json=as_json).run()
        return
    if saved["command"] == "forecast":
        known = {
            name: saved[name]
            for name in ("what", "data", "label", "limit", "seed", "runs", "steps", "floor", "score", "angle")
        }
        known["trials"] = saved.get("trials", False)
        known |= {"keep": tuple(f"{keep:.12g}" for keep in saved["keep"]), "shares": tuple(saved["shares"])}
        Forecast(**known, recipe=RecipeOptions(**saved["recipe"]), folder=folder, json=as_json).run()
        return
    if saved["command"] == "filter":
        names = ("data", "limit", "ask", "keep", "precision", "level", "good", "encoder", "classifier", "calibration")
        known = {name: saved[name] for name in (*names, "batch", "seed", "out")} | {"label": saved["label"] or None}
        kind, _, judge = saved["judge"].partition(" ")
        if kind not in ("labels", "command"):
            raise ModicumError(f"{folder} was judged by a {saved['judge']}; call modicum.filter with it again")
        inputs = saved.get("inputs") or ()
        known |= {kind: judge, "inputs": (inputs,) if isinstance(inputs, str) else tuple(inputs)}
        Filter(**known, folder=folder, json=as_json).run()
        return
    if saved["command"] == "mix":
        known = {
            name: saved[name] for name in ("target", "keep", "deduplicate", "near", "by", "label", "limit", "seed")
        }
        inputs = saved.get("inputs") or ()
        known |= {"inputs": (inputs,) if isinstance(inputs, str) else tuple(inputs)}
        known |= {"sources": tuple(saved["sources"]), "out": saved["out"]}
        known["weights"] = saved["weights"] if isinstance(saved["weights"], str) else share_text(saved["weights"])
        Mix(**known, recipe=RecipeOptions(**saved["recipe"]), folder=folder, json=as_json).run()
        return
    if saved["command"] == "distill":
        names = ("data", "method", "keep", "label", "limit", "zca", "seed", "networks", "controls", "architectures")
        known = {name: saved[name] for name in names}
        options = RecipeOptions(**saved["recipe"])
        Distill(**known, recipe=options, out=folder, max_seconds=max_seconds, json=as_json).run()
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
    print_frontier(frontier, as_json)
