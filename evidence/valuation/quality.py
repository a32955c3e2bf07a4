"""Quality: a classifier learned from two hundred judged samples tells damaged samples from whole ones, and says how
sure it is.

A third of the samples is damaged: solutions of GSM8K with their steps mixed, with the solution of another question, or
with other results; sentences of SST-2 with their words mixed; digits with a part blanked, noise added or pixels mixed.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from protocol import auroc, claim

import modicum
from modicum.context import Context
from modicum.errors import ModicumError
from modicum.evidence import Claim
from modicum.valuation import Quality

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SAMPLES, DAMAGED = 2000, 1 / 3


class Damaged(NamedTuple):
    """Data of which some samples are damaged."""

    data: Any
    options: dict[str, Any]
    good: np.ndarray[Any, Any]
    lengths: np.ndarray[Any, Any]


def run(seeds: int = 3) -> list[Claim]:
    """Measure the claims; those on texts are left out where the files are missing."""
    made: dict[str, Callable[[int], Damaged]] = {"digits": digits}
    if (SHARED / "gsm8k").is_dir() and (SHARED / "sst2").is_dir():
        made |= {"GSM8K": solutions, "SST-2": sentences}
    claims = []
    reached: list[float] = []
    began = time.perf_counter()
    for name, make in made.items():
        started = time.perf_counter()
        kept, shares, by_length, ranks, by_words = [], [], [], [], []
        for seed in range(seeds):
            task = make(seed)
            found = filtered(task, Quality(classifier="logistic"), seed, keep=0.5, ask=200)
            right = task.good[found.selection.positions]
            kept.append(100 * right.mean())
            shares.append(100 * task.good.mean())
            unseen = np.isnan(found.judged)
            ranks.append(auroc(found.selection.values[unseen], task.good[unseen] == 1))
            by_length.append(max(auroc(s * task.lengths, task.good == 1) for s in (1, -1)))
            if name != "digits":
                words = filtered(task, Quality(encoder="inputs", classifier="logistic"), seed, keep=0.5, ask=200)
                by_words.append(auroc(words.selection.values[unseen], task.good[unseen] == 1))
            try:
                sure = filtered(task, Quality(classifier="logistic"), seed, precision=0.85, ask=400)
                reached.append(100 * float(task.good[sure.selection.positions].mean()))
            except ModicumError:
                pass  # what cannot be shown is refused, which breaks no promise
        seconds = time.perf_counter() - started
        better = np.mean(kept) > np.mean(shares) + 10
        text = f"{name}: of the half that is kept after 200 judgments ten points more are good than of a random half"
        claims.append(claim(text, kept, float(np.mean(shares)), better, "% of the kept are good", seconds))
        text = f"{name}: the probabilities tell whole from damaged samples better than their length or brightness does"
        claims.append(
            claim(text, ranks, float(np.mean(by_length)), np.mean(ranks) > np.mean(by_length), "AUROC", seconds)
        )
        if by_words:
            text = f"{name}: statistics of the wording see more damage than latent semantics of the words alone"
            claims.append(
                claim(text, ranks, float(np.mean(by_words)), np.mean(ranks) > np.mean(by_words), "AUROC", seconds)
            )
    text = "where 85 % precision is promised after 400 judgments, the kept samples have it"
    worst = [value >= 85 for value in reached]
    seconds = time.perf_counter() - began
    claims.append(
        claim(text, reached or [float("nan")], 85, bool(reached) and all(worst), "% of the kept are good", seconds)
    )
    return claims


def filtered(task: Damaged, method: Quality, seed: int, **options: Any) -> Any:
    """What the filter keeps, judged by the truth."""
    right = {str(i): float(g) for i, g in enumerate(task.good)}
    if isinstance(task.data, modicum.Dataset):
        right = dict(zip(map(str, task.data.ids.tolist()), map(float, task.good), strict=True))
    return modicum.filter(
        task.data,
        lambda rows: [right[str(row["id"])] for row in rows],
        method=method,
        ctx=Context(seed=seed),
        **options,
        **task.options,
    )


def _written(rows: list[dict[str, Any]]) -> Path:
    file = Path(tempfile.mkdtemp()) / "damaged.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def _choice(n: int, draw: np.random.Generator) -> np.ndarray[Any, Any]:
    good = np.ones(n, dtype=int)
    good[draw.permutation(n)[: round(DAMAGED * n)]] = 0
    return good


def solutions(seed: int) -> Damaged:
    """Questions with solutions, of which a third is damaged in one of three ways."""
    draw = np.random.default_rng(seed)
    lines = (SHARED / "gsm8k" / "train.jsonl").read_text().splitlines()
    rows = [json.loads(lines[i]) for i in draw.permutation(len(lines))[:SAMPLES]]
    good = _choice(len(rows), draw)
    answers = [row["answer"] for row in rows]
    for i in np.flatnonzero(good == 0):
        steps, way = answers[i].split("\n"), draw.integers(3)
        if way == 0 and len(steps) > 2:
            mixed = steps
            while mixed == steps:
                mixed = [steps[j] for j in draw.permutation(len(steps))]
            rows[i]["answer"] = "\n".join(mixed)
        elif way == 1:
            rows[i]["answer"] = answers[(i + draw.integers(1, len(rows))) % len(rows)]
        else:
            rows[i]["answer"] = re.sub(
                r"(?<==)(\$?)(\d+)", lambda m: m[1] + str(int(m[2]) + int(draw.integers(1, 20))), answers[i]
            )
    lengths = np.array([len(row["answer"]) for row in rows])
    return Damaged(_written(rows), {"inputs": ["question", "answer"]}, good, lengths)


def sentences(seed: int) -> Damaged:
    """Sentences, of which a third has its words in another order."""
    draw = np.random.default_rng(seed)
    lines = (SHARED / "sst2" / "train.tsv").read_text().splitlines()
    texts = [lines[i].split("\t")[0] for i in draw.permutation(len(lines))[:SAMPLES]]
    good = _choice(len(texts), draw)
    for i in np.flatnonzero(good == 0):
        texts[i] = " ".join(draw.permutation(texts[i].split()))
    lengths = np.array([len(text) for text in texts])
    return Damaged(_written([{"text": text} for text in texts]), {"inputs": "text"}, good, lengths)


def digits(seed: int) -> Damaged:
    """Digits, of which a third has a blank quarter, noise, or its pixels in another order."""
    draw = np.random.default_rng(seed)
    data = modicum.load("digits", valid=0, test=0, seed=seed).train
    good, pixels = _choice(len(data), draw), data.inputs.clone()
    for i in np.flatnonzero(good == 0):
        way, image = draw.integers(3), pixels[i, 0].numpy()
        if way == 0:
            y, x = draw.integers(0, 5, 2)
            image[y : y + 4, x : x + 4] = 0
        elif way == 1:
            image[:] = np.clip(image + draw.normal(0, 5, image.shape), 0, 16).round().astype(image.dtype)
        else:
            image[:] = draw.permutation(image.ravel()).reshape(image.shape)
    return Damaged(data.replace(inputs=pixels), {}, good, pixels.float().mean((1, 2, 3)).numpy())
