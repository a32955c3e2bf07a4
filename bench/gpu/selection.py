"""Accuracy against the share kept on all of CIFAR-10 with ResNet-18: every selection at equal steps, beside the controls.

    python bench/gpu/selection.py --data cifar10-train.parquet --label label --device cuda
    python bench/gpu/selection.py --data digits --model "mlp(hidden=16)" --epochs 2 --seeds 2 --keep 20% \
        --augment --precision float32 --methods margin moderate                            (toy size, on a CPU)

The recipe is the one that the table of DeepCore was made with (SGD with Nesterov momentum, rate 0.1 along a cosine, weight decay
5e-4, batches of 128, crops and flips), for fewer epochs. It is one `modicum compare`, so that running it again with the same
folder goes on.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import write

import modicum
from modicum.comparison.recommend import gap
from modicum.context import Context
from modicum.training.recipe import Recipe

METHODS = (
    *("el2n(runs=3)", "grand(runs=3)", "forgetting(runs=1)", "margin", "dataset-cartography", "dyn-unc"),
    *(
        "ccs",
        "ccs(score='el2n(runs=3)')",
        "d2-pruning(score='forgetting(runs=1)')",
        "moderate",
        "auto(score='el2n(runs=3)')",
    ),
    *("herding", "k-center-greedy", "facility-location", "graph-cut", "craig", "gradmatch", "glister", "cal", "s2l"),
    *("infobatch", "hard-samples", "adaptive-selection"),
)


def main() -> int:
    """Compare and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--label", default=None)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="keys, with options")
    parser.add_argument("--keep", nargs="+", default=["10%", "30%", "50%", "70%"])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--epochs", type=float, default=30)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--augment", nargs="*", default=["crop", "flip"])
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--max-seconds", type=float, default=None, help="stop then, with the points that are done")
    parser.add_argument("--folder", default=None, help="of the run, to go on with it")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", default="gpu_selection", help="name of the result")
    options = parser.parse_args()
    recipe = Recipe(
        options.model,
        epochs=options.epochs,
        batch_size=128,
        lr=options.lr,
        weight_decay=5e-4,
        augment=tuple(options.augment),
        precision=options.precision,
        channels_last=options.model.startswith("resnet"),
    )
    folder = Path(options.folder or tempfile.mkdtemp())
    found = modicum.compare(
        options.data,
        options.methods,
        options.keep,
        options.seeds,
        recipe,
        max_seconds=options.max_seconds,
        ctx=Context(device=options.device, cache=folder / "cache", show=sys.stderr.isatty()),
        folder=folder / "run",
        label=options.label,
    )
    rows, known = [], {(row.method, row.budget): row for row in found.rows()}
    for row in known.values():
        line = {"method": row.method, "keep": row.budget, "seeds": len(row.seeds)}
        line |= {"test": round(100 * statistics.mean(row.test), 2), "cost": round(row.cost, 3)}
        rival = known.get(("random" if row.budget != "100%" else "full", row.budget))
        if rival is not None and rival is not row:
            against = gap(row, rival, "test")
            line |= {"above": rival.method, "points": round(100 * against.mean, 2), "p": round(against.p, 4)}
        rows.append(line)
    settings = {name: value for name, value in vars(options).items() if name not in ("out", "folder")}
    write(options.out, rows, settings=settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
