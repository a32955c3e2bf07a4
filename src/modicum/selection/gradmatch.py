"""GradMatch: few weighted samples whose gradient is that of all, by orthogonal matching pursuit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import Array, NumPy, back
from modicum.errors import ModicumError
from modicum.methods import Card
from modicum.options import check_options
from modicum.reading import labels_of
from modicum.scores import Budget, Selection
from modicum.selection.by_class import by_class, count_of
from modicum.selection.gradient_rows import GradientRows, gradient_rows, target_of
from modicum.selection.pursuit import Support
from modicum.selection.stratified import allocate

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.gradients import Gradients

__all__ = ["Gradmatch", "Matched", "gradmatch", "matched", "own_class"]

Part = Literal["class", "all"]


def gradmatch(
    gradients: Array | tuple[Array, Array],
    budget: Budget | float | int | str,
    l2: float = 0.5,
    *,
    target: Array | None = None,
    epsilon: float = 1e-100,
    deepcore_compat: bool = False,
) -> tuple[Array, Array]:
    """Choose at most k samples and weights `w >= 0` so that their weighted gradients sum to the gradient of all.

    `min_{S, w >= 0} E(S, w) = ||sum_{j in S} w_j g_j - g||^2 + l2 ||w||^2`, `|S| <= k`, by orthogonal matching pursuit:
    of the samples outside, the one with the largest `<g_j, g - sum_s w_s g_s>` comes in (signed, as weights are not
    negative; ties to the lower position), all weights are refitted exactly, and a sample whose weight becomes zero
    leaves, so that E falls with every step. It ends with k samples, when `E <= epsilon`, or when no sample outside points
    along what is left: then fewer than k are given.

    Time is 2 n p operations a step, with factors 2 n (c + d), and O(n k + k^2) for the refit; memory is that of the
    gradients, n k numbers and 16 k^2 bytes. Factors are never multiplied out.

    Args:
        gradients: (n, p), or factors (n, c) and (n, d) of `g_i = e_i h_i^T`.
        budget: How much: k.
        l2: Weight of the penalty, >= 0, in units of a squared gradient.
        target: The gradient to match, of the shape of one gradient: (p,), or (c, d) for factors. Their sum when None; that
            of clean validation samples makes the choice robust to wrong labels.
        epsilon: The error at which it ends.
        deepcore_compat: As DeepCore's code: the target is the mean of the gradients, weights are plain least squares while
            samples come in, and only at the end nonnegative (of the normal equations), so that some may be zero.

    Returns:
        (m,) positions in the order picked, m <= k, and (m,) their weights.

    Raises:
        BudgetError: More than n.
        DataError: Another shape, empty or not finite.
        ModicumError: l2 or epsilon is negative, or all products with the target are zero or less.

    Example:
        >>> g = np.array([[2.0, 0.0], [0.0, 1.0], [0.1, 0.1]])
        >>> positions, weights = gradmatch(g, 2, 0.0, target=np.array([4.0, 3.0]))
        >>> positions.tolist(), weights.round(6).tolist()
        ([0, 1], [2.0, 3.0])

    Reference:
        Killamsetty et al., GRAD-MATCH: Gradient Matching based Data Subset Selection for Efficient Deep Model Training,
        2021, arXiv 2103.00123.
    """
    for name, value in (("l2", l2), ("epsilon", epsilon)):
        if not 0 <= value < np.inf:
            raise ModicumError(f"{name}={value!r}; expected a number >= 0")
    rows = gradient_rows("gradients", gradients)
    k = count_of(budget, len(rows))
    goal = target_of(rows, target)
    if deepcore_compat:
        goal = goal / len(rows) if target is None else goal
    products = rows.products(goal)
    if not bool(goal.any()) or float(products.max()) <= 0:
        raise ModicumError(
            f"target has norm {float(goal.norm()):.3g} and no gradient points along it: there is nothing to match; use a "
            "model that is less trained, or give a target"
        )
    support = Support(rows, products, k, l2, signed=deepcore_compat)
    _grow(support, rows, goal, products, k, epsilon)
    positions, weights = support.in_order()
    if deepcore_compat:
        from scipy.optimize import nnls

        gram = rows[torch.from_numpy(positions)].gram(torch.arange(len(positions))).double().cpu().numpy()
        weights, _ = nnls(gram + l2 * np.eye(len(positions)), support.goal[positions])
    like = gradients[0] if isinstance(gradients, tuple) else gradients
    return back(positions, like, floating=False), back(weights, like)


def _grow(support: Support, rows: GradientRows, goal: Tensor, products: Tensor, k: int, epsilon: float) -> None:
    """Take in what points along the rest, until there is nothing, or k."""
    exact = torch.finfo(products.dtype).eps
    least = 10 * exact * float(rows.squares().max()) ** 0.5 * float(goal.norm())
    scores, barred = products.clone(), torch.zeros(len(rows), dtype=torch.bool, device=products.device)
    inside, error = barred.clone(), float(goal.double().square().sum())
    for _ in range(4 * k):  # the error falls with every step, so that none comes twice to the same support
        scores[barred | inside] = -torch.inf
        j = int(scores.argmax())
        if support.m >= k or float(scores[j]) <= least:
            break
        gone = support.add(j)
        if gone is None:
            barred[j] = True
            continue
        barred.zero_()
        inside[j] = True
        inside[gone] = False
        if error - support.gain() <= epsilon:
            break
        scores = products - support.products()


def own_class(rows: GradientRows, labels: NumPy) -> GradientRows:
    """Of the gradient of a last layer, the row of each sample's own class: factors (n, 1) and (n, d)."""
    at = torch.from_numpy(labels).to(rows.left.device)[:, None]
    return GradientRows(rows.left.gather(1, at), rows.right)


