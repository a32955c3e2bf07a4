"""ScatSimCLR on 1,000 CIFAR-10 images: does the second task help, and does learning help beside wavelets alone?

The encoder is the smallest of the paper, eight blocks, on wavelets of three scales and four angles; the same compute is
given to the learner without the second task, and to SimCLR on a residual network with as many parameters. The accuracy is
that of a linear probe with the 1,000 labels.
"""

from __future__ import annotations

import time
from dataclasses import replace

from pretraining_of import Outcome, flops_of, images, learn, outcome
from protocol import claim
from torch import Tensor

from modicum.context import Context
from modicum.dataset import Dataset, Splits
from modicum.evidence import Claim
from modicum.models import Scattering
from modicum.pretraining.learner import backbone_for
from modicum.training.evaluate import forward
from modicum.training.recipe import Recipe

TRAIN, EPOCHS, SCALES, ANGLES = 1000, 4, 3, 4
SCATNET = Recipe(
    f"scatnet(scales={SCALES}, angles={ANGLES})", EPOCHS, batch_size=64, optimizer="adamw", lr=3e-4, weight_decay=1e-5
)
RESNET = replace(SCATNET, model="resnet9(width=30)")  # 1.4 million parameters, as the other


def small() -> Splits:
    """The images of the claims."""
    data = images()
    return Splits(data.train[:TRAIN], data.valid, data.test)


def wavelets(data: Dataset) -> Tensor:
    """The scattering coefficients themselves."""
    height, width = data.inputs.shape[2:]
    return Scattering((height, width), scales=SCALES, angles=ANGLES)(data.prepare(data.inputs)).flatten(1)


def at_equal_compute(method: str, recipe: Recipe, seed: int) -> Outcome:
    """As many steps as cost what ScatSimCLR costs."""
    data = small()
    steps = round(EPOCHS * (TRAIN // SCATNET.batch_size) * step("scatsimclr", SCATNET) / step(method, recipe))
    return learn(method, data, seed, replace(recipe, steps=max(1, steps)))


def step(method: str, recipe: Recipe) -> int:
    """FLOPs of one step."""
    return flops_of(method, small(), recipe, 1)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started, data = time.perf_counter(), small()
    found = [at_equal_compute("scatsimclr", SCATNET, seed).linear for seed in range(seeds)]
    seconds = time.perf_counter() - started
    plain = [at_equal_compute("scatsimclr(weight=0.0)", SCATNET, seed).linear for seed in range(seeds)]
    other = [at_equal_compute("simclr", RESNET, seed).linear for seed in range(seeds)]
    before = []
    for seed in range(seeds):
        encoder = backbone_for(SCATNET, data.train, seed).eval()
        before.append(outcome(lambda d, e=encoder: forward(e, d, Context()), data).linear)
    raw = outcome(wavelets, data).linear
    mean = sum(found) / seeds
    where = f"linear probe, {TRAIN:,} images of CIFAR-10, compute of {EPOCHS} epochs"
    rivals = (
        ("the untrained scattering network", sum(before) / seeds),
        ("the wavelets alone", raw),
        ("the same network without the second task", sum(plain) / seeds),
        ("SimCLR on a residual network with as many parameters", sum(other) / seeds),
    )
    return [
        claim(
            f"More accurate than {name} ({where})", found, rival, mean > rival, "% accuracy", seconds if not i else 0.0
        )
        for i, (name, rival) in enumerate(rivals)
    ]
