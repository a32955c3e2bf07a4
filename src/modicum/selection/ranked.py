"""Keep the hardest, the easiest or the middle by any score, without the hardest few where those are noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from modicum.arrays import NumPy
from modicum.methods import Card
from modicum.options import check_options
from modicum.reading import by_id
from modicum.scores import Budget, Order, Scores, Selection
from modicum.selection.scored import Scored, scores_for

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits

__all__ = ["Ranked"]

KEPT = {"hardest": "among the hardest", "easiest": "among the easiest", "middle": "near the middle"}
LEFT = {"hardest": "easier than those kept", "easiest": "harder than those kept", "middle": "farther from the middle"}


@dataclass(frozen=True)
class Ranked:
    """One end, or the middle, of the ranking of the samples by a score.

    Hard samples teach most where data are plentiful and labels right; easy ones where data are scarce; and the hardest of
    noisy data are the wrong labels, which `skip` leaves out.

    Args:
        score: A valuation, with options or without.
        order: Of its difficulties, `hardest`, `easiest` or `middle` (nearest the median rank); of a score that is a
            value, low values are hard. Empty for that of the score itself, the highest where it is a value.
        skip: Share of all samples, the hardest, that are kept only where the others do not suffice.
        class_balance: Every class keeps at least this share of k / c samples; the floor of the score itself is kept too.

    Reference:
        Sorscher et al., Beyond neural scaling laws: beating power law scaling via data pruning, 2022, arXiv 2206.14486.
    """

    score: str = "el2n"
    order: str = ""
    skip: float = 0.0
    class_balance: float = 0.0

    card: ClassVar[Card] = Card(
        key="ranked",
        title="The hardest, the easiest or the middle by a score",
        paper="Sorscher et al., Beyond neural scaling laws: beating power law scaling via data pruning, 2022, "
        "arXiv 2206.14486",
        saves=("samples", "compute"),
    )

    def __post_init__(self) -> None:
        check_options(
            self,
            shares=("class_balance",),
            below_one=("skip",),
            choices={"order": ("", "hardest", "easiest", "middle")},
        )
        Scored(self.score)

    def needs(self) -> tuple[Scored]:
        """The score."""
        return (Scored(self.score),)

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection:
        """As `Scores.kept`, which says what happens to ties, classes and what is skipped."""
        by_id(data.train)
        given = scores_for(measured[0], data.train)
        with ctx.ledger.clock("choose", self.card.key):
            natural: Order = "easiest" if given.kind == "value" else given.order
            order = cast(Order, self.order) if self.order else natural
            scores = replace(given, values=given.difficulties, kind="difficulty", order=order)
            kept = scores.kept(budget, order, max(self.class_balance, given.class_balance), self.skip)
            skipped = scores.skipped(self.skip)
            filled = int(np.isin(skipped, kept).sum())
            note = f"{filled} of the {len(skipped)} hardest were needed to fill the budget" if filled else ""
            return Selection(
                kept,
                values=given.values,
                unit=given.unit,
                reasons=_reasons(scores, kept, skipped, self.skip, bool(budget.per_class)),
                note=" ".join(filter(None, (given.note, note))),
            )


def _reasons(scores: Scores, kept: NumPy, skipped: NumPy, skip: float, per_class: bool) -> NumPy:
    """A few words about every sample: what a class floor changed is the difference from the plain ranking."""
    inside, plain = np.zeros((2, len(scores)), dtype=bool)
    inside[kept] = True
    plain[scores.ranking(skip=skip)[: len(kept)]] = True
    if per_class:
        plain = inside
    of_class = " of its class" if per_class else ""
    reasons = np.where(inside, KEPT[scores.order] + of_class, LEFT[scores.order] + of_class).astype(object)
    reasons[inside & ~plain] = "kept for its class"
    reasons[~inside & plain] = "its place went to a smaller class"
    out = np.zeros(len(scores), dtype=bool)
    out[skipped] = True
    reasons[out] = f"among the hardest {100 * skip:.4g} %, which are skipped"
    reasons[out & inside] = "of the skipped hardest, to fill the budget"
    return reasons
