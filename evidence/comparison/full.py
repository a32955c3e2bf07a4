"""Full: what training on all data costs, by the ledger and by hand."""

from __future__ import annotations

import time

from protocol import claim

import modicum
from modicum.comparison import Full
from modicum.context import Context
from modicum.evidence import Claim
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

HIDDEN, EPOCHS = 64, 3
RECIPE = Recipe(model=f"mlp(hidden={HIDDEN}, layers=1)", epochs=EPOCHS, batch_size=32, lr=0.05)


def by_hand(samples: int, inputs: int, outputs: int) -> int:
    """samples x epochs x (forward + backward): a weight costs two operations forward, two for its own gradient and two
    for that of its inputs, which the first layer does not need."""
    first, last = inputs * HIDDEN, HIDDEN * outputs
    forward, backward = 2 * (first + last), 2 * first + 4 * last
    return samples * EPOCHS * (forward + backward)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claim."""
    started, totals, expected = time.perf_counter(), [], []
    for seed in range(seeds):
        data, ctx = modicum.load("digits", seed=seed), Context(seed=seed)
        fit(data.train, RECIPE, ctx, sampler=Full().sampler(data, RECIPE, ctx))
        totals.append(ctx.ledger.total().flops)
        expected.append(by_hand(len(data.train), data.train.inputs[0].numel(), data.train.classes))
    return [
        claim(
            "the ledger of a plain fit is samples x epochs x (forward + backward), to the FLOP",
            [float(total) for total in totals],
            float(expected[0]),
            totals == expected,
            "FLOPs",
            time.perf_counter() - started,
        )
    ]


if __name__ == "__main__":
    for each in run():
        print(each)
