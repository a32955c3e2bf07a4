"""CCS: cover the whole range of difficulty but for the hardest, which are often noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import torch

from modicum.arrays import Array, NumPy, back, class_indices
from modicum.errors import BudgetError, DataError, ModicumError
from modicum.methods import Card
from modicum.options import check_options
from modicum.reading import by_id, labels_of
from modicum.scores import Budget, Scores, Selection, as_budget
from modicum.selection.by_class import by_class
from modicum.selection.ranks import finite, first_of
from modicum.selection.scored import Scored, scores_for

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits

__all__ = ["Ccs", "ccs", "cutoff_of"]

PRUNED = (0.5, 0.7, 0.8, 0.9)
CUTOFF = (0.0, 0.1, 0.1, 0.3)


def cutoff_of(keep: float) -> float:
    """The share of the hardest samples that the paper leaves out of CIFAR-10 (by AUM) when this share is kept.

    Nothing up to half pruned, a tenth at 70 % and 80 %, three tenths from 90 % on; on straight lines between these.

    Args:
        keep: In (0, 1].

    Returns:
        A share beta with beta + keep <= 1.

    Example:
        >>> [round(cutoff_of(keep), 3) for keep in (1.0, 0.5, 0.3, 0.2, 0.15, 0.1, 0.01)]
        [0.0, 0.0, 0.1, 0.1, 0.2, 0.3, 0.3]
    """
    return float(np.interp(1 - keep, PRUNED, CUTOFF))


def ccs(
    scores: Array,
    budget: Budget | float | int | str,
    beta: float = 0.0,
    bins: int = 50,
    *,
    targets: Array | None = None,
    class_balance: float = 0.0,
    generator: torch.Generator | None = None,
) -> Array:
    """Leave out the hardest, part the range of the other scores into strata, and sample as evenly from them as they allow.

    The `beta n` highest scores are cut (at equal scores at random). The range of the rest is parted into `bins` strata of
    equal width; a stratum gets as many as every other, or all that it has: the most even allocation there is, in which
    those with most members get what does not divide. Within a stratum the choice is random. So a sparse stratum of hard
    samples is kept nearly whole, where a random subset would hardly see it.

    Infinite scores count as one more than the largest finite. Time is O(n log n), memory about 100 bytes a sample.

    Args:
        scores: (n,) difficulties, higher = harder; negate scores such as AUM, of which the low are hard.
        budget: How much.
        beta: Share of all samples that is cut at the hard end, in [0, 1).
        bins: Number of strata.
        targets: (n,) class indices, for budgets per class (then each class is sampled by itself) and class floors.
        class_balance: In [0, 1]: every class keeps at least this share of k / c samples, if need be of those cut.
        generator: A CPU generator; one of seed 0 when None.

    Returns:
        (k,) sorted positions.

    Raises:
        BudgetError: The budget does not fit, or beta leaves fewer samples than it asks.
        DataError: Scores are NaN or of another shape, bins < 1, beta out of range, or targets are missing.

    Example:
        >>> scores = np.array([0.0] * 90 + [5.0] * 9 + [100.0])
        >>> ccs(scores, 20, beta=0.01, bins=2).tolist()[-9:]
        [90, 91, 92, 93, 94, 95, 96, 97, 98]

    Reference:
        Zheng et al., Coverage-centric Coreset Selection for High Pruning Rates, 2023, arXiv 2210.15809.
    """
    hard = finite("scores", scores)
    if isinstance(bins, bool) or not isinstance(bins, (int, np.integer)) or bins < 1:
        raise DataError(f"bins={bins!r}; expected an integer >= 1")
    if not 0 <= beta < 1:
        raise DataError(f"beta={beta!r}; expected a share of the samples in [0, 1)")
    made = as_budget(budget)
    of = None if targets is None else class_indices("targets", targets, len(hard))
    if made.per_class is not None and of is None:
        raise DataError("targets is None; expected (n,) class indices, as the budget is per class")
    draw = torch.Generator().manual_seed(0) if generator is None else generator
    k = made.count(len(hard), 1 if of is None else len(np.unique(of)))
    groups = [(" samples", len(hard), k)]
    if made.per_class is not None and of is not None:
        groups = [(f" samples of class {c}", int(n), made.per_class) for c, n in enumerate(np.bincount(of)) if n]
    for what, n, asked in groups:
        if asked <= n < asked + (cut := _count(beta, n)):
            raise BudgetError(
                f"beta={beta} cuts {cut} of {n}{what}, which leaves fewer than the {asked} asked; lower beta or keep"
            )
    return back(np.sort(_choose(hard, made, beta, bins, of, class_balance, draw)[0]), scores, floating=False)


def _count(beta: float, n: int) -> int:
    return min(n - 1, int(np.floor(beta * n + 0.5)))


def _choose(
    hard: NumPy, budget: Budget, beta: float, bins: int, of: NumPy | None, class_balance: float, draw: torch.Generator
) -> tuple[NumPy, NumPy]:
    """Positions to keep, and the (n,) stratum of every sample, -1 where it was cut.

    Of what the budget cannot do without, the least hard of those cut are kept: they come last in the sequence."""
    strata = np.empty(len(hard), dtype=np.int64)
    if budget.per_class is None:
        sequence, strata[:] = _sequence(hard, _count(beta, len(hard)), bins, draw)
        return first_of(sequence, budget, of, class_balance), strata

    def pick(members: NumPy, k: int) -> tuple[NumPy, None]:
        sequence, strata[members] = _sequence(hard[members], _count(beta, len(members)), bins, draw)
        return sequence[:k], None

    assert of is not None
    return by_class(of, budget, pick)[0], strata


def _sequence(hard: NumPy, cut: int, bins: int, draw: torch.Generator) -> tuple[NumPy, NumPy]:
    """All positions such that the first k are the choice of k, and the stratum of each.

    A stratum's members have a random order; whoever is r-th in its stratum comes before all that are (r + 1)-th. So the
    first k take as evenly as can be from the strata, whatever k; the larger strata come first in a round, as the rest
    after even division goes to them.
    """
    n = len(hard)
    chance = torch.randperm(n, generator=draw).numpy()
    by_difficulty = np.lexsort((chance, hard))
    inside, outside = by_difficulty[: n - cut], by_difficulty[n - cut :]
    strata = np.full(n, -1, dtype=np.int64)
    quarter = hard[inside] / 4  # exact, and the differences of the largest numbers stay finite
    width = (quarter[-1] - quarter[0]) / bins
    strata[inside] = np.minimum((quarter - quarter[0]) / width, bins - 1) if width > 0 else 0
    inside = inside[np.lexsort((chance[inside], strata[inside]))]
    sizes = np.bincount(strata[inside], minlength=bins)
    place = np.arange(len(inside)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # a reversed stable sort puts the later of equally large strata first, as in the program of the paper
    turn = np.empty(bins, dtype=np.int64)
    turn[np.argsort(sizes, kind="stable")[::-1]] = np.arange(bins)
    return np.concatenate([inside[np.lexsort((turn[strata[inside]], place))], outside]), strata


@dataclass(frozen=True)
class Ccs:
    """Every difficulty is kept some of, but for the hardest: for high pruning rates, where the hardest alone mislead.

    Args:
        score: A valuation, with options or without; of a score that is a value, low values are hard.
        beta: Share of all samples, the hardest, that is cut; None for that of `cutoff_of`, and `negative`, for a score
            that is a value, for the share whose value is below zero. By AUM these are the samples whose label loses to
            another class over a training, which follows the data, where the shares of the paper follow CIFAR-10.
        bins: Strata of equal width.
        class_balance: Every class keeps at least this share of k / c samples.
    """

    score: str = "aum"
    beta: float | str | None = None
    bins: int = 50
    class_balance: float = 0.0

    card: ClassVar[Card] = Card(
        key="ccs",
        title="All difficulties but the hardest, evenly",
        paper="Zheng et al., Coverage-centric Coreset Selection for High Pruning Rates, 2023, arXiv 2210.15809",
        saves=("samples", "compute"),
    )

    def __post_init__(self) -> None:
        check_options(self, positive=("bins",), shares=("class_balance",))
        number = isinstance(self.beta, (int, float)) and not isinstance(self.beta, bool)
        if self.beta not in (None, "negative") and not (number and 0 <= cast(float, self.beta) < 1):
            raise ModicumError(
                f"method 'ccs' option beta={self.beta!r}; expected None, 'negative' or a number in [0, 1)"
            )
        Scored(self.score)

    def needs(self) -> tuple[Scored]:
        """The score."""
        return (Scored(self.score),)

    def _cutoff(self, scores: Scores, keep: float) -> float:
        if self.beta is None:
            return cutoff_of(keep)
        if self.beta != "negative":
            return float(self.beta)
        if scores.kind != "value":
            raise DataError(
                f"beta='negative' needs a score that is a value, such as aum, but {scores.method} is a difficulty; "
                "expected None or a number"
            )
        return min(float((scores.values < 0).mean()), 1 - 1 / len(scores))

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection:
        """As `ccs`; a cutoff that leaves too few is filled up with the least hard of those cut."""
        order = by_id(data.train)
        of = labels_of("train", data.train)[order].numpy()
        scores = scores_for(measured[0], data.train)
        with ctx.ledger.clock("choose", self.card.key, labels=len(of)):
            n = len(of)
            keep = budget.fraction(n, len(np.unique(of)))
            beta = self._cutoff(scores, keep)
            hard = finite("scores", scores.difficulties[order])
            kept, strata = _choose(hard, budget, beta, self.bins, of, self.class_balance, ctx.generator(self.card.key))
            reasons = np.array([f"stratum {i + 1} of {self.bins}" for i in range(self.bins)] + [""], dtype=object)[
                strata
            ]
            reasons[strata < 0] = f"harder than the cutoff of {100 * beta:.4g} %"
            filled = int((strata[kept] < 0).sum())
            note = f"{filled} of those beyond the cutoff of {100 * beta:.4g} % were needed" if filled else ""
            return Selection.made(
                order, kept, values=scores.values[order], unit=scores.unit, reasons=reasons, note=note
            )
