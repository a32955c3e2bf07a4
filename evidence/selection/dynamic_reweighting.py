"""Dynamic reweighting in the paper's own setting, linear regression on nine small samples for each large one, and on a
language model of characters; steps to a given error, and the loss after equal steps."""

from __future__ import annotations

import functools
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from protocol import claim
from torch import Tensor, nn

from modicum.context import generator
from modicum.evidence import Claim
from modicum.selection import DynamicLoss, dynamic_weights

SHARED = Path(__file__).resolve().parents[1].parent.parent / "shared" / "data"
DIMENSION, BATCH, MOST = 20, 32, 4000
RATES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.2)
CONTEXT, LENGTH, STEPS = 8, 32, 1200


def steps_to(strategy: str, rate: float, seed: int) -> int:
    """Steps of SGD until the squared error of the parameters is less than 1e-2; noiseless, temperature 0.5."""
    draw = generator(seed, "regression")
    x = torch.randn(2000, DIMENSION, generator=draw)
    x[:1800] *= 0.1
    truth = torch.randn(DIMENSION, generator=draw)
    y, theta = x @ truth, torch.zeros(DIMENSION)
    for step in range(MOST):
        part = torch.randint(len(x), (BATCH,), generator=draw)
        residual = x[part] @ theta - y[part]
        if not bool(residual.isfinite().all()) or float(residual.abs().max()) > 1e6:
            return MOST  # diverged
        weights = dynamic_weights(residual**2, strategy, temperature=0.5)
        theta = theta - rate * 2 * (weights * residual) @ x[part]
        if float(((theta - truth) ** 2).mean()) < 1e-2:
            return step + 1
    return MOST


@functools.cache
def characters() -> tuple[Tensor, int]:
    """Numbers of the characters of a text of a megabyte, and how many different ones there are."""
    text = (SHARED / "tinyshakespeare.txt").read_text()
    letters = {c: i for i, c in enumerate(sorted(set(text)))}
    return torch.tensor([letters[c] for c in text]), len(letters)


def character_loss(strategy: str, seed: int) -> float:
    """Validation loss in nats of a perceptron that reads eight characters, after equal steps."""
    stream, letters = characters()
    edge = len(stream) * 9 // 10
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        embed, head = nn.Embedding(letters, 16), nn.Linear(128, letters)
        model = nn.Sequential(embed, nn.Flatten(), nn.Linear(16 * CONTEXT, 128), nn.ReLU(), head)
    draw, criterion = generator(seed, "characters"), DynamicLoss(strategy, warmup=STEPS // 20)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)

    def losses(starts: Tensor) -> Tensor:
        windows = stream[starts[:, None] + torch.arange(CONTEXT + LENGTH)].unfold(1, CONTEXT + 1, 1)
        logits = model(windows[..., :-1].reshape(-1, CONTEXT))
        return F.cross_entropy(logits, windows[..., -1].flatten(), reduction="none").view(len(starts), -1).mean(1)

    for _ in range(STEPS):
        loss = criterion(losses(torch.randint(edge - CONTEXT - LENGTH, (BATCH,), generator=draw)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return float(losses(torch.arange(edge, len(stream) - CONTEXT - LENGTH, LENGTH)).mean())


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started = time.perf_counter()
    order = ("lin-upper", "quadratic", "uniform", "extremes")
    steps = {name: [float(steps_to(name, 0.02, seed)) for seed in range(10)] for name in order}
    means = {name: statistics.mean(values) for name, values in steps.items()}
    tuned = {}
    for name in ("lin-upper", "uniform"):
        best = min(RATES, key=lambda rate: statistics.mean(steps_to(name, rate, 100 + s) for s in range(3)))
        tuned[name] = [float(steps_to(name, best, seed)) for seed in range(10)]
    regression, started = time.perf_counter() - started, time.perf_counter()
    ours = [character_loss("lin-upper", seed) for seed in range(max(seeds, 3))]
    plain = [character_loss("uniform", seed) for seed in range(max(seeds, 3))]
    gains = [b - a for a, b in zip(ours, plain)]
    error = statistics.stdev(gains) / len(gains) ** 0.5
    seconds = time.perf_counter() - started
    best_tuned, baseline = (statistics.mean(tuned[name]) for name in ("lin-upper", "uniform"))
    return [
        claim(
            "regression: lin-upper needs fewer steps than quadratic, by a fifth",
            steps["lin-upper"],
            means["quadratic"],
            means["lin-upper"] < 0.8 * means["quadratic"],
            "steps",
            regression,
        ),
        claim(
            "regression: quadratic needs fewer steps than equal weights, by a fifth",
            steps["quadratic"],
            means["uniform"],
            means["quadratic"] < 0.8 * means["uniform"],
            "steps",
            regression,
        ),
        claim(
            "regression: extremes needs no fewer steps than equal weights",
            steps["extremes"],
            means["uniform"],
            means["extremes"] >= means["uniform"],
            "steps",
            regression,
        ),
        claim(
            "regression: lin-upper needs fewer steps when each has the best of six rates",
            tuned["lin-upper"],
            baseline,
            best_tuned < baseline,
            "steps",
            regression,
        ),
        claim(
            "characters: lin-upper has a lower loss after equal steps, by two standard errors",
            ours,
            statistics.mean(plain),
            statistics.mean(gains) > 2 * error,
            "nats",
            seconds,
        ),
    ]
