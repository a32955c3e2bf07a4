"""The training loop against a bare hand-written one, and against a DataLoader.

    python bench/fit.py

MNIST (`--mnist`, a width-32 ConvNet): the same steps in a loop with nothing in it but PyTorch. Digits (an MLP): the loop
that most scripts have, a DataLoader over a TensorDataset. The weights of all are compared before any time is reported.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from harness import compare, write
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import modicum
from modicum.dataset import Dataset
from modicum.models import build
from modicum.training.order import permutation
from modicum.training.recipe import Recipe
from modicum.training.schedule import learning_rate


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """What a script would make."""
    return torch.optim.SGD(
        model.parameters(),
        recipe.lr,
        momentum=recipe.momentum,
        nesterov=True,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def bare(data: Dataset, x: Tensor, y: Tensor, recipe: Recipe) -> tuple[nn.Module, float]:
    """A hand-written loop over tensors in memory."""
    model = build(recipe.model, data, 0).train()
    optimizer = optimizer_of(model, recipe)
    steps, per_epoch = recipe.steps_for(len(x)), -(-len(x) // recipe.batch_size)
    started = time.perf_counter()
    for step in range(steps):
        if step % per_epoch == 0:
            order = permutation(len(x), 0, step // per_epoch)
        batch = order[(step % per_epoch) * recipe.batch_size :][: recipe.batch_size]
        optimizer.param_groups[0]["lr"] = learning_rate(recipe, step / steps)
        loss = F.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return model, time.perf_counter() - started


def plain_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """What most scripts have."""
    return torch.optim.SGD(
        model.parameters(), recipe.lr, momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay
    )


def loader(data: Dataset, x: Tensor, y: Tensor, recipe: Recipe) -> tuple[nn.Module, float]:
    """The usual loop over a DataLoader; the order is given, so that the answers can be compared."""
    model = build(recipe.model, data, 0).train()
    optimizer = plain_optimizer(model, recipe)
    steps, step, total = recipe.steps_for(len(x)), 0, 0.0
    started = time.perf_counter()
    for epoch in range(-(-steps * recipe.batch_size // len(x))):
        order = permutation(len(x), 0, epoch).tolist()
        for inputs, targets in DataLoader(TensorDataset(x, y), recipe.batch_size, sampler=order):
            if step == steps:
                break
            optimizer.param_groups[0]["lr"] = learning_rate(recipe, step / steps)
            loss = F.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            step += 1
    return model, time.perf_counter() - started


def ours(data: Dataset, recipe: Recipe) -> tuple[nn.Module, float]:
    """The whole of `modicum.fit`: building, standardizing and counting included."""
    started = time.perf_counter()
    done = modicum.fit(data, recipe)
    return done.model, time.perf_counter() - started


def distance(one: nn.Module, other: nn.Module) -> float:
    """Largest difference of two weights."""
    return max(float((a - b).detach().abs().max()) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def main() -> int:
    """Compare the answers, then the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", default=str(Path(__file__).parents[2] / "shared" / "data" / "mnist.npz"))
    parser.add_argument("--samples", type=int, default=6000, help="of MNIST, for one epoch")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    digits, small = modicum.load("digits").train, {"model": "mlp", "epochs": 20}
    cases = [
        ("digits", digits, Recipe(**small, batch_size=128, lr=0.1), loader, "DataLoader"),
        ("digits", digits, Recipe(**small, batch_size=32, lr=0.05), loader, "DataLoader"),
        ("digits", digits, Recipe(**small, batch_size=128, lr=0.1), bare, "bare loop"),
        ("digits", digits, Recipe(**small, batch_size=32, lr=0.05), bare, "bare loop"),
    ]
    if Path(options.mnist).is_file():
        mnist = modicum.load(options.mnist, limit=options.samples).train
        recipe = Recipe(model="convnet(width=32)", epochs=1, batch_size=64, lr=0.02)
        cases.append(("mnist", mnist, recipe, bare, "bare loop"))
    else:
        print(f"{options.mnist} is missing: MNIST is left out", file=sys.stderr)
    rows = []
    for name, data, recipe, peer, title in cases:
        x, y = data.prepare(data.inputs), data.labels
        gap = distance(ours(data, recipe)[0], peer(data, x, y, recipe)[0])
        if gap > 1e-5:
            print(f"the weights on {name} differ by {gap:.2g} from the {title}; no time is reported", file=sys.stderr)
            return 1
        times = compare(
            lambda d=data, r=recipe: ours(d, r)[1],  # type: ignore[misc]
            lambda d=data, a=x, b=y, r=recipe, p=peer: p(d, a, b, r)[1],  # type: ignore[misc]
            options.repeats,
        )
        rows.append(
            {
                "data": name,
                "model": recipe.model,
                "batch": recipe.batch_size,
                "samples": len(data),
                "peer": title,
                "largest_gap": gap,
                **times,
            }
        )
    write("fit", rows, what="One training run: modicum.fit against a hand-written loop")
    return 0


if __name__ == "__main__":
    sys.exit(main())
