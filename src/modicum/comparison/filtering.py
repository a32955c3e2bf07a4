"""Which samples are good enough, by a few that were judged: what is kept, how sure that is, and what is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

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
Share: TypeAlias = "tuple[float, float, float]"  # an estimate, and the lower and upper end of its interval


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
        rank: (n,) place of each sample in the ranking by the classifier, 0 for the best.
        cut: The place in the ranking, and what the held-out samples before it say.
        target: The precision that was asked for; None where a number of samples was.
        level: Confidence of what is said about the precision.
        precision: Share of good samples among the kept ones, NaN where too few were judged to say, and its interval of
            confidence `level`; where a target was asked for its lower end is the target, which was shown. What is known of
            the judged ones counts as it is, here and below.
        recall: Share of the good samples that are kept, and its 95 % interval.
        share: Share of good samples among all, and its 95 % interval.
        bins: The reliability curve.
        curve: Share kept -> precision, lower and upper end of its 95 % interval.
        classifier: What judged, such as `logistic(strength=0.1) on statistics`.
        loss: Cross-entropy of the classifier on judged samples left out, in nats.
        blind: That of the share of good ones alone.
        ledger: What it cost.
        earlier: How many of the judged samples were judged in an earlier run.
    """

    dataset: Dataset
    selection: Selection
    judged: NumPy
    held_out: NumPy
    rank: NumPy
    cut: Cut
    target: float | None
    level: float
    precision: Share
    recall: Share
    share: Share
    bins: tuple[Bin, ...]
    curve: tuple[tuple[float, float, float, float], ...]
    classifier: str
    loss: float
    blind: float
    ledger: Ledger
    earlier: int = 0

    @property
    def sentence(self) -> str:
        """The answer in one sentence."""
        kept, (about, low, high) = f"{len(self.dataset):,} of {len(self.judged):,} samples are kept", self.precision
        if not np.isnan(self.judged).any():
            return f"{kept}: all were judged, and {_percent(about)} of the kept ones are good."
        if self.target is not None:
            return (
                f"{kept}: with {100 * self.level:.3g} % confidence at least {100 * self.target:.3g} % of them are good."
            )
        if np.isnan(about):
            return f"{kept}; too few were judged to say how good they are."
        return f"{kept}; about {_percent(about)} of them are good ({100 * low:.1f} to {_percent(high)})."

    @property
    def detail(self) -> str:
        """What stands behind the answer, and what is lost."""
        r, s = self.recall, self.share
        lost = (1 - r[0]) * s[0] * len(self.judged)
        seen = int((~np.isnan(self.judged)).sum())
        before = ""
        if self.target is not None and np.isnan(self.judged).any():
            before = (
                f"Of {self.cut.judged} held-out samples before the cut {self.cut.good} are good "
                f"({_percent(self.cut.precision)}). "
            )
        earlier = f" (an earlier run asked about {self.earlier} of them)" if self.earlier else ""
        return (
            f"{before}Of all samples {_percent(s[0])} are good ({100 * s[1]:.1f} to {_percent(s[2])}). "
            f"The filter keeps {_percent(r[0])} of the good ones ({100 * r[1]:.1f} to {_percent(r[2])}): about "
            f"{lost:,.0f} are lost. {seen} samples were judged{earlier}, half of them to measure this on; "
            f"{self.classifier} learned from the rest."
        )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


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
        room; a promised precision holds before the cut already, and these only add to it.

    Raises:
        DataError: Too few were judged, or all are alike.
        ModicumError: The precision cannot be shown to be reached.

    Example:
        >>> import torch
        >>> rows = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
        >>> good = (rows[:, 0] > -0.5).long().numpy()
        >>> found = decide(Dataset(rows), {"inputs": [rows]}, np.arange(120), good[:120], Context(), budget=Budget(0.5))
        >>> len(found.dataset), found.precision[0] > 0.9
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
    rank = np.empty(n, dtype=np.int64)
    rank[ranking] = np.arange(n)
    known = np.full(n, np.nan)
    known[at] = good
    cut, kept = _cut(rank, known, at[held], good[held], budget, precision, level)
    selection = Selection.made(
        order,
        np.flatnonzero(kept),
        values=found.probabilities,
        unit="probability of being good",
        reasons=_reasons(known, kept),
    )
    judged, held_out, ranks = np.full(n, np.nan), np.zeros(n, dtype=bool), np.empty(n, dtype=np.int64)
    judged[order], ranks[order] = known, rank
    held_out[order[at[held]]] = True
    learned = good[~held].mean()
    return Filtered(
        selection.taken_from(train),
        selection,
        judged,
        held_out,
        ranks,
        cut,
        precision,
        level,
        *_told(rank, known, kept, at[held], good[held], cut, precision, level),
        _reliability(found.probabilities[at[held]], good[held]),
        tuple(_curve(-rank, at[held], good[held])),
        f"{found.classifier} on {name}",
        found.loss,
        float(-(learned * np.log(learned) + (1 - learned) * np.log(1 - learned))),
        ctx.ledger,
    )


