"""What does a model lose when samples go? Writes docs/keeping.md and docs/results/keep-*.json.

    python docs/keeping.py [SET ...]

Every selection and every score, at several shares kept, each trained for the share of the optimizer steps, over five seeds,
beside random and stratified subsets and all data for as many steps. The work is one `modicum compare` run for each set, so
that running it again goes on. The files of `../shared/data` are read where they are.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import modicum
from modicum.comparison.frontier import Row
from modicum.comparison.recommend import gap
from modicum.context import Context
from modicum.evidence import environment
from modicum.methods import find
from modicum.training.recipe import Recipe

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared" / "data"
RUNS = Path(os.environ.get("MODICUM_HOME", HERE.parent / "runs"))
SEEDS = 5
SETS: dict[str, tuple[str, str, dict[str, Any], Recipe, tuple[str, ...]]] = {
    "mnist": (
        "MNIST, 10,000 training images, a multilayer perceptron",
        "mnist.npz",
        {"limit": 10_000},
        Recipe(model="mlp(hidden=128, layers=2)", epochs=10, batch_size=64, lr=0.05),
        ("5%", "10%", "30%", "50%", "70%"),
    ),
    "cifar10": (
        "CIFAR-10, 3,000 training images, a ConvNet of width 16",
        "cifar10-train.parquet",
        {"limit": 3_000, "label": "label"},
        Recipe(model="convnet(width=16)", epochs=8, batch_size=64, lr=0.02, weight_decay=5e-4),
        ("10%", "30%"),
    ),
}
SCORES = (
    *("el2n(runs=3)", "grand(runs=3)", "forgetting(runs=1)", "aum", "margin", "entropy", "least-confidence"),
    *("dataset-cartography", "dyn-unc(window=3)"),
    *("ssp", "supervised-prototypes", "knn-shapley"),
)
RULES = (
    *("ranked(score='el2n(runs=3)', order='easiest')", "ranked(score='el2n(runs=3)', order='middle')"),
    *(
        "moderate",
        "ccs",
        "ccs(beta='negative')",
        "ccs(score='el2n(runs=3)')",
        "d2-pruning(score='forgetting(runs=1)')",
        "auto(score='el2n(runs=3)')",
    ),
)
CORESETS = (
    *("herding", "k-center-greedy", "facility-location", "graph-cut", "log-determinant"),
    *("craig", "craig(part='inputs')", "gradmatch", "glister", "cal", "deepfool(classes=3)", "s2l", "support-vectors"),
)
WHILE = ("infobatch", "hard-samples", "dynamic-reweighting", "adaptive-selection(every=2)")
CONTROLS = ("random", "stratified", "short")


def run(name: str) -> dict[str, Any]:
    """One set, as plain values."""
    title, file, options, recipe, budgets = SETS[name]
    ctx = Context(cache=RUNS / "cache")
    folder = RUNS / f"keep-{name}"
    methods = [*SCORES, *RULES, *CORESETS, *WHILE]
    found = modicum.compare(SHARED / file, methods, budgets, SEEDS, recipe, ctx=ctx, folder=folder, **options)
    rows = found.rows()
    by_name = {(row.method, row.budget): row for row in rows}
    answer = []
    for row in rows:
        line: dict[str, Any] = {
            "method": row.method,
            "budget": row.budget,
            "keep": row.keep,
            "test": statistics.mean(row.test),
            "deviation": statistics.stdev(row.test) if len(row.test) > 1 else 0.0,
            "seeds": len(row.seeds),
            "cost": row.cost,
            "choose": row.choose["flops"] / max(1.0, row.choose["flops"] + row.train["flops"]),
            "seconds": row.train["seconds"],
        }
        for control in CONTROLS if row.budget != "100%" else ("full",):
            other = by_name.get((control, row.budget))
            if other is not None and other is not row:
                line[control] = _gap(row, other)
        answer.append(line)
    return {
        "title": title,
        "recipe": str(recipe),
        "environment": environment(),
        "rows": answer,
    }


def _gap(ours: Row, theirs: Row) -> list[float]:
    found = gap(ours, theirs, "test")
    return [found.mean, *found.interval]


def page() -> str:
    """docs/keeping.md from the stored answers."""
    parts = [
        "# What does a model lose when samples go?",
        "",
        "Written by `python docs/keeping.py`. Every number is the test accuracy in percent, mean over five seeds (of choosing and of "
        "training), of models trained on the kept share for that share of the optimizer steps. A number is **bold** where it "
        "is surely above random subsets of the same size and *slanted* where it is surely below (95 % interval over seeds and "
        "test samples, `modicum.comparison.recommend.gap`); of twenty cells where there is no difference one is marked by chance. "
        "*Short* is all data for as many steps: what the same training time buys without choosing. *Cost* is the FLOPs of choosing "
        "and training with 30 % kept over those of training once on all data; a choice that is used for several trainings is paid "
        "once. More is in `docs/results/keep-*.json`. Where the papers average more runs, the text of the method says fewer; `memorization` is not "
        "here, as it trains forty models for one choice.",
    ]
    for name in SETS:
        path = HERE / "results" / f"keep-{name}.json"
        if path.is_file():
            parts += section(json.loads(path.read_text()))
    return "\n".join(parts) + "\n"


def section(answer: dict[str, Any]) -> list[str]:
    """The tables of one set and what they say."""
    rows = answer["rows"]
    full = next(row for row in rows if row["method"] == "full")
    budgets = list(dict.fromkeys(row["budget"] for row in rows if row["budget"] != "100%"))
    cells: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["budget"] != "100%":
            cells.setdefault(row["method"], {})[row["budget"]] = row
    parts = [
        "",
        f"## {answer['title']}",
        "",
        f"All data: {100 * full['test']:.1f} ± {100 * full['deviation']:.1f}.",
        "",
    ]
    parts += statements(cells, budgets)
    parts += ["", "| method | " + " | ".join(budgets) + " | cost |", "| --- |" + " --- |" * (len(budgets) + 1)]
    for method, kept in cells.items():
        marks = [cell(kept.get(budget), method) for budget in budgets]
        marks.append(f"{100 * kept['30%']['cost']:.0f} %")
        parts.append(
            f"| {'*' if method in CONTROLS else ''}`{method}`{'*' if method in CONTROLS else ''} | {' | '.join(marks)} |"
        )
    whole = [row for row in rows if row["budget"] == "100%" and row["method"] != "full"]
    if whole:
        parts += ["", "Selection while training, on all data:", ""]
        parts += [
            "| method | visits | test | difference to all data (95 % interval) | FLOPs |",
            "| --- |" + " --- |" * 4,
        ]
        for row in whole:
            mean, low, high = row["full"]
            parts.append(
                f"| `{row['method']}` | {100 * row['keep']:.0f} % | {100 * row['test']:.1f} ± {100 * row['deviation']:.1f} | "
                f"{100 * mean:+.2f} ({100 * low:+.2f} to {100 * high:+.2f}) | {100 * row['cost']:.0f} % |"
            )
    where = answer["environment"]
    parts += [
        "",
        f"On {where['cores']} cores, torch {where['torch']}; `{answer['recipe']}`.",
    ]
    return parts


def cell(row: dict[str, Any] | None, method: str) -> str:
    """A number, marked where it surely differs from random."""
    if row is None:
        return ""
    text = f"{100 * row['test']:.1f} ± {100 * row['deviation']:.1f}"
    if "random" not in row:
        return text
    _, low, high = row["random"]
    return f"**{text}**" if low > 0 else f"*{text}*" if high < 0 else text


def statements(cells: dict[str, dict[str, Any]], budgets: list[str]) -> list[str]:
    """For each share, which methods surely beat random subsets, which surely beat stratified ones, and which the short schedule."""
    lines = []
    methods = [m for m in cells if m not in CONTROLS]
    for budget in budgets:
        known = {m: cells[m][budget] for m in methods if budget in cells[m]}
        sure = {
            c: sorted((m for m in known if c in known[m] and known[m][c][1] > 0), key=lambda m: -known[m]["test"])
            for c in CONTROLS
        }
        below = sum(1 for m in known if known[m]["random"][2] < 0)
        best = ", ".join(f"`{m}` ({100 * known[m]['random'][0]:+.1f})" for m in sure["random"][:4]) or "none"
        lines.append(
            f"- {budget}: {len(sure['random'])} of {len(known)} surely beat random ({best}{', ...' if len(sure['random']) > 4 else ''}), "
            f"{len(sure['stratified'])} surely beat stratified, {len(sure['short'])} surely beat all data for as many steps; {below} are surely below random."
        )
    return lines


def main(names: list[str]) -> None:
    """Run the named sets, or all, and write the page."""
    for method in (*SCORES, *RULES, *CORESETS, *WHILE):
        find(method.partition("(")[0])
    for name in names or SETS:
        answer = run(name)
        (HERE / "results" / f"keep-{name}.json").write_text(json.dumps(answer, indent=1, ensure_ascii=False) + "\n")
        print(name, flush=True)
    (HERE / "keeping.md").write_text(page())


if __name__ == "__main__":
    main(sys.argv[1:])
