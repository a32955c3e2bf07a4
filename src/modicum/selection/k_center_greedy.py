"""k-center: a subset that leaves no sample far from it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from modicum.arrays import Array, back, center_of, distinct
from modicum.arrays import features as checked_features
from modicum.errors import DataError
from modicum.methods import Card
from modicum.reading import by_id, labels_of, rows_of
from modicum.scores import Budget, Selection
from modicum.selection.by_class import count_of
from modicum.selection.kernels import check_squares

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import Features

__all__ = ["KCenterGreedy", "k_center_greedy"]


def k_center_greedy(features: Array, budget: Budget | float | int | str, start: int | None = None) -> Array:
    """Pick again and again the sample that is farthest from those picked.

    `u_t = argmax_i min_{s<t} ||x_i - x_{u_s}||`, ties to the lower position; where all lie nearer than rounding can
    tell, a warning, and the others in order. The covering radius is at most twice that of
    the best k centers. One matrix-vector product a pick: `||x - u||^2 = ||x||^2 - 2 <x, u> + ||u||^2`.

    Time is 2 n d operations a pick, memory that of the features twice.

    Args:
        features: (n, d).
        budget: How much.
        start: Position of the first pick; the sample nearest the mean when None.

    Returns:
        (k,) positions in the order picked: a smaller budget gives the first of a larger one.

    Raises:
        BudgetError: More than n, or per class.
        DataError: Another shape, empty, not finite, too large, or start out of range.

    Example:
        >>> k_center_greedy(np.arange(11.0)[:, None], 3, start=0).tolist()
        [0, 10, 5]

    Reference:
        Gonzalez, Clustering to minimize the maximum intercluster distance, 1985; Sener, Savarese, Active Learning for
        Convolutional Neural Networks: A Core-Set Approach, 2018, arXiv 1708.00489.
    """
    plain = checked_features("features", features)
    check_squares("features", plain)
    n = len(plain)
    k = count_of(budget, n)
    if start is not None and not 0 <= start < n:
        raise DataError(f"start={start}; expected a position from 0 to {n - 1}")
    again, first = distinct(plain)
    device = features.device if isinstance(features, torch.Tensor) else torch.device("cpu")
    rows = torch.from_numpy(plain - center_of(plain).astype(plain.dtype)).to(device)
    norms = torch.linalg.vecdot(rows, rows)
    if start is None:
        start = int(torch.addmv(norms, rows, rows.mean(0), alpha=-2).argmin())
    representative = dict(zip(again.tolist(), first.tolist()))
    twins: dict[int, list[int]] = {}
    for position, original in representative.items():
        twins.setdefault(original, [original]).append(position)
    distance, new = torch.full_like(norms, torch.inf), torch.empty_like(norms)
    picked, at = torch.empty(k, dtype=torch.int64), int(start)
    for t in range(k):
        picked[t] = at
        torch.addmv(norms, rows, rows[at], alpha=-2, out=new)
        new += norms[at]
        torch.minimum(distance, new.clamp_(min=0), out=distance)  # what was picked stays below zero
        same = twins.get(representative.get(at, at))
        if same:  # rounding must not offer a twin of this pick
            distance[same] = 0
        distance[at] = -1
        at = int(distance.argmax())
        if t + 1 < k and distance[at] == 0:
            picked[t + 1 :] = (distance == 0).nonzero().flatten()[: k - t - 1].cpu()
            warnings.warn(
                f"features have only {t + 1} rows that differ by more than rounding; the other {k - t - 1} picks "
                "repeat them, in order",
                stacklevel=2,
            )
            break
        at = representative.get(at, at)
    return back(picked.numpy(), features, floating=False)


@dataclass(frozen=True)
class KCenterGreedy:
    """The samples that leave none far from them; it also picks outliers.

    Args:
        encoder: Whose features (see `modicum.measurement.Features`).
    """

    encoder: str = "trained"

    card: ClassVar[Card] = Card(
        key="k-center-greedy",
        title="A subset that leaves no sample far from it",
        paper="Sener, Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, 2018, "
        "arXiv 1708.00489",
        saves=("samples", "labels"),
        growth=2.0,
        tasks=("classification", "regression", "unlabeled"),
    )

    def needs(self) -> tuple[Features]:
        """Features of the training samples."""
        from modicum.measurement.features import Features

        return (Features(self.encoder),)

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection:
        """A budget per class gives as many in all; charged with 2 n d operations a pick."""
        order = by_id(data.train)
        rows = rows_of("train features", measured[0].train, data.train)
        classes = len(np.unique(labels_of("train", data.train))) if budget.per_class else 1
        k = budget.count(len(rows), classes)
        with ctx.ledger.clock("choose", self.card.key, extra_flops=2 * k * rows.numel()):
            return Selection.made(order, k_center_greedy(rows.to(ctx.device)[order], k).cpu())
