"""GLISTER: samples whose gradient steps lower the loss of validation samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.arrays import Array, NumPy, back, class_indices, tensor
from modicum.errors import DataError, ModicumError
from modicum.methods import Card
from modicum.options import check_options
from modicum.reading import labels_of
from modicum.scores import Budget, Selection
from modicum.selection.by_class import by_class, count_of
from modicum.selection.gradient_rows import GradientRows, gradient_rows

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.gradients import Gradients

__all__ = ["Glister", "Rounds", "glister", "half_square", "looked_ahead"]


def glister(
    gradients: tuple[Array, Array],
    valid_logits: Array,
    valid_features: Array,
    valid_targets: Array,
    budget: Budget | float | int | str,
    rate: float = 0.05,
    rounds: int = 15,
    *,
    deepcore_compat: bool = False,
) -> tuple[Array, Array]:
    """Choose k samples so that one step of the last layer on them lowers the mean validation loss.

    To first order, a step of length `rate` along `-g_j` lowers the mean cross-entropy L of the validation samples by
    `rate <g_j, grad L(theta)>`. Each round picks the `k / rounds` samples with the largest of these gains (ties to the
    lower position) and moves the last layer by the sum of their gradients: the validation logits become
    `z_v - rate (sum_{j in S} e_j h_j^T) h_v` in closed form, and the gains of the next round are those at the moved layer.
    One round is the static choice, which may serve a few classes only; k rounds are the greedy algorithm.

    Time is 2 n c d operations a round, memory that of the factors.

    Args:
        gradients: Factors (n, c) and (n, d) of the training gradients `g_j = e_j h_j^T` of the last layer, the second
            with a 1 for the bias (see `modicum.measurement.per_sample.last_layer_gradients`).
        valid_logits: (m, c).
        valid_features: (m, d) inputs of the last layer, with the same 1.
        valid_targets: (m,) class indices, or (m, c) soft labels.
        budget: How much: k.
        rate: Length of the step, > 0: the learning rate.
        rounds: In how many parts samples are picked, >= 1.
        deepcore_compat: As DeepCore's code: the layer is never moved, which is one round.

    Returns:
        (k,) positions in the order picked, and (k,) the gains they were picked by, in nats.

    Raises:
        BudgetError: More than n.
        DataError: Shapes that do not fit, empty or not finite.
        ModicumError: rate or rounds is out of range.

    Example:
        >>> e, h = np.array([[-0.5, 0.5], [0.5, -0.5]]), np.array([[1.0, 1.0], [1.0, 1.0]])
        >>> positions, gains = glister((e, h), np.zeros((1, 2)), np.ones((1, 2)), np.array([0]), 1)
        >>> positions.tolist(), gains.tolist()
        ([0], [0.05])

    Reference:
        Killamsetty, Sivasubramanian, Ramakrishnan, Iyer, GLISTER: Generalization based Data Subset Selection for Efficient
        and Robust Learning, 2021, arXiv 2012.10630.
    """
    if not 0 < rate < math.inf:
        raise ModicumError(f"rate={rate!r}; expected a learning rate > 0")
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ModicumError(f"rounds={rounds!r}; expected an integer >= 1")
    if not isinstance(gradients, tuple):
        raise DataError(f"gradients is a {type(gradients).__name__}; expected two factors, (n, c) and (n, d)")
    rows = gradient_rows("gradients", gradients)
    k = count_of(budget, len(rows))
    valid = _valid(rows, valid_logits, valid_features, valid_targets)
    found = _rounds(rows, *valid, k, rate, 1 if deepcore_compat else rounds)
    like = gradients[0]
    gains = found.values[found.picks]
    return back(found.picks, like, floating=False), back(gains, like)


@dataclass(frozen=True, eq=False)
class Rounds:
    """What the rounds chose: positions (k,), the gain of each sample (n,) when it was picked or in the last round, and the
    round (n,) it was picked in, from 1; 0 where it was not."""

    picks: NumPy
    values: NumPy
    rounds: NumPy


def _valid(rows: GradientRows, logits: Any, features: Any, targets: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Checked validation samples as (logits, features, probabilities of the labels)."""
    assert rows.right is not None
    z = tensor("valid_logits", logits, (2,), "(m, c)").to(rows.left)
    h = tensor("valid_features", features, (2,), "(m, d)").to(rows.left)
    m, c = z.shape
    if c != rows.left.shape[1] or h.shape != (m, rows.right.shape[1]):
        raise DataError(
            f"valid_logits {tuple(z.shape)} and valid_features {tuple(h.shape)} do not fit gradients of "
            f"{rows.left.shape[1]} x {rows.right.shape[1]}; expected (m, {rows.left.shape[1]}) and "
            f"(m, {rows.right.shape[1]})"
        )
    if getattr(targets, "ndim", 1) == 2:
        soft = tensor("valid_targets", targets, (2,), f"({m},) class indices or ({m}, {c}) soft labels").to(rows.left)
        if soft.shape != z.shape:
            raise DataError(f"valid_targets has shape {tuple(soft.shape)}; expected {tuple(z.shape)}, like the logits")
        return z, h, soft
    labels = class_indices("valid_targets", targets, m)
    if labels.max() >= c:
        raise DataError(f"valid_targets has class {labels.max()}; expected 0..{c - 1}, as valid_logits has {c} columns")
    return z, h, F.one_hot(torch.from_numpy(labels), c).to(rows.left)


