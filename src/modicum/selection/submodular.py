"""What facility location, graph cut and log-determinant share as methods: class by class, gains, and reasons."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import NumPy
from modicum.arrays import features as checked_features
from modicum.reading import by_id, labels_of, rows_of
from modicum.scores import Budget, Selection
from modicum.selection.by_class import by_class

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits

__all__ = ["chosen", "represented"]

Pick: TypeAlias = Callable[[Tensor, int, torch.Generator], tuple[NumPy, NumPy]]
Explain: TypeAlias = Callable[[Tensor, NumPy, NumPy], list[str]]
BLOCK = 1 << 22  # entries of a block of similarities


def chosen(
    method: Any, data: Splits, budget: Budget, ctx: Context, table: Any, pick: Pick, explain: Explain | None = None
) -> Selection:
    """Pick inside each class where the method says so and there are classes, or among all.

    Args:
        method: With `card` and `per_class`.
        data: The splits.
        budget: How much; among all, a budget per class gives as many in all.
        ctx: Charged with 2 n d operations a member.
        table: Measured features.
        pick: Given the rows of the members, how many are wanted and a generator: places in the order picked, and gains.
        explain: Given the rows of the members, the places picked and the ids of the members: a reason for each member.
    """
    train, key = data.train, method.card.key
    order = by_id(train)
    rows = rows_of("train features", table, train)
    classes = method.per_class and train.info.task == "classification"
    of = (
        labels_of("train", train)[order].numpy() if classes or budget.per_class else np.zeros(len(rows), dtype=np.int64)
    )
    if not classes:
        budget = Budget(keep=budget.count(len(rows), len(np.unique(of))))
        of = np.zeros_like(of)
    with ctx.ledger.clock("choose", key, labels=len(of) if classes else 0) as counts:
        counts["extra_flops"] = int(2 * rows.shape[1] * (np.bincount(of).astype(np.float64) ** 2).sum())
        checked_features("train features", rows)
        there, ids = rows[order].to(ctx.device), train.ids[order.numpy()]
        values = np.full(len(of), np.nan)
        reasons = np.full(len(of), "", dtype=object)
        generator = ctx.generator(key)

        def of_class(members: NumPy, k: int) -> tuple[NumPy, None]:
            mine = there[torch.from_numpy(members).to(there.device)]
            places, gains = pick(mine, k, generator)
            values[members[places]] = gains
            if explain:
                reasons[members] = explain(mine, places, ids[members])
            name = f" of {train.info.classes[of[members[0]]]}" if classes and train.info.classes else ""
            reasons[members[places]] = [f"pick {t + 1} of {k}{name}" for t in range(k)]
            return places, None

        picks, _ = by_class(of, budget, of_class)
        return Selection.made(order, picks, values=values, unit="gain", reasons=reasons)


def represented(rows: Tensor, places: NumPy, ids: NumPy) -> list[str]:
    """By which pick each member is represented: that of the nearest direction.

    Args:
        rows: (n, d) features of the members.
        places: (k,) of the picks.
        ids: (n,) of the members.
    """
    unit = torch.nn.functional.normalize(rows, dim=1)
    picked = unit[torch.from_numpy(places).to(unit.device)].T
    parts = torch.split(unit, max(1, BLOCK // len(places)))
    nearest = [(part @ picked).max(1) for part in parts]
    by = ids[places[torch.cat([part.indices for part in nearest]).cpu().numpy()]]
    cosines = torch.cat([part.values for part in nearest]).tolist()
    return [f"stood for by {name}, cosine {cosine:.2f}" for name, cosine in zip(by.tolist(), cosines)]
