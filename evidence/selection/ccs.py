"""CCS: where 95 % are pruned it trains far better than the hardest, and in noisy data better than a random subset.

MNIST, 10,000 training samples of which 500 are kept, AUM of one short training, a small network trained for as many steps
on every subset. The paper's cutoffs were found for CIFAR-10; digits with right labels are easy, the cut takes away
what is left to learn, and a tenth does better. Of 3,000 kept, the cut of what has an AUM below zero does better than the cut of
the paper, which is too much for right labels and too little where a fifth are wrong.
"""

from __future__ import annotations

import statistics
import time

from protocol import claim
from pruning_of import accuracy, chosen, mnist, scored

from modicum.context import Context
from modicum.evidence import Claim
from modicum.methods import make
from modicum.scores import Budget

MORE = 0.3


def of_more(method: str, seed: int, share: float) -> float:
    """Test accuracy where 30 % are kept."""
    chosen = make(method).select(mnist(seed, share), Budget(keep=MORE), Context(seed=seed), scored("aum", seed, share))
    return accuracy(chosen, seed, share)


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started, mean = time.perf_counter(), statistics.mean

    def of(method: str, score: str = "", share: float = 0.0) -> list[float]:
        return [accuracy(chosen(method, seed, share, score=score), seed, share) for seed in range(seeds)]

    ours, hardest, chance = of("ccs", "aum"), of("ranked", "el2n"), of("random")
    less, uncut = of("ccs(beta=0.1)", "aum"), of("ccs(beta=0.0)", "aum")
    noisy, noisy_chance = of("ccs", "aum", 0.2), of("random", share=0.2)
    below, paper = (
        [[of_more(method, seed, share) for seed in range(seeds)] for share in (0.0, 0.2)]
        for method in ("ccs(beta='negative')", "ccs")
    )
    seconds = time.perf_counter() - started
    return [
        claim(
            "it beats the hardest by EL2N by 5 points",
            ours,
            mean(hardest),
            mean(ours) >= mean(hardest) + 5,
            "% test accuracy",
            seconds,
        ),
        claim(
            "it is no more than a point below a random subset",
            ours,
            mean(chance),
            mean(ours) >= mean(chance) - 1,
            "% test accuracy",
            seconds,
        ),
        claim(
            "with a cutoff of 10 % it is no more than a point below a random subset",
            less,
            mean(chance),
            mean(less) >= mean(chance) - 1,
            "% test accuracy",
            seconds,
        ),
        claim(
            "with the cutoff of the paper it trains better than without one",
            ours,
            mean(uncut),
            mean(ours) > mean(uncut),
            "% test accuracy",
            seconds,
        ),
        claim(
            "with a fifth of the labels wrong it beats a random subset",
            noisy,
            mean(noisy_chance),
            mean(noisy) > mean(noisy_chance),
            "% test accuracy",
            seconds,
        ),
        *(
            claim(
                f"of 30 % kept, {labels}, cutting what has an AUM below zero beats the cutoff of the paper",
                ours,
                mean(theirs),
                mean(ours) > mean(theirs),
                "% test accuracy",
                seconds,
            )
            for labels, ours, theirs in zip(("with right labels", "with a fifth of the labels wrong"), below, paper)
        ),
    ]
