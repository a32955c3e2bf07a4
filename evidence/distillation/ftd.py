"""FTD on digits: flat experts end where the loss grows less around them, and matching them does what matching others does."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import torch
import torch.nn.functional as F
from distillation_of import beats_random, digits
from protocol import claim
from torch import nn
from trajectories_of import DIGITS

from modicum.context import Context
from modicum.distillation import FTD
from modicum.evidence import Claim
from modicum.measurement import Experts, gsam_perturbation
from modicum.models import build
from modicum.training.recipe import Recipe

METHOD = FTD(**DIGITS, ema=0.95)
RADIUS = 0.5  # the loss of flat experts is probed at the radius they were trained with
EXPERTS = Experts(5, 10, lr=0.05, batch_size=32, model=METHOD.model, augment="none", variant="gsam", rho=RADIUS)


def rise(experts: Experts, seed: int) -> list[float]:
    """By how much the loss on all data grows around each expert after its last epoch."""
    train = digits().train
    table = experts.measure(digits(), Recipe(), Context(seed=seed))
    x, y, found = train.prepare(train.inputs), train.labels, []
    for expert in range(table.count):
        model = build(METHOD.model, train)
        weights = list(model.parameters())
        nn.utils.vector_to_parameters(table.at(expert, table.epochs), weights)
        loss = F.cross_entropy(model(x), y)
        moved = gsam_perturbation(weights, torch.autograd.grad(loss, weights), RADIUS)
        with torch.no_grad():
            for parameter, step in zip(weights, moved):
                parameter.add_(step)
            found.append(float(F.cross_entropy(model(x), y) - loss))
    return found


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    claims = beats_random(METHOD, digits(), 1, 10.0, seeds=seeds, at_least=74.4)
    started, flat, plain = time.perf_counter(), [], []
    for seed in range(seeds):
        flat += rise(EXPERTS, seed)
        plain += rise(replace(EXPERTS, variant="sgd"), seed)
    mean, other = statistics.mean(flat), statistics.mean(plain)
    text = f"Around flat experts the loss rises less than around plain ones, at the radius {RADIUS:g}"
    return [*claims, claim(text, flat, other, mean < other, "nats", time.perf_counter() - started)]


if __name__ == "__main__":
    for found in run():
        print(found)