def _cut(
    rank: NumPy,
    known: NumPy,
    at: NumPy,
    good: NumPy,
    budget: Budget | None,
    precision: float | None,
    level: float,
) -> tuple[Cut, NumPy]:
    """The place in the ranking, and what is kept: judged good ones, then the first of those nobody judged."""
    n, tier = len(rank), np.where(np.isnan(known), 1, np.where(known == 1, 0, 2))
    kept = np.zeros(n, dtype=bool)
    if budget is not None:
        count = budget.count(n, 1)
        kept[np.lexsort((rank, tier))[:count]] = True
        free = kept & (tier == 1)
        return precision_at(int(rank[free].max()) + 1 if free.any() else count, -rank, at, good, level), kept
    assert precision is not None
    cut = count_for_precision(-rank, at, good, precision, level)
    if cut is None and (tier == 1).any():
        raise ModicumError(_out_of_reach(-rank, at, good, precision, level))
    cut = cut or precision_at(n, -rank, at, good, level)
    return cut, ((rank < cut.count) & (tier == 1)) | (tier == 0)


def _told(
    rank: NumPy,
    known: NumPy,
    kept: NumPy,
    at: NumPy,
    good: NumPy,
    cut: Cut,
    target: float | None,
    level: float,
) -> tuple[Share, Share, Share]:
    """Precision, recall and the share of all: what is known of the judged samples, and what follows for the others.

    The held-out samples before the cut are a random part of those before it that the classifier did not learn from, so
    they speak for the ones nobody judged.
    """
    n, free, inside = len(rank), np.isnan(known), rank[at] < cut.count
    sure = int((kept & (known == 1)).sum())  # kept, and judged good
    before = _others(int(good[inside].sum()), int(inside.sum()), int((free & kept).sum()), level)
    precision = tuple((sure + x) / int(kept.sum()) for x in before)
    if target is not None and (free & kept).any():
        precision = (precision[0], target, precision[2])
    hits, total, all_good = int(good[inside].sum()), int(good.sum()), int((known == 1).sum())
    unseen = _others(total, len(good), int(free.sum()))  # good ones that nobody judged
    # the share of them before the cut; where judged good ones fill the budget nothing else is kept
    reached = (hits / max(total, 1), *clopper_pearson(hits, total)) if (free & kept).any() else (0.0, 0.0, 0.0)
    recalls = [[(sure + share * many) / (all_good + many) for many in unseen] for share in reached]
    recall = (recalls[0][0], min(recalls[1]), max(recalls[2]))
    share = tuple((all_good + x) / n for x in _others(all_good, int((~free).sum()), int(free.sum())))
    return precision, recall, share  # type: ignore[return-value]


def _others(good: int, judged: int, rest: int, level: float = 0.95) -> Share:
    """How many of the `rest` are good, and the interval, where `judged` random ones beside them had so many good ones."""
    if not rest:
        return 0.0, 0.0, 0.0
    low, high = (float(np.clip(x * (judged + rest) - good, 0, rest)) for x in clopper_pearson(good, judged, level))
    return rest * good / judged if judged else float("nan"), low, high


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