def _rounds(
    rows: GradientRows, logits: Tensor, features: Tensor, labels: Tensor, k: int, rate: float, rounds: int
) -> Rounds:
    n = len(rows)
    picks, gone = [], np.zeros(n, dtype=bool)
    values, when = np.empty(n), np.zeros(n, dtype=np.int64)
    parts = [len(part) for part in np.array_split(np.arange(k), min(rounds, k))]
    for number, part in enumerate(parts, 1):
        direction = (logits.softmax(1) - labels).mT @ features / len(logits)
        gains = rate * rows.products(direction).double().cpu().numpy()
        values[~gone] = gains[~gone]
        gains[gone] = -np.inf
        best = np.argsort(-gains, kind="stable")[:part]
        picks.append(best)
        gone[best], when[best] = True, number
        moved = rows[torch.from_numpy(best).to(rows.left.device)].combined()
        logits = logits - rate * features @ moved.mT
    return Rounds(np.concatenate(picks), values, when)


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    """(b,) `||z||^2 / 2`, whose gradient at the outputs is the outputs: so the factors of a table give logits."""
    return 0.5 * outputs.square().sum(1)


@dataclass(frozen=True)
class Glister:
    """Samples whose gradients of the last layer point where the loss of the validation samples falls.

    Args:
        until: Share of the schedule after which gradients are taken.
        rate: Learning rate of the step that is looked ahead.
        rounds: In how many parts samples are picked.
        per_class: Whether every class is chosen for the validation samples of the class.
        deepcore_compat: See `glister`.
    """

    until: float = 0.2
    rate: float = 0.05
    rounds: int = 15
    per_class: bool = False
    deepcore_compat: bool = False

    card: ClassVar[Card] = Card(
        key="glister",
        title="Samples whose gradient steps lower the validation loss",
        paper="Killamsetty et al., GLISTER: Generalization based Data Subset Selection for Efficient and Robust Learning, "
        "2021, arXiv 2012.10630",
        saves=("samples", "compute"),
    )

    def __post_init__(self) -> None:
        check_options(self, positive=("until", "rate", "rounds"), shares=("until",))

    def needs(self) -> tuple[Gradients]:
        """A model at a share of its schedule."""
        from modicum.measurement.gradients import Gradients

        return (Gradients((self.until,)),)

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection:
        """All classes together, a budget per class as many in all, unless `per_class`; charged with 2 n c d a round."""
        table = measured[0]
        order = table.positions(data.train)
        of = labels_of("train", data.train)[order].numpy()
        answers = labels_of("valid", table.dataset("valid")).numpy()
        with ctx.ledger.clock("choose", self.card.key, labels=len(of) + len(answers)) as counts:
            rows = GradientRows(*table.factors("train"))
            logits, features = table.factors("valid", function=half_square)
            soft = table.dataset("valid").prepare_targets(table.device)
            rounds = 1 if self.deepcore_compat else self.rounds
            counts["extra_flops"] = 2 * rows.size * (len(rows) + 2 * len(logits)) * rounds
            chosen = looked_ahead(
                rows, logits, features, soft, budget, self.rate, rounds, of, answers if self.per_class else None
            )
        reasons = np.array([f"round {number} of {rounds}" if number else "gain too low" for number in chosen.rounds])
        return Selection.made(
            order,
            chosen.picks,
            values=chosen.values,
            unit="nats of validation loss by one step",
            reasons=reasons.astype(object),
        )


def looked_ahead(
    rows: GradientRows,
    logits: Tensor,
    features: Tensor,
    targets: Tensor,
    budget: Budget,
    rate: float,
    rounds: int,
    labels: NumPy,
    valid_labels: NumPy | None = None,
) -> Rounds:
    """`glister` on all samples, or with `valid_labels` class by class.

    Raises:
        DataError: A class has no validation samples.
    """
    z, h, soft = _valid(rows, logits, features, targets)
    if valid_labels is None:
        return _rounds(rows, z, h, soft, budget.count(len(rows), len(np.unique(labels))), rate, rounds)
    values, when = np.full(len(rows), np.nan), np.zeros(len(rows), dtype=np.int64)

    def pick(members: NumPy, k: int) -> tuple[NumPy, None]:
        c = labels[members[0]]
        answering = torch.from_numpy(np.flatnonzero(valid_labels == c)).to(z.device)
        if not len(answering):
            raise DataError(f"valid has no sample of class {c}; expected some of every class, or per_class=False")
        own = rows[torch.from_numpy(members).to(z.device)]
        found = _rounds(own, z[answering], h[answering], soft[answering], k, rate, rounds)
        values[members], when[members] = found.values, found.rounds
        return found.picks, None

    return Rounds(by_class(labels, budget, pick)[0], values, when)
