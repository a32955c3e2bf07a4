"""One step of DC and of DM for all classes together, against the loop over classes; equal gradients first.

    python bench/distillation/matching.py [--threads N] [--repeats N]

The loop is what published code does: the samples of one class after those of another, gradients of all parameters, one
backward pass at the end. Real and synthetic samples are random numbers; the networks are the common ConvNet of width 32.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vmap

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import compare, seconds_of, write

from modicum.distillation import class_gradients, class_means, gradient_distance
from modicum.distillation.dc import PASS
from modicum.distillation.matching import LARGE
from modicum.models import features
from modicum.models.convnet import ConvNet

CLASSES = 10
SETTINGS = (("digits", 8, 64, 1), ("digits", 8, 64, 10), ("mnist", 28, 64, 1), ("mnist", 28, 64, 10))


def dc_together(network: nn.Module, real: Tensor, made: Tensor) -> Tensor:
    """The gradient at the synthetic samples, all classes in one pass."""
    names = torch.arange(CLASSES)[:, None]
    labels, own = names.expand(CLASSES, real.shape[1]), names.expand(CLASSES, made.shape[1])
    shares = torch.full(labels.shape, 1 / real.shape[1])
    alone = real[0].numel() > LARGE  # as `modicum.distillation.dc` does it
    rows = zip(real.split(1), labels.split(1), shares.split(1), strict=True) if alone else [(real, labels, shares)]
    parts = [class_gradients(network, x, y, w, least=2) for x, y, w in rows]
    target = [torch.cat(tensors) for tensors in zip(*parts, strict=True)]
    leaf = made.clone().requires_grad_()
    found = class_gradients(network, leaf, own, torch.full(own.shape, 1 / made.shape[1]), least=2, create_graph=True)
    (slope,) = torch.autograd.grad(vmap(gradient_distance)(found, target).sum(), leaf)
    return slope


def dc_loop(network: nn.Module, real: Tensor, made: Tensor) -> Tensor:
    """The same, class after class."""
    leaf, parameters, total = made.clone().requires_grad_(), list(network.parameters()), torch.zeros(())
    for c in range(CLASSES):
        loss = F.cross_entropy(network(real[c]), torch.full((real.shape[1],), c))
        target = torch.autograd.grad(loss, parameters)
        loss = F.cross_entropy(network(leaf[c]), torch.full((made.shape[1],), c))
        total = total + gradient_distance(torch.autograd.grad(loss, parameters, create_graph=True), target)
    (slope,) = torch.autograd.grad(total, leaf)
    return slope


def dm_together(network: nn.Module, real: Tensor, made: Tensor) -> Tensor:
    """The gradient at the synthetic samples, all classes in one pass."""
    labels = torch.arange(CLASSES)
    leaf = made.clone().requires_grad_()
    size = max(1, PASS // real[0, 0].numel())
    with torch.no_grad():
        rows = torch.cat([features(network, x) for x in real.flatten(0, 1).split(size)])
        means = class_means(rows, labels.repeat_interleave(real.shape[1]), CLASSES)
    found = class_means(features(network, leaf.flatten(0, 1)), labels.repeat_interleave(made.shape[1]), CLASSES)
    (slope,) = torch.autograd.grad((means - found).square().sum(), leaf)
    return slope


def dm_loop(network: nn.Module, real: Tensor, made: Tensor) -> Tensor:
    """The same, class after class."""
    leaf, total = made.clone().requires_grad_(), torch.zeros(())
    for c in range(CLASSES):
        mean = features(network, real[c]).detach().mean(0)
        total = total + (mean - features(network, leaf[c]).mean(0)).square().sum()
    (slope,) = torch.autograd.grad(total, leaf)
    return slope


STEPS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "dc": (dc_together, dc_loop),
    "dm": (dm_together, dm_loop),
}


def row(method: str, data: str, side: int, batch: int, per_class: int, repeats: int) -> dict[str, Any]:
    """A line of the result."""
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ConvNet((1, side, side), CLASSES, width=32)
    network.requires_grad_(method == "dc")  # published code of DM freezes the network
    real, made = (torch.randn(CLASSES, n, 1, side, side, generator=random) for n in (batch, per_class))
    together, loop = STEPS[method]
    one, two = together(network, real, made), loop(network, real, made)
    error = float((one - two).abs().max() / two.abs().max())
    where = {"method": method, "data": data, "batch_real": batch, "per_class": per_class, "error": f"{error:.1e}"}
    if error > 1e-4:
        return {**where, "answers": "differ: not compared"}

    def time_of(step: Callable[..., Tensor]) -> Callable[[], float]:
        return lambda: seconds_of(lambda: step(network, real, made))

    return {**where, **compare(time_of(together), time_of(loop), repeats)}


def main() -> int:
    """Compare gradients, then seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    rows = [row(method, *setting, o.repeats) for method in STEPS for setting in SETTINGS]
    write(
        "distillation_matching",
        rows,
        what="A matching step of DC and of DM for ten classes, together and class by class",
        settings={"threads": o.threads, "width": 32},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
