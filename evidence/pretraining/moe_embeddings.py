"""MoE embeddings: three domains of texts (film reviews, word problems, plays), and whether the first half of a text it
never saw finds the second half among those of the same domain. Every model begins with the same masked language model."""

from __future__ import annotations

import functools
import json
import tempfile
import time
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from protocol import auroc, claim
from texts_of import RECIPE, SHARED, few_words
from torch import Tensor

import modicum
from modicum.context import Context, generator
from modicum.dataset import Dataset, Splits
from modicum.evidence import Claim
from modicum.pretraining import pretrain
from modicum.pretraining.saved import save_encoder
from modicum.store import Store

__all__ = ["run"]

EACH, BEFORE, AFTER, NEGATIVES = 1200, 5, 5, 10
NAMES = ("reviews", "problems", "plays")


def lines(name: str) -> list[str]:
    """Texts of a domain, of some length, so that both halves say something."""
    if name == "reviews":
        rows = (SHARED / "sst2" / "train.tsv").read_text().splitlines()
        found = [row.split("\t")[0] for row in rows]
    elif name == "problems":
        rows = (SHARED / "gsm8k" / "train.jsonl").read_text().splitlines()
        found = [json.loads(row)["question"] for row in rows]
    else:
        found = [part.replace("\n", " ") for part in (SHARED / "tinyshakespeare.txt").read_text().split("\n\n")]
    return [text for text in found if len(text.split()) >= 16][:EACH]


@functools.cache
def mixture() -> Splits:
    """Texts with their domain as source, and no targets."""
    domains = [lines(name) for name in NAMES]
    rows = [text for texts in domains for text in texts]
    labels = [i for i, texts in enumerate(domains) for _ in texts]
    loaded = modicum.load((rows, labels))

    def told(part: Dataset) -> Dataset:
        info = replace(part.info, task="unlabeled", classes=(), sources=NAMES)
        cut = few_words(part)
        return cut.replace(sources=part.labels, targets=None, info=replace(info, vocabulary=cut.info.vocabulary))

    return Splits(*map(told, loaded))


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """First and second halves of the words of each text."""
    middle = ((x != 0).sum(1, keepdim=True) + 1) // 2
    places = torch.arange(x.shape[1])
    moved = (places + middle).clamp(max=x.shape[1] - 1)
    second = x.gather(1, moved).masked_fill(places + middle >= x.shape[1], 0)
    return x.masked_fill(places >= middle, 0), second


@torch.no_grad()
def found(encode: Any, data: Dataset, domains: Tensor) -> float:
    """AUROC of the cosine of both halves of a text against halves of other texts of its domain.

    Texts are compared with those that are also told to be of the same domain: halves of a text share what is told, and
    must not be found by that.
    """
    a, b = (F.normalize(encode(half, domains), dim=1) for half in halves(data.inputs.long()))
    own = (a * b).sum(1)
    draw, scores = generator(0, "negatives"), [own]
    assert data.sources is not None
    groups = data.sources * len(NAMES) + domains
    for group in torch.unique(groups).tolist():
        rows = (groups == group).nonzero().flatten()
        for _ in range(NEGATIVES):
            shift = int(torch.randint(1, len(rows), (1,), generator=draw))
            scores.append((a[rows] * b[rows.roll(shift)]).sum(1))
    whole = torch.cat(scores)
    return auroc(whole.numpy(), (torch.arange(len(whole)) < len(own)).numpy())


@functools.cache
def trained(options: str, seed: int) -> tuple[float, int, float]:
    """AUROC on test texts, FLOPs of the second stage, and AUROC before it."""
    data = mixture()
    first = pretrain(data, "masked-lm", replace(RECIPE, epochs=BEFORE), Context(seed=seed))
    test, column = data.test, data.test.sources
    assert column is not None
    before = found(lambda x, domains: first.encoder(x), test, column)
    with tempfile.TemporaryDirectory() as folder:
        save_encoder(Store(folder), first.encoder, RECIPE, data.train)
        method = f"moe-embeddings(start={folder!r}{options})"
        done = pretrain(data, method, replace(RECIPE, epochs=AFTER, lr=1e-3), Context(seed=seed))
    learner: Any = done.learner.eval()
    if "random" in options:
        column = column[torch.randperm(len(column), generator=generator(seed, "test domains"))]
    after = found(lambda x, domains: learner.pooler(learner.backbone.network.features(x, domains)), test, column)
    return after, done.ledger.total().flops, before


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims."""
    started = time.perf_counter()
    experts, dense, random, middle = (
        [trained(options, seed) for seed in range(seeds)]
        for options in ("", ", experts=1", ", routing='random'", ", blocks='middle'")
    )
    seconds = time.perf_counter() - started
    where = "halves of texts of three domains, equal steps"
    values = [each[0] for each in experts]
    mean, other, dealt, start = (
        sum(column) / seeds
        for column in (values, [d[0] for d in dense], [r[0] for r in random], [e[2] for e in experts])
    )
    ratios = [e[1] / d[1] for e, d in zip(experts, dense)]
    return [
        claim(f"Better than the encoder it began with ({where})", values, start, mean > start, "AUROC", seconds),
        claim(
            f"At least as good as one dense encoder that is told the domain ({where})",
            values, other, mean >= other, "AUROC", 0.0,
        ),
        claim(f"Better than experts of random domains ({where})", values, dealt, mean > dealt, "AUROC", 0.0),
        claim(
            "Experts in the middle block alone keep most of the gain over the start",
            [m[0] for m in middle], start + 0.85 * (mean - start),
            sum(m[0] for m in middle) / seeds >= start + 0.85 * (mean - start), "AUROC", 0.0,
        ),
        claim("It costs the FLOPs of one dense encoder", ratios, 1.0, max(ratios) <= 1.0, "ratio", 0.0),
    ]  # fmt: skip
