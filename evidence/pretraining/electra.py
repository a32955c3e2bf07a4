"""ELECTRA: at equal compute, generator and discriminator counted, it should teach more than masked language modeling."""

from __future__ import annotations

import torch
from protocol import auroc, claim
from texts_of import Outcome, claims, equal_compute, texts

from modicum.context import generator
from modicum.evidence import Claim

__all__ = ["run"]


def detection(done: Outcome) -> float:
    """AUROC of telling replaced tokens of test sentences; accuracy would be high for who always says `original`."""
    x = texts().test.inputs.long()
    learner = done.learner.eval()
    state = generator(0, "detection").get_state()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.set_state(state)
        corrupt = learner.corrupted(x)[0]
        scores, _ = learner.detect(x, corrupt)
    there = x != 0
    return auroc(scores[there].numpy(), (corrupt != x)[there].numpy())


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    made = claims("electra", seeds)
    found, plain = equal_compute("electra", seeds), equal_compute("masked-lm", seeds)
    where = "SST-2, equal FLOPs"
    for what, name in (("whether two words were exchanged", "order"), ("the polarity", "polarity")):
        values, others = ([getattr(each, name) for each in group] for group in (found, plain))
        base = sum(others) / len(others)
        text = f"A linear probe tells {what} at least as well as after masked language modeling ({where})"
        made.append(claim(text, values, base, sum(values) / len(values) >= base, "% accuracy", 0.0))
    chosen = [each.order for each in equal_compute("electra(positions='masked')", seeds)]
    mean = sum(each.order for each in found) / len(found)
    made.append(
        claim(
            f"With the loss at the chosen positions alone, a probe tells exchanged words less well ({where})",
            chosen, mean, sum(chosen) / len(chosen) <= mean, "% accuracy", 0.0,
        )
    )  # fmt: skip
    aurocs = [detection(each) for each in found]
    made.append(
        claim("The discriminator tells replaced words of test sentences", aurocs, 0.5, min(aurocs) > 0.6, "AUROC", 0.0)
    )
    return made
