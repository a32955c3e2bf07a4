"""Training steps of a self-supervised learner put together from lightly's heads and losses, as its examples do.

    python lightly_learners.py LEARNER STEPS BATCH WIDTH HIDDEN DIMENSION QUEUE THREADS   (modicum's source on PYTHONPATH)

Prints JSON: seconds of each step, peak bytes, and the loss on fixed embeddings for comparing answers. The backbone is
modicum's, the views are given. lightly's package files import torchvision, of which there is no build for every CPU
version of PyTorch, for things that are not used here; empty stand-ins take its place.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import json
import sys
import time
import types
from pathlib import Path

import torch
from torch import Tensor, nn


def without_package_files() -> None:
    """Make lightly's modules importable one by one, without what their packages import first."""
    if importlib.util.find_spec("torchvision") is None:
        vision, ops = types.ModuleType("torchvision"), types.ModuleType("torchvision.ops")
        ops.StochasticDepth = nn.Identity  # type: ignore[attr-defined]
        vision.ops = ops  # type: ignore[attr-defined]
        sys.modules |= {"torchvision": vision, "torchvision.ops": ops}
    root = Path(str(importlib.util.find_spec("lightly").submodule_search_locations[0]))  # type: ignore[union-attr, index]
    for name in ("loss", "models", "models.modules"):
        package = types.ModuleType(f"lightly.{name}")
        package.__path__ = [str(root.joinpath(*name.split(".")))]
        sys.modules[f"lightly.{name}"] = package


without_package_files()
heads = importlib.import_module("lightly.models.modules.heads")
update_momentum = importlib.import_module("lightly.models.utils").update_momentum


def loss_of(learner: str, dimension: int, queue: int) -> nn.Module:
    """lightly's criterion."""

    def named(module: str, name: str) -> type[nn.Module]:
        found: type[nn.Module] = getattr(importlib.import_module(f"lightly.loss.{module}"), name)
        return found

    if learner == "simclr":
        return named("ntx_ent_loss", "NTXentLoss")(temperature=0.5)
    if learner == "moco-v2":
        return named("ntx_ent_loss", "NTXentLoss")(temperature=0.2, memory_bank_size=(queue, dimension))
    if learner == "barlow-twins":
        return named("barlow_twins_loss", "BarlowTwinsLoss")(lambda_param=0.0051)
    if learner == "vicreg":
        return named("vicreg_loss", "VICRegLoss")()
    return named("negative_cosine_similarity", "NegativeCosineSimilarity")()


def main() -> None:
    """Steps, their seconds, the peak, and the loss on fixed embeddings."""
    from modicum.ledger import peak_bytes
    from modicum.models import ConvNet

    learner, (steps, batch, width, hidden, dimension, queue, threads) = sys.argv[1], map(int, sys.argv[2:9])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = ConvNet((3, 32, 32), 1, width=width)
    network.head = nn.Identity()  # type: ignore[assignment]
    wide = network.features(torch.zeros(1, 3, 32, 32)).shape[1]
    loss = loss_of(learner, dimension, queue)
    head = {
        "simclr": lambda: heads.SimCLRProjectionHead(wide, hidden, dimension),
        "moco-v2": lambda: heads.MoCoProjectionHead(wide, hidden, dimension),
        "byol": lambda: heads.BYOLProjectionHead(wide, hidden, dimension),
        "simsiam": lambda: heads.SimSiamProjectionHead(wide, hidden, dimension),
        "barlow-twins": lambda: heads.BarlowTwinsProjectionHead(wide, hidden, dimension),
        "vicreg": lambda: heads.VICRegProjectionHead(wide, hidden, dimension),
    }[learner]()
    predictor = {
        "byol": lambda: heads.BYOLPredictionHead(dimension, hidden, dimension),
        "simsiam": lambda: heads.SimSiamPredictionHead(dimension, hidden // 4, dimension),
    }.get(learner, nn.Identity)()
    follows = learner in ("moco-v2", "byol")
    slow, slow_head = (copy.deepcopy(m).requires_grad_(False) for m in (network, head))

    def embed(x: Tensor) -> Tensor:
        out: Tensor = head(network.features(x))
        return out

    def slowly(x: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = slow_head(slow.features(x))
        return out

    def step(a: Tensor, b: Tensor) -> Tensor:
        if follows:
            update_momentum(network, slow, 0.99)
            update_momentum(head, slow_head, 0.99)
        if learner == "moco-v2":
            out: Tensor = loss(embed(a), slowly(b))
        elif learner == "byol":
            out = 0.5 * (loss(predictor(embed(a)), slowly(b)) + loss(predictor(embed(b)), slowly(a)))
        elif learner == "simsiam":
            z, w = embed(a), embed(b)
            out = 0.5 * (loss(predictor(z), w.detach()) + loss(predictor(w), z.detach()))
        else:
            out = loss(embed(a), embed(b))
        return out

    fixed = torch.randn(2, 64, dimension, generator=torch.Generator().manual_seed(1))
    answer = float(loss_of(learner, dimension, 0)(*fixed)) if learner != "moco-v2" else None
    parameters = [*network.parameters(), *head.parameters(), *predictor.parameters()]
    optimizer = torch.optim.AdamW(parameters, 1e-3, weight_decay=0.01, fused=True)
    views = torch.randn(2, batch, 3, 32, 32)
    seconds = []
    for _ in range(steps + 2):
        started = time.perf_counter()
        optimizer.zero_grad()
        step(*views).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": seconds[2:], "peak_bytes": peak_bytes(), "answer": answer}))


if __name__ == "__main__":
    main()
