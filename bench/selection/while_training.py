"""Selection while training against plain training on MNIST: seconds of a fit and accuracy, over seeds.

    python bench/selection/while_training.py [--models "mlp(hidden=128)" "convnet(width=8)"] [--samples N] [--epochs E]

A perceptron on the whole training split, and a convolutional net on a part of it. Rows of models that are not asked for stay
in the results if they were measured in the same environment. With nothing skipped (`infobatch(ratio=0)`, `hard-samples(delta=1)` on fixed batches) the weights are those of plain training
to the bit; that is checked before any time is reported. `short` is plain training, shortened to as many visits: the
control.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness

import modicum
from modicum.context import Context
from modicum.dataset import Splits
from modicum.evidence import environment
from modicum.methods import make
from modicum.training.fit import Fit, fit
from modicum.training.recipe import Recipe

NAME = "selection_while_training"
Outcome = tuple[float, float, float]


class Case(NamedTuple):
    """Samples, epochs, learning rate, and how many seeds."""

    samples: int
    epochs: float
    lr: float
    seeds: int


CASES = {"mlp(hidden=128)": Case(54_000, 20, 0.05, 5), "convnet(width=8)": Case(6_000, 10, 0.02, 3)}
OTHERS = CASES["convnet(width=8)"]
METHODS = ("infobatch", "hard-samples", "hard-samples(delta=0.7)")


def trained(data: Splits, recipe: Recipe, method: str, seed: int) -> Fit:
    """A fit with the method, or a plain one."""
    ctx = Context(seed=seed)
    return fit(data.train, recipe, ctx, sampler=make(method).sampler(data, recipe, ctx) if method else None)


def outcome(data: Splits, recipe: Recipe, method: str, seed: int) -> Outcome:
    """Seconds, test accuracy in percent, and visits."""
    started = time.perf_counter()
    done = trained(data, recipe, method, seed)
    seconds = time.perf_counter() - started
    return seconds, 100 * done.evaluate(data.test).score, sum(done.history["samples"])


def same(data: Splits, recipe: Recipe, method: str) -> bool:
    """Whether the weights after one epoch are those of plain training."""
    short = replace(recipe, epochs=1, shuffle=not method.startswith("hard"))
    pair = [trained(data, short, name, 0).model.parameters() for name in (method, "")]
    return all(torch.equal(a, b) for a, b in zip(*pair, strict=True))


def rows_of(whole: Splits, model: str, case: Case) -> list[dict[str, Any]] | None:
    """Each method and its control beside plain training; None where the answers differ."""
    data = whole._replace(train=whole.train[: case.samples])
    recipe = Recipe(model=model, epochs=case.epochs, batch_size=64, lr=case.lr)
    for method in ("infobatch(ratio=0)", "hard-samples(delta=1.0, drop_last=False)"):
        if not same(data, recipe, method):
            print(f"{method} is not plain training with {model}; no time is reported", file=sys.stderr)
            return None
    plain: list[Outcome] = []
    found: dict[str, list[Outcome]] = {name: [] for method in METHODS for name in (method, f"short for {method}")}
    outcome(data, replace(recipe, epochs=1), "", 0)  # warms up
    for seed in range(case.seeds):
        plain.append(outcome(data, recipe, "", seed))
        for method in METHODS:
            found[method].append(outcome(data, recipe, method, seed))
            share = found[method][-1][2] / plain[-1][2]
            found[f"short for {method}"].append(outcome(data, replace(recipe, epochs=case.epochs * share), "", seed))
    rows = []
    for name, ours in found.items():
        lost = [b[1] - a[1] for a, b in zip(ours, plain)]
        times = harness.summary([a[0] for a in ours], [b[0] for b in plain])
        rows.append(
            {
                "model": model,
                "samples": len(data.train),
                "epochs": case.epochs,
                "method": name,
                "visits_saved_percent": round(100 * (1 - sum(a[2] for a in ours) / sum(b[2] for b in plain)), 1),
                "seconds_saved_percent": round(100 * (1 - 1 / times["ratio"]), 1),
                "accuracy": round(statistics.mean(a[1] for a in ours), 3),
                "accuracy_lost": round(statistics.mean(lost), 3),
                "standard_error": round(statistics.stdev(lost) / len(lost) ** 0.5, 3) if len(lost) > 1 else "",
                **times,
            }
        )
    return rows


def kept(models: list[str]) -> list[dict[str, Any]]:
    """The rows of other models that were measured in this environment before."""
    path = harness.RESULTS / f"{NAME}.json"
    before = json.loads(path.read_text()) if path.is_file() else {"environment": {}, "rows": []}
    alike = environment().items() <= before["environment"].items()
    return [row for row in before["rows"] if alike and row["model"] not in models]


def main() -> int:
    """Compare the answers, then seconds and accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", default=str(Path(__file__).resolve().parents[3] / "shared" / "data" / "mnist.npz"))
    parser.add_argument("--models", nargs="+", default=list(CASES))
    for name in ("samples", "epochs", "seeds"):
        parser.add_argument(f"--{name}", type=int, help="instead of those of the model")
    options = parser.parse_args()
    if not Path(options.mnist).is_file():
        print(f"{options.mnist} is missing: nothing to measure", file=sys.stderr)
        return 1
    asked = {name: getattr(options, name) for name in ("samples", "epochs", "seeds") if getattr(options, name)}
    whole, rows = modicum.load(options.mnist), kept(options.models)
    for model in options.models:
        new = rows_of(whole, model, CASES.get(model, OTHERS)._replace(**asked))
        if new is None:
            return 1
        rows += new
    harness.write(NAME, rows, what="One training run on MNIST", peer="plain training, all samples in every epoch")
    return 0


if __name__ == "__main__":
    sys.exit(main())
