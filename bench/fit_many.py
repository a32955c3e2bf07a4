"""Many small models on digits at once (`fit_many`) against the same models one after another (`fit`).

    python bench/fit_many.py

Every model has its own seed and its own random subset of four fifths of the training split. The weights of all models
are compared before any time is reported: after one epoch every one of them, at the end the median model. (Rounding can
put a ReLU on the other side of zero, from where on two runs of the same training part; in five epochs that befalls one
or two models of 64.)
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import torch
from harness import compare, seconds_of, write

import modicum
from modicum.context import Context, generator
from modicum.dataset import Dataset
from modicum.training.fit import fit
from modicum.training.many import fit_many
from modicum.training.recipe import Recipe


def differences(data: Dataset, recipe: Recipe, subsets: list[torch.Tensor]) -> list[float]:
    """Per model the largest difference of any weight between the two ways, in rising order."""
    together = fit_many(data, recipe, subsets=subsets)
    found = []
    for seed, (at, ours) in enumerate(zip(subsets, together)):
        theirs = fit(data[at], recipe, Context(seed=seed))
        pairs = zip(ours.model.parameters(), theirs.model.parameters())
        found.append(max(float((a - b).detach().abs().max()) for a, b in pairs))
    return sorted(found)


def one_by_one(data: Dataset, recipe: Recipe, subsets: list[torch.Tensor]) -> None:
    """Train all models, one after another."""
    for seed, at in enumerate(subsets):
        fit(data[at], recipe, Context(seed=seed))


def main() -> int:
    """Compare the answers, then the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["mlp(hidden=32)", "mlp(hidden=64, layers=1)", "mlp(hidden=64)"])
    parser.add_argument("--count", type=int, default=64, help="models at once")
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = modicum.load("digits").train
    size = len(data) * 4 // 5
    subsets = [torch.randperm(len(data), generator=generator(0, "bench", i))[:size] for i in range(options.count)]
    rows = []
    for model in options.models:
        recipe = Recipe(model=model, epochs=options.epochs, batch_size=options.batch_size, lr=0.05)
        first = differences(data, replace(recipe, epochs=1), subsets)[-1]
        last = differences(data, recipe, subsets)[len(subsets) // 2]
        if max(first, last) > 1e-5:
            print(f"{model}: the weights differ by {max(first, last)}; no time is reported", file=sys.stderr)
            return 1
        times = compare(
            lambda r=recipe: seconds_of(lambda: fit_many(data, r, subsets=subsets)),  # type: ignore[misc]
            lambda r=recipe: seconds_of(lambda: one_by_one(data, r, subsets)),  # type: ignore[misc]
            options.repeats,
        )
        rows.append(
            {
                "model": model,
                "count": options.count,
                **times,
                "largest_after_an_epoch": first,
                "median_at_the_end": last,
            }
        )
    write(
        "fit_many",
        rows,
        what=f"{options.count} models on digits, {options.epochs:g} epochs, batches of {options.batch_size}",
        peer="fit, one after another",
        threads=options.threads,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
