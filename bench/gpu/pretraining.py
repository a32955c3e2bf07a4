"""Learning without labels at the scale of the papers: CIFAR-10, ResNet-18; what time does one branch save?

    python bench/gpu/pretraining.py --data cifar10-train.parquet --device cuda --epochs 200
    python bench/gpu/pretraining.py --data digits --model "convnet(width=8)" --epochs 1        (toy size, on a CPU)

Every learner gets the same epochs, batches, optimizer and backbone; reported are k-NN and linear accuracy on the test
images, seconds, images a second and FLOPs, and for each the seconds beside those of MoCo-v2.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import write

import modicum
from modicum.context import Context
from modicum.pretraining import pretrain
from modicum.pretraining.probes import knn_probe, linear_probe
from modicum.training.evaluate import forward
from modicum.training.recipe import Recipe

METHODS = ("moco-v2", "sqrtkl", "npid", "simclr", "byol")


def main() -> int:
    """Learn, probe, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--label", default=None)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--epochs", type=float, default=200)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", default="gpu_pretraining", help="name of the result")
    options = parser.parse_args()
    data = modicum.load(options.data, label=options.label, limit=options.limit)
    recipe = Recipe(
        options.model,
        epochs=options.epochs,
        batch_size=options.batch_size,
        optimizer="adamw",
        lr=options.lr,
        weight_decay=0.01,
        precision=options.precision,
        channels_last=options.device == "cuda",
    )
    rows = []
    for method in options.methods:
        for seed in range(options.seeds):
            ctx = Context(device=options.device, seed=seed, show=sys.stderr.isatty())
            done = pretrain(data, method, recipe, ctx)
            train, test = (forward(done.encoder, part, ctx) for part in (data.train, data.test))
            train_labels, test_labels = data.train.labels, data.test.labels
            total = done.ledger.total()
            rows.append(
                {
                    "method": method,
                    "seed": seed,
                    "knn": round(float(knn_probe(train, train_labels, test, test_labels)), 4),
                    "linear": round(float(linear_probe(train, train_labels, test, test_labels)), 4),
                    "seconds": round(total.seconds, 1),
                    "images_per_second": round(total.samples / total.seconds),
                    "flops": total.flops,
                }
            )
            print(rows[-1], flush=True)
    reference = [row["seconds"] for row in rows if row["method"] == "moco-v2"]
    for row in rows:
        row["seconds_over_moco_v2"] = (
            round(row["seconds"] / (sum(reference) / len(reference)), 3) if reference else None
        )
    write(options.out, rows, settings={k: v for k, v in vars(options).items() if k != "out"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
