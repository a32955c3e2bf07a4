"""Transport between networks trained on digits: with other seeds, other widths, and not trained at all."""

from __future__ import annotations

import time

import torch
from protocol import claim
from torch import Tensor, nn

import modicum
from modicum.analysis import transport
from modicum.context import Context
from modicum.evidence import Claim
from modicum.models import build, features
from modicum.training.evaluate import forward
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

__all__ = ["run"]


def run(seeds: int = 3) -> list[Claim]:
    """A trained network says more of another trained one than an untrained network does."""
    started = time.perf_counter()
    data = modicum.load("digits").train

    def seen(model: nn.Module) -> Tensor:
        return forward(model, data, Context(), function=features)

    rows = []
    for seed in range(seeds):
        small, large = (
            fit(data, Recipe(f"mlp(hidden={width}, layers=2)", epochs=20), Context(seed=seed + width)).model
            for width in (32, 48)
        )
        raw = build("mlp(hidden=32, layers=2)", data, seed=seed + 32)
        a, b, c = seen(small), seen(large), seen(raw)
        turned = b @ torch.linalg.qr(torch.randn(48, 48, generator=Context(seed=seed).generator("turn"))).Q
        pairs = [transport(x, y, data.labels) for x, y in ((a, b), (c, b), (b, turned))]
        rows.append([pairs[0].r2, pairs[1].r2, pairs[0].relative or 0.0, pairs[1].relative or 0.0, pairs[2].r2])
    seconds = time.perf_counter() - started
    trained, untrained, moved, moved_untrained, rotated = (list(column) for column in zip(*rows))
    return [
        claim(
            "R^2 from one trained network to another is above that from an untrained one",
            trained, sum(untrained) / seeds, all(t > u for t, u in zip(trained, untrained)), "R^2", seconds,
        ),
        claim(
            "The classifier of the other network keeps at least 95 % of its accuracy (baseline: from an untrained one)",
            moved, sum(moved_untrained) / seeds, all(m >= 0.95 for m in moved), "share", 0.0,
        ),
        claim(
            "A rotated copy is transported with R^2 above 0.98",
            rotated, 1.0, all(r > 0.98 for r in rotated), "R^2", 0.0,
        ),
    ]  # fmt: skip
