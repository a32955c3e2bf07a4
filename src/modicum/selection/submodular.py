"""What facility location, graph cut and log-determinant share as methods: options, class by class, gains, and reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import NumPy, tensor
from modicum.methods import Card
from modicum.options import check_options
from modicum.reading import by_id, labels_of, rows_of
from modicum.scores import Budget, Selection
from modicum.selection.by_class import by_class
from modicum.selection.greedy import OPTIMIZERS
from modicum.selection.kernels import KERNELS, kernel_of

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import Features

__all__ = ["Submodular", "stood_for"]

BLOCK = 1 << 22  # entries of a block of similarities


@dataclass(frozen=True)
class Submodular:
    """Samples picked greedily by a submodular function of their similarities.

    Args:
        encoder: Whose features (see `modicum.measurement.Features`).
        kernel: `cosine` or `rbf`; see `facility_location`.
        optimizer: `lazy`, `exact`, `approximate` or `stochastic`.
        per_class: Choose inside each class, in the proportions of the data.
        epsilon: Of `stochastic`.
        deepcore_compat: What DeepCore's released code does instead.
    """

    encoder: str = "trained"
    kernel: str = "cosine"
    optimizer: str = "lazy"
    per_class: bool = True
    epsilon: float = 0.01
    deepcore_compat: bool = False

    card: ClassVar[Card]

    def __post_init__(self) -> None:
        check_options(
            self,
            positive=("epsilon",),
            below_one=("epsilon",),
            choices={"kernel": KERNELS, "optimizer": OPTIMIZERS},
        )

    def needs(self) -> tuple[Features]:
        """Features of the training samples."""
        from modicum.measurement.features import Features

        return (Features(self.encoder),)

    def picked(self, rows: Tensor, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Places among the rows (m, d) in the order picked, and gains."""
        raise NotImplementedError

    def operations(self, n: int, d: int, k: int) -> int:
        """Multiplications and additions to pick k of n rows: all similarities."""
        return 2 * n * n * d

    def explained(self, rows: Tensor, places: NumPy, ids: NumPy) -> list[str]:
        """A reason for each member that is not picked."""
        return [""] * len(ids)

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection:
        """Class by class, each getting what `allocate` says, or among all, where a budget per class gives as many in all;
        charged with `operations` of every class."""
        train, key = data.train, self.card.key
        order = by_id(train)
        rows = rows_of("train features", measured[0].train, train)
        classes = self.per_class and train.info.task == "classification"
        of = np.zeros(len(rows), dtype=np.int64)
        if classes or budget.per_class:
            of = labels_of("train", train)[order].numpy()
        if not classes:
            budget = Budget(keep=budget.count(len(rows), len(np.unique(of))))
            of = np.zeros_like(of)
        with ctx.ledger.clock("choose", key, labels=len(of) if classes else 0) as counts:
            counts["extra_flops"] = 0
            there = tensor("train features", rows, (2,), "(n, d)")[order].to(ctx.device)
            ids = train.ids[order.numpy()]
            values = np.full(len(of), np.nan)
            reasons = np.full(len(of), "", dtype=object)
            generator = ctx.generator(key)

            def of_class(members: NumPy, k: int) -> tuple[NumPy, None]:
                mine = there[torch.from_numpy(members).to(there.device)]
                counts["extra_flops"] += self.operations(len(mine), mine.shape[1], k)
                found, gains = self.picked(mine, k, generator)
                places = found.cpu().numpy()
                values[members[places]] = gains.cpu().numpy()
                reasons[members] = self.explained(mine, places, ids[members])
                name = f" of {train.info.classes[of[members[0]]]}" if classes and train.info.classes else ""
                reasons[members[places]] = [f"pick {t + 1} of {k}{name}" for t in range(k)]
                return places, None

            picks, _ = by_class(of, budget, of_class)
            return Selection.made(order, picks, values=values, unit="gain", reasons=reasons)


def stood_for(rows: Tensor, kernel: str, places: NumPy, ids: NumPy) -> list[str]:
    """By which pick each member is represented: the most similar one.

    Args:
        rows: (n, d) features of the members.
        kernel: See `kernel_of`.
        places: (k,) of the picks.
        ids: (n,) of the members.
    """
    made = kernel_of("features", rows, kernel)
    best = made.rows.new_full((len(rows),), -1.0)
    by = torch.zeros(len(rows), dtype=torch.int64, device=best.device)
    for part in torch.split(torch.from_numpy(places), max(1, BLOCK // len(rows))):
        most, at = made.block(part.to(best.device)).max(0)
        by = torch.where(most > best, part.to(best.device)[at], by)
        best = torch.maximum(best, most)
    told, shown = ("cosine", 2 * best - 1) if kernel == "cosine" else ("similarity", best)
    names = ids[by.cpu().numpy()].tolist()
    return [f"stood for by {name}, {told} {alike:.2f}" for name, alike in zip(names, shown.tolist())]
