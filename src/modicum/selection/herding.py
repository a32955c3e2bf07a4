"""Herding: a subset whose mean follows the mean of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from modicum.arrays import Array, NumPy, back, tensor, unit_rows
from modicum.methods import Card
from modicum.reading import by_id, labels_of, rows_of
from modicum.scores import Budget, Selection
from modicum.selection.by_class import by_class, count_of
from modicum.selection.kernels import check_squares
from modicum.selection.stratified import allocate

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import Features

__all__ = ["Herding", "herding"]


def herding(features: Array, budget: Budget | float | int | str) -> Array:
    """Pick samples one after another so that the mean of those picked stays nearest the mean of all.

    With `mu` the mean, the t-th pick is `argmin_x ||mu - (h(x) + sum_{s<t} h(x_s)) / t||` among those left, which is
    `argmin_x ||h(x)||^2 - 2 <h(x), t mu - sum_{s<t} h(x_s)>`: one matrix-vector product a pick. Ties go to the lower
    position.

    Time is 2 n d operations a pick, memory that of the features.

    Args:
        features: (n, d); divide rows by their length first to follow iCaRL.
        budget: How much.

    Returns:
        (k,) positions in the order picked: a smaller budget gives the first of a larger one.

    Raises:
        BudgetError: More than n, or per class.
        DataError: Another shape, empty, not finite or too large.

    Example:
        >>> herding(np.array([[0.0], [1.0], [2.0], [9.0]]), 2).tolist()
        [2, 1]

    Reference:
        Rebuffi et al., iCaRL: Incremental Classifier and Representation Learning, 2017, arXiv 1611.07725;
        Welling, Herding Dynamical Weights to Learn, 2009.
    """
    rows = tensor("features", features, (2,), "(n, d), one row a sample")
    check_squares("features", rows)
    k = count_of(budget, len(rows))
    exact = torch.float32 if rows.device.type == "mps" else torch.float64
    mean = rows.mean(0, dtype=exact)
    cost = torch.linalg.vecdot(rows, rows)
    goal = torch.zeros_like(mean)
    picked = torch.empty(k, dtype=torch.int64)
    for t in range(k):
        goal += mean
        at = int(torch.addmv(cost, rows, goal.to(rows.dtype), alpha=-2).argmin())
        goal -= rows[at]
        cost[at] = torch.inf
        picked[t] = at
    return back(picked.numpy(), features, floating=False)


@dataclass(frozen=True)
class Herding:
    """Of every class, the samples whose mean follows the mean of the class, on features of length one (or zero).

    Args:
        encoder: Whose features (see `modicum.measurement.Features`).
    """

    encoder: str = "trained"

    card: ClassVar[Card] = Card(
        key="herding",
        title="A subset whose mean follows the mean of each class",
        paper="Rebuffi et al., iCaRL: Incremental Classifier and Representation Learning, 2017, arXiv 1611.07725",
        saves=("samples", "memory"),
        growth=2.0,
    )

    def needs(self) -> tuple[Features]:
        """Features of the training samples."""
        from modicum.measurement.features import Features

        return (Features(self.encoder),)

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection:
        """Class by class, each getting what `allocate` says; charged with 2 n d operations a pick."""
        order = by_id(data.train)
        of = labels_of("train", data.train)[order].numpy()
        rows = rows_of("train features", measured[0].train, data.train)
        with ctx.ledger.clock("choose", self.card.key, labels=len(of)) as counts:
            sizes = np.bincount(of)
            counts["extra_flops"] = int(2 * rows.shape[1] * (sizes * allocate(sizes, budget)).sum())
            plain = tensor("train features", rows, (2,), "(n, d)")[order]
            directions = torch.from_numpy(unit_rows("train features", plain.cpu().numpy(), zeros=True)).to(ctx.device)

            def pick(members: NumPy, k: int) -> tuple[NumPy, None]:
                return herding(directions[torch.from_numpy(members)], k).cpu().numpy(), None

            return Selection.made(order, by_class(of, budget, pick)[0])