@dataclass(frozen=True)
class Gradmatch:
    """Of every class, weighted samples whose gradient of the last layer is that of the class.

    Args:
        until: Share of the schedule after which gradients are taken.
        l2: Weight of the penalty on the weights.
        part: Which gradients: those of the row of the own `class` of the last layer, as in the paper, or `all` rows.
        deepcore_compat: See `gradmatch`.
    """

    until: float = 0.2
    l2: float = 0.5
    part: Part = "class"
    deepcore_compat: bool = False

    card: ClassVar[Card] = Card(
        key="gradmatch",
        title="Weighted samples whose gradient is that of all, by matching pursuit",
        paper="Killamsetty et al., GRAD-MATCH: Gradient Matching based Data Subset Selection for Efficient Deep Model "
        "Training, 2021, arXiv 2103.00123",
        saves=("samples", "compute"),
        growth=2.0,
    )

    def __post_init__(self) -> None:
        check_options(
            self, positive=("until",), shares=("until",), not_negative=("l2",), choices={"part": ("class", "all")}
        )

    def needs(self) -> tuple[Gradients]:
        """A model at a share of its schedule."""
        from modicum.measurement.gradients import Gradients

        return (Gradients((self.until,)),)

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection:
        """Class by class; where fewer samples than asked suffice, others are filled in at random with weight 1."""
        table = measured[0]
        order = table.positions(data.train)
        of = labels_of("train", data.train)[order].numpy()
        budget_of = allocate(np.bincount(of), budget)
        with ctx.ledger.clock("choose", self.card.key, labels=len(of)) as counts:
            rows = GradientRows(*table.factors("train"))
            rows = own_class(rows, of) if self.part == "class" else rows
            counts["extra_flops"] = int(2 * rows.columns * (np.bincount(of) * budget_of).sum())
            chosen = matched(rows, of, budget, self.l2, ctx.generator(self.card.key), self.deepcore_compat)
        return Selection.made(
            order,
            chosen.picks,
            weights=chosen.weights,
            values=chosen.values,
            unit="product with the gradient of its class",
            reasons=chosen.reasons,
            note=chosen.note,
        )


@dataclass(frozen=True, eq=False)
class Matched:
    """What `matched` chose: positions (k,), weights (k,), and of all samples (n,) the first products and what became of
    them."""

    picks: NumPy
    weights: NumPy
    values: NumPy
    reasons: NumPy
    note: str


def matched(
    rows: GradientRows, labels: NumPy, budget: Budget, l2: float, draw: torch.Generator, deepcore_compat: bool = False
) -> Matched:
    """`gradmatch` class by class, filled up to the budget."""
    values = np.full(len(rows), np.nan)
    reasons = np.full(len(rows), "not needed: the gradient is matched by others", dtype=object)
    filled = [0]

    def pick(members: NumPy, k: int) -> tuple[NumPy, NumPy]:
        own = rows[torch.from_numpy(members).to(rows.left.device)]
        values[members] = own.products(own.combined()).double().cpu().numpy()
        at, weights = np.empty(0, dtype=np.int64), np.empty(0)
        if values[members].max() > 0:
            given = own.left if own.right is None else (own.left, own.right)
            found, heavy = gradmatch(given, k, l2, deepcore_compat=deepcore_compat)
            at, weights = found.cpu().numpy(), heavy.double().cpu().numpy()
        for place, weight in zip(members[at], weights):
            reasons[place] = f"weight {weight:.4g}"
        if len(at) < k:
            left = np.setdiff1d(np.arange(len(members)), at)
            more = left[torch.randperm(len(left), generator=draw).numpy()[: k - len(at)]]
            reasons[members[more]] = "filled in at random: fewer suffice"
            filled[0] += len(more)
            at, weights = np.concatenate([at, more]), np.concatenate([weights, np.ones(len(more))])
        return at, weights

    picks, weights = by_class(labels, budget, pick)
    assert weights is not None
    note = f"{filled[0]} of {len(picks)} were filled in at random: fewer match the gradient" if filled[0] else ""
    return Matched(picks, weights, values, reasons, note)
