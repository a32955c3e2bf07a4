"""Which samples are good enough, by a few that were judged: what is kept, how sure that is, and what is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modicum.arrays import NumPy
from modicum.context import Context
from modicum.dataset import Dataset
from modicum.errors import DataError, ModicumError
from modicum.ledger import Ledger
from modicum.reading import by_id
from modicum.scores import Budget, Selection
from modicum.valuation.precision import Cut, clopper_pearson, count_for_precision, precision_at
from modicum.valuation.quality import best_judging

__all__ = ["Bin", "Filtered", "decide"]

SHARES = tuple(round(0.05 * i, 2) for i in range(1, 21))
BINS = 6


@dataclass(frozen=True)
class Bin:
    """Held-out samples of like probability: what was predicted, and what came.

    Args:
        predicted: Mean probability.
        good: Share of good ones.
        low: Lower end of its 95 % interval.
        high: Upper end.
        count: How many.
    """

    predicted: float
    good: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, eq=False)
class Filtered:
    """What a quality filter keeps, and how good that is.

    The judged samples are cut in two at random: the classifier learns from one half, everything said about its precision
    comes from the other, which it never saw.

    Args:
        dataset: The kept samples.
        selection: Which these are, the probability of each sample, and a reason for each.
        judged: (n,) 1 where judged good, 0 where judged bad, NaN where nobody looked.
        held_out: (n,) which of the judged samples the classifier did not learn from.
        cut: The place in the ranking, and the precision before it.
        target: The precision that was asked for; None where a number of samples was.
        level: Confidence of what is said about the precision.
        recall: Share of the good samples that stand before the cut, and its 95 % interval.
        share: Share of good samples among all, and its 95 % interval.
        bins: The reliability curve.
        curve: Share kept -> precision, lower and upper end of its 95 % interval.
        classifier: What judged, such as `logistic(strength=0.1) on statistics`.
        loss: Cross-entropy of the classifier on judged samples left out, in nats.
        blind: That of the share of good ones alone.
        ledger: What it cost.
    """

    dataset: Dataset
    selection: Selection
    judged: NumPy
    held_out: NumPy
    cut: Cut
    target: float | None
    level: float
    recall: tuple[float, float, float]
    share: tuple[float, float, float]
    bins: tuple[Bin, ...]
    curve: tuple[tuple[float, float, float, float], ...]
    classifier: str
    loss: float
    blind: float
    ledger: Ledger

    @property
    def sentence(self) -> str:
        """The answer in one sentence."""
        n, kept = len(self.judged), len(self.dataset)
        if self.target is not None:
            return (
                f"{kept:,} of {n:,} samples are kept: with {100 * self.level:.3g} % confidence at least "
                f"{100 * self.target:.3g} % of them are good."
            )
        if not self.cut.judged:
            return f"{kept:,} of {n:,} samples are kept; too few were judged to say how good they are."
        return (
            f"{kept:,} of {n:,} samples are kept; about {100 * self.cut.precision:.1f} % of them are good "
            f"({100 * self.cut.low:.1f} to {100 * self.cut.high:.1f} %)."
        )

    @property
    def detail(self) -> str:
        """What stands behind the answer, and what is lost."""
        r, s = self.recall, self.share
        lost = (1 - r[0]) * s[0] * len(self.judged)
        seen = int((~np.isnan(self.judged)).sum())
        before = ""
        if self.target is not None:
            before = (
                f"Of {self.cut.judged} held-out samples before the cut {self.cut.good} are good "
                f"({100 * self.cut.precision:.1f} %). "
            )
        return (
            f"{before}Of all samples {100 * s[0]:.1f} % are good ({100 * s[1]:.1f} to {100 * s[2]:.1f} %). "
            f"The filter keeps {100 * r[0]:.1f} % of the good ones ({100 * r[1]:.1f} to {100 * r[2]:.1f} %): about "
            f"{lost:,.0f} are lost. {seen} samples were judged, half of them to measure this on; "
            f"{self.classifier} learned from the rest."
        )


def decide(
    train: Dataset,
    tables: Mapping[str, Sequence[Any]],
    asked: NumPy,
    labels: NumPy,
    ctx: Context,
    *,
    budget: Budget | None = None,
    precision: float | None = None,
    level: float = 0.95,
    **options: Any,
) -> Filtered:
    """Learn from half of the judged samples, measure on the other half, keep the best.

    Args:
        train: The samples, in any order.
        tables: Features of the samples in that order, for `modicum.valuation.quality.best_judging`.
        asked: (m,) positions of the judged samples in the random order in which they were drawn: every second one is held
            out.
        labels: (m,) 1 for good, 0 for bad.
        ctx: Seed and ledger.
        budget: How many to keep, or
        precision: the share of good ones to reach (see `count_for_precision`).
        level: Confidence of that.
        options: `classifier`, `calibration`, `folds` of `quality_scores`.

    Returns:
        The answer. Samples judged bad are never kept while others are left, samples judged good always while there is
        room; either only makes the kept set better than what is said of it.

    Raises:
        DataError: Too few were judged, or all are alike.
        ModicumError: The precision cannot be shown to be reached.

    Example:
        >>> import torch
        >>> rows = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
        >>> good = (rows[:, 0] > -0.5).long().numpy()
        >>> found = decide(Dataset(rows), {"inputs": [rows]}, np.arange(120), good[:120], Context(), budget=Budget(0.5))
        >>> len(found.dataset), found.cut.precision > 0.9
        (200, True)
    """
    if (budget is None) == (precision is None):
        raise ModicumError(f"budget={budget} and precision={precision}; expected one of them")
    n, order = len(train), by_id(train).numpy()
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    at, good = place[asked], labels.astype(np.int64)
    held = np.arange(len(at)) % 2 == 1
    if len(at) < 8 or good.min() == good.max():
        kind = "good" if len(good) and good.min() else "bad"
        told = f"all {len(at)} judged samples are {kind}" if len(at) >= 8 else f"only {len(at)} samples were judged"
        raise DataError(
            f"{told}; expected at least 8, good ones and bad ones: judge more, or look at how they are judged"
        )
    sorted_tables = {name: [part[order] for part in parts] for name, parts in tables.items()}
    with ctx.ledger.clock("choose", "quality", labels=len(at)) as counts:
        name, found = best_judging(sorted_tables, at[~held], good[~held], ctx.generator("quality"), **options)
        counts["extra_flops"] = 10 * sum(part.numel() for parts in tables.values() for part in parts)
    ranking = np.lexsort((np.arange(n), -found.scores))
    standing = np.empty(n)  # dense, so that no two are alike
    standing[ranking] = -np.arange(n, dtype=np.float64)
    test_at, test_good = at[held], good[held]
    if precision is not None:
        cut = count_for_precision(standing, test_at, test_good, precision, level)
        if cut is None:
            raise ModicumError(_out_of_reach(standing, test_at, test_good, precision, level))
    known = np.full(n, np.nan)
    known[at] = good
    tier = np.where(np.isnan(known), 1, np.where(known == 1, 0, 2))
    if budget is not None:
        count = budget.count(n, 1)
        picks = np.lexsort((-standing, tier))[:count]
        free = picks[tier[picks] == 1]
        last = int(-standing[free].min()) + 1 if len(free) else count
        cut = precision_at(max(1, last), standing, test_at, test_good, level)
    else:
        assert cut is not None
        before = -standing < cut.count
        picks = np.flatnonzero((before & (tier != 2)) | (tier == 0))
    kept = np.zeros(n, dtype=bool)
    kept[picks] = True
    selection = Selection.made(
        order, picks, values=found.probabilities, unit="probability of being good", reasons=_reasons(known, kept)
    )
    inside = -standing[test_at] < cut.count
    hits, total = int((inside & (test_good == 1)).sum()), int(test_good.sum())
    judged, held_out = np.full(n, np.nan), np.zeros(n, dtype=bool)
    judged[order] = known
    held_out[order[test_at]] = True
    learned = good[~held].mean()
    return Filtered(
        selection.taken_from(train),
        selection,
        judged,
        held_out,
        cut,
        precision,
        level,
        (hits / total if total else float("nan"), *clopper_pearson(hits, total)),
        (float(test_good.mean()), *clopper_pearson(total, len(test_good))),
        _reliability(found.probabilities[test_at], test_good),
        tuple(_curve(standing, test_at, test_good)),
        f"{found.classifier} on {name}",
        found.loss,
        float(-(learned * np.log(learned) + (1 - learned) * np.log(1 - learned))),
        ctx.ledger,
    )


def _reasons(known: NumPy, kept: NumPy) -> NumPy:
    texts = np.where(kept, "probable enough", "not probable enough").astype(object)
    texts[known == 1] = "judged good"
    texts[known == 0] = "judged bad"
    return texts


def _out_of_reach(standing: NumPy, at: NumPy, good: NumPy, target: float, level: float) -> str:
    n = len(standing)
    cuts = [precision_at(max(1, round(share * n)), standing, at, good, level) for share in SHARES]
    best = max((c for c in cuts if c.judged), key=lambda c: c.low, default=None)
    least = int(np.ceil(np.log(1 - level) / np.log(target)))
    seen = (
        f"the best cut, {best.count:,} samples, has {best.good} good ones of {best.judged} judged "
        f"({100 * best.precision:.1f} %, {100 * best.low:.1f} to {100 * best.high:.1f} %)"
        if best
        else "no cut has judged samples before it"
    )
    return (
        f"precision={target:g} could not be shown with {len(at)} held-out samples: {seen}; ask for more judgments (at "
        f"least {least} good ones in a row are needed before a cut), or for less precision"
    )


def _reliability(probabilities: NumPy, good: NumPy) -> tuple[Bin, ...]:
    ranking = np.argsort(probabilities, kind="stable")
    made = []
    for part in np.array_split(ranking, min(BINS, max(1, len(ranking) // 5))):
        hits = int(good[part].sum())
        share = hits / len(part)
        made.append(Bin(float(probabilities[part].mean()), share, *clopper_pearson(hits, len(part)), len(part)))
    return tuple(made)


def _curve(standing: NumPy, at: NumPy, good: NumPy) -> list[tuple[float, float, float, float]]:
    cuts = [precision_at(max(1, round(share * len(standing))), standing, at, good) for share in SHARES]
    return [(share, cut.precision, cut.low, cut.high) for share, cut in zip(SHARES, cuts)]
