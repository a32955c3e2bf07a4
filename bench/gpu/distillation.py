"""The published tables of data set distillation: DC, DSA, DM, MTT and DATM at 1, 10 and 50 samples a class.

    python bench/gpu/distillation.py --data cifar10-train.parquet --label label --set cifar10 --device cuda
    python bench/gpu/distillation.py --data digits --set digits --per-class 1 --iterations 3 --networks 1 \
        --model "convnet(width=8)" --epochs 5                                           (toy size, on a CPU)

For every method and size: test accuracy of new networks trained by the set's own recipe beside the published figure,
random real samples by the same recipe, the seconds of making the set, and peak memory.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import write

import modicum
from modicum.context import Context
from modicum.dataset import Splits
from modicum.distillation import Whitening, random_real, train_and_test, whitened
from modicum.methods import make
from modicum.scores import Budget
from modicum.training.recipe import Recipe

PUBLISHED = {  # test accuracy in percent of the width-128 ConvNet
    "mnist": {
        "random": (64.9, 95.1, 97.9), "dc": (91.7, 97.4, 98.8), "dsa": (88.7, 97.8, 99.2), "dm": (89.7, 97.5, 98.6),
        "mtt": (91.4, 97.3, 98.5),
    },
    "cifar10": {
        "random": (14.4, 26.0, 43.4), "dc": (28.3, 44.9, 53.9), "dsa": (28.8, 52.1, 60.6), "dm": (26.0, 48.9, 63.0),
        "mtt": (46.3, 65.3, 71.6), "datm": (46.9, 66.8, 76.1),
    },
}  # fmt: skip
SIZES = (1, 10, 50)
TRAJECTORIES = ("mtt", "datm", "ftd", "tesla", "smooth-expert")


def main() -> int:
    """Make, train, test, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--label", default=None)
    parser.add_argument("--set", default="", help="mnist or cifar10: which published figures stand beside")
    parser.add_argument("--methods", nargs="+", default=["dc", "dsa", "dm", "mtt", "datm"], help="keys, with options")
    parser.add_argument("--per-class", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--model", default="convnet(width=128)")
    parser.add_argument("--iterations", type=int, default=None, help="instead of the published number")
    parser.add_argument("--epochs", type=float, default=None, help="of the evaluation, instead of the protocol's")
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--zca", type=float, default=0.1, help="for methods that match trajectories; 0 is off")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", default=None, help="folder that keeps the experts")
    parser.add_argument("--out", default="gpu_distillation", help="name of the result")
    options = parser.parse_args()
    plain = modicum.load(options.data, label=options.label)
    rows = []
    for text in options.methods:
        method = make(text)
        if options.iterations is not None:
            method = replace(method, iterations=options.iterations)
        white = method.card.key in TRAJECTORIES and options.zca > 0
        data, whitening = whitened(plain, options.zca) if white else (plain, None)
        for per_class in options.per_class:
            row = measure(method, data, plain, whitening, per_class, options)
            rows.append(row)
            print(row, flush=True)
    settings = {name: value for name, value in vars(options).items() if name not in ("out", "cache")}
    write(options.out, rows, settings=settings)
    return 0


def measure(
    method: Any, data: Splits, plain: Splits, whitening: Whitening | None, per_class: int, options: argparse.Namespace
) -> dict[str, Any]:
    """One method at one size."""
    cache = Path(options.cache) if options.cache else None
    ctx = Context(device=options.device, seed=options.seed, cache=cache, show=sys.stderr.isatty())
    recipe, budget = Recipe(options.model), Budget(per_class=per_class)
    started = time.perf_counter()
    measured = [need.measure(data, recipe, ctx) for need in method.needs()]
    measuring = time.perf_counter() - started
    made = method.distill(data, budget, recipe, ctx, *measured)
    seconds = time.perf_counter() - started
    made = replace(made, whitening=whitening)
    if options.epochs is not None and not made.recipe.rates:
        made = replace(made, recipe=replace(made.recipe, epochs=options.epochs, steps=None))
    found = train_and_test(made, plain.test, ctx, options.networks)
    subset = data.train[random_real(data.train, budget, options.seed)]
    random = train_and_test(replace(made, dataset=subset, teacher=None), plain.test, ctx, options.networks)
    key = method.card.key
    known = PUBLISHED.get(options.set, {})
    at = SIZES.index(per_class) if per_class in SIZES else None
    return {
        "method": made.method,
        "per_class": per_class,
        "accuracy": round(found.mean, 2),
        "std": round(found.std, 2),
        "published": known[key][at] if at is not None and key in known else None,
        "random": round(random.mean, 2),
        "random_published": known["random"][at] if at is not None and known else None,
        "seconds": round(seconds, 1),
        "measuring_seconds": round(measuring, 1),
        "seconds_an_iteration": round((seconds - measuring) / method.iterations, 4),
        "peak_mb": round(ctx.ledger.total().peak_bytes / 1e6),
    }


if __name__ == "__main__":
    sys.exit(main())
