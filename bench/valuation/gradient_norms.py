"""Norms of per-sample gradients by layer against a backward pass for each sample, and against `torch.func.vmap(grad)`.

    python bench/valuation/gradient_norms.py [--device cuda]

The norms of all three are compared before any time is reported.
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
from torch.func import functional_call, grad, vmap

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import compare, seconds_of, write

from modicum.measurement.per_sample import gradient_norms
from modicum.models.convnet import ConvNet
from modicum.models.simple import MLP
from modicum.models.text import Bag, Transformer

Problem = tuple[nn.Module, Tensor]
MODELS: dict[str, Callable[[int], Problem]] = {
    "mlp, 784 inputs": lambda n: (MLP((784,), 10), torch.randn(n, 784)),
    "mlp(hidden=32), 64 inputs": lambda n: (MLP((64,), 10, hidden=32), torch.randn(n, 64)),
    "bag, 2,000 words, 64 tokens": lambda n: (Bag(2000, 64, 2), torch.randint(2000, (n, 64))),
    "convnet(width=16), 8 px": lambda n: (ConvNet((1, 8, 8), 10, width=16), torch.randn(n, 1, 8, 8)),
    "convnet(width=32), 28 px": lambda n: (ConvNet((1, 28, 28), 10, width=32), torch.randn(n, 1, 28, 28)),
    "transformer, 2,000 words, 64 tokens": lambda n: (Transformer(2000, 64, 2), torch.randint(2000, (n, 64))),
}


def by_loop(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """One backward pass for each sample."""
    parameters = list(model.parameters())
    norms = []
    for i in range(len(x)):
        found = torch.autograd.grad(F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), parameters)
        norms.append(torch.stack([g.square().sum() for g in found]).sum().sqrt())
    return torch.stack(norms)


def by_vmap(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """All gradients of 64 samples at a time."""
    point = {name: p.detach() for name, p in model.named_parameters()}

    def loss(at: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, at, (one[None],)), label[None])

    norms = []
    for a in range(0, len(x), 64):
        found = vmap(grad(loss), in_dims=(None, 0, 0))(point, x[a : a + 64], y[a : a + 64])
        norms.append(torch.stack([g.flatten(1).square().sum(1) for g in found.values()]).sum(0).sqrt())
    return torch.cat(norms)


def timed(function: Callable[..., Tensor], problem: tuple[nn.Module, Tensor, Tensor]) -> Callable[[], float]:
    """Seconds of a run, finished on the device."""

    def run() -> None:
        function(*problem)
        if problem[1].is_cuda:
            torch.cuda.synchronize()

    return lambda: seconds_of(run)


def main() -> int:
    """Compare the answers, then the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3, help="pairs")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    for name, make in MODELS.items():
        model, x = make(options.samples)
        model, x = model.to(options.device).eval(), x.to(options.device)
        y = torch.arange(len(x), device=options.device) % 2
        problem = (model, x, y)
        ours = gradient_norms(*problem)
        for label, other in (("loop", by_loop), ("vmap(grad)", by_vmap)):
            difference = float((other(*problem) / ours - 1).abs().max())
            if difference > 1e-3:
                print(f"{name}: the norms of {label} differ by {difference:.2g}; no time is reported", file=sys.stderr)
                return 1
            times = compare(timed(gradient_norms, problem), timed(other, problem), options.repeats)
            size = sum(p.numel() for p in model.parameters())
            rows.append({"model": name, "parameters": size, "peer": label, **times, "largest_difference": difference})
    suffix = "" if options.device == "cpu" else f"_{options.device}"
    write(
        f"valuation_gradient_norms{suffix}",
        rows,
        what=f"norms of the gradients of {options.samples} samples",
        device=torch.cuda.get_device_name() if options.device != "cpu" else "cpu",
        threads=options.threads,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
