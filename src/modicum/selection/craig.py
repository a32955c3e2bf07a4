"""CRAIG: samples whose gradients, each counted as often as it is the nearest, stand for those of all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import Array, NumPy, back
from modicum.context import generator as made_generator
from modicum.errors import ModicumError
from modicum.methods import Card
from modicum.options import check_options
from modicum.reading import by_id, labels_of, rows_of
from modicum.scores import Budget, Selection
from modicum.selection.by_class import by_class, count_of
from modicum.selection.gradient_rows import GradientRows, gradient_rows

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import Features
    from modicum.measurement.gradients import Gradients

__all__ = ["Covered", "Craig", "covered", "craig", "represented"]

Method = Literal["auto", "lazy", "stochastic"]
Part = Literal["all", "outputs", "inputs"]
DENSE = 12_000  # samples whose distances are kept: 0.6 GB in single precision
EPSILON = 0.01  # of the stochastic greedy algorithm


def craig(
    gradients: Array | tuple[Array, Array],
    budget: Budget | float | int | str,
    *,
    epsilon: float | None = None,
    method: Method = "auto",
    generator: torch.Generator | None = None,
    deepcore_compat: bool = False,
) -> tuple[Array, Array]:
    """Choose k samples S and count for how many samples each of them stands.

    `||sum_i g_i - sum_{j in S} gamma_j g_j|| <= sum_i min_{j in S} ||g_i - g_j||`, with `gamma_j` the number of samples
    whose nearest gradient in S is `g_j` (one that is chosen stands for itself, then ties go to the first picked), so that
    they sum to n. S minimizes the bound greedily: it maximizes the facility location `sum_i max_{j in S} (D - d_ij)` with
    D the largest distance, to at least 1 - 1/e of the best. Choose class by class: gradients of different classes bound
    badly.

    `lazy` keeps the n x n distances (0.6 GB for 12,000 samples in single precision; time n^2 (c + d)); `stochastic` looks
    at `(n / k) ln 100` samples a step, to 1 - 1/e - 0.01 in expectation, in memory O(n) and five times the products;
    `auto` is the latter above 12,000 samples.

    Args:
        gradients: (n, p), or factors (n, c) and (n, d) of `g_i = e_i h_i^T`; for linear models the inputs themselves bound
            the distances of gradients.
        budget: How much: k.
        epsilon: The bound at which it ends with fewer: the smallest part of the greedy sequence that covers so well.
        method: `lazy`, `stochastic` or `auto`.
        generator: Of the candidates of `stochastic`; one of seed 0 when None.
        deepcore_compat: As DeepCore's code: every weight is one too many, so that they sum to n + k.

    Returns:
        (k,) positions in the order picked, and (k,) weights gamma.

    Raises:
        BudgetError: More than n.
        DataError: Another shape, empty or not finite.
        ModicumError: epsilon is negative, or the method is unknown.

    Example:
        >>> positions, weights = craig(np.array([[0.0], [0.1], [0.2], [5.0]]), 2)
        >>> positions.tolist(), weights.tolist()
        ([1, 3], [3.0, 1.0])

    Reference:
        Mirzasoleiman, Bilmes, Leskovec, Coresets for Data-efficient Training of Machine Learning Models, 2020,
        arXiv 1906.01827.
    """
    if epsilon is not None and not 0 <= epsilon < math.inf:
        raise ModicumError(f"epsilon={epsilon!r}; expected a bound >= 0, in units of a gradient, or None")
    if method not in ("auto", "lazy", "stochastic"):
        raise ModicumError(f"method={method!r}; expected 'auto', 'lazy' or 'stochastic'")
    rows = gradient_rows("gradients", gradients).centered()
    k = count_of(budget, len(rows))
    squares = rows.squares()
    if _is_lazy(method, len(rows)):
        picks, bounds = _lazy(rows, squares, k)
    else:
        picks, bounds = _stochastic(rows, squares, k, generator or made_generator(0, "craig"))
    if epsilon is not None and bool((bounds <= epsilon).any()):
        picks = picks[: int(np.argmax(bounds <= epsilon)) + 1]
    nearest, _ = represented(rows, picks, squares)
    weights = np.bincount(nearest, minlength=len(picks)).astype(np.float64) + deepcore_compat
    like = gradients[0] if isinstance(gradients, tuple) else gradients
    return back(picks, like, floating=False), back(weights, like)


def represented(rows: GradientRows, picks: NumPy, squares: Tensor | None = None) -> tuple[NumPy, NumPy]:
    """Which of the picks each sample is nearest to, and how far it is.

    Args:
        rows: The gradients (n, ...).
        picks: (k,) positions.
        squares: (n,) squared norms, made when None.

    Returns:
        (n,) places among the picks, each pick being its own, and (n,) distances. Memory is that of a block.
    """
    at = torch.from_numpy(picks).to(rows.left.device)
    nearest, far = np.empty(len(rows), dtype=np.int64), np.empty(len(rows))
    for here, distances in rows.distances(rows.squares() if squares is None else squares, at):
        least, place = distances.min(1)
        nearest[here], far[here] = place.cpu().numpy(), least.double().cpu().numpy()
    nearest[picks], far[picks] = np.arange(len(picks)), 0.0
    return nearest, far


def products(sizes: NumPy, method: Method) -> int:
    """Inner products that `craig` takes for classes of these sizes."""
    times = np.array([1.0 if _is_lazy(method, int(n)) else math.log(1 / EPSILON) for n in sizes])
    return round(float((times * sizes.astype(np.float64) ** 2).sum()))


def _is_lazy(method: Method, n: int) -> bool:
    return method == "lazy" or (method == "auto" and n <= DENSE)


def _lazy(rows: GradientRows, squares: Tensor, k: int) -> tuple[NumPy, NumPy]:
    """Positions in the order picked, and the sum of the distances to the nearest of the first t of them."""
    from modicum.selection.facility_location import facility_location

    n = len(rows)
    near = torch.empty(n, n, dtype=rows.left.dtype, device=rows.left.device)
    for here, distances in rows.distances(squares, torch.arange(n, device=rows.left.device)):
        near[here] = distances
    largest = float(near.max())
    torch.sub(largest, near, out=near)
    picks = facility_location(near, k, kernel="precomputed")[0].cpu()
    bounds, covered = np.empty(k), torch.zeros_like(near[0])
    for t, pick in enumerate(picks.tolist()):
        torch.maximum(covered, near[pick], out=covered)
        bounds[t] = n * largest - float(covered.sum(dtype=torch.float64))
    return picks.numpy(), bounds


def _stochastic(rows: GradientRows, squares: Tensor, k: int, draw: torch.Generator) -> tuple[NumPy, NumPy]:
    """The same, each the best of a few candidates at random whose distances are made when they are needed."""
    n = len(rows)
    few = min(n, math.ceil(n / k * math.log(1 / EPSILON)))
    far = torch.full_like(squares, 2 * float(squares.max()) ** 0.5)  # no two gradients are farther apart
    free = torch.ones(n, dtype=torch.bool)
    picks, bounds = np.empty(k, dtype=np.int64), np.empty(k)
    for t in range(k):
        left = free.nonzero().flatten()
        at = left[torch.randperm(len(left), generator=draw)[:few].sort().values].to(squares.device)
        gains = squares.new_zeros(len(at))
        for here, distances in rows.distances(squares, at):
            gains += (far[here, None] - distances).clamp_(min=0).sum(0)
        best = int(gains.argmax())
        for here, distances in rows.distances(squares, at[best : best + 1]):
            torch.minimum(far[here], distances[:, 0], out=far[here])
        picks[t] = int(at[best])
        free[picks[t]] = False
        bounds[t] = float(far.sum(dtype=torch.float64))
    return picks, bounds


@dataclass(frozen=True)
class Craig:
    """Of every class, samples whose gradients stand for the others, weighted by how many.

    The gradients are of one moment of a training, when most samples are answered right already: theirs are nearly zero, so
    that one sample stands for hundreds, and a few weigh as much as all others, which makes steps noisy (`clip=1.0` in the
    recipe helps). The paper chooses anew every few epochs, for the model as it is then: that is
    `adaptive-selection(method='craig')`. Once and for all it chooses by the `inputs`, for linear models.

    Args:
        until: Share of the schedule after which gradients are taken.
        optimizer: See `craig`: `lazy`, `stochastic` or `auto`.
        deepcore_compat: See `craig`.
        part: What distances are between: gradients of `all` the last layer, as in DeepCore; their factor at the `outputs`,
            `p - e_y`, as in the paper's networks; or the `inputs`, whose distances bound those of the gradients of a linear
            model within a class, so that no model is needed.
    """

    until: float = 0.2
    optimizer: Method = "auto"
    deepcore_compat: bool = False
    part: Part = "all"

    card: ClassVar[Card] = Card(
        key="craig",
        title="Samples whose gradients stand for the others, weighted by how many",
        paper="Mirzasoleiman, Bilmes, Leskovec, Coresets for Data-efficient Training of Machine Learning Models, 2020, "
        "arXiv 1906.01827",
        saves=("samples", "compute"),
        growth=2.0,
    )

    def __post_init__(self) -> None:
        options = {"optimizer": ("auto", "lazy", "stochastic"), "part": ("all", "outputs", "inputs")}
        check_options(self, positive=("until",), shares=("until",), choices=options)

    def needs(self) -> tuple[Gradients] | tuple[Features]:
        """A model at a share of its schedule, or the inputs."""
        from modicum.measurement.features import Features
        from modicum.measurement.gradients import Gradients

        return (Features("inputs"),) if self.part == "inputs" else (Gradients((self.until,)),)

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection:
        """Class by class; charged with the products of all pairs of a class."""
        order = by_id(data.train)
        of = labels_of("train", data.train)[order].numpy()
        with ctx.ledger.clock("choose", self.card.key, labels=len(of)) as counts:
            rows = self._rows(data, order, measured[0])
            counts["extra_flops"] = 2 * rows.columns * products(np.bincount(of), self.optimizer)
            chosen = covered(rows, of, budget, self.optimizer, ctx.generator(self.card.key), self.deepcore_compat)
        ids = data.train.ids[order.numpy()]
        reasons = np.array([f"stood for by {ids[at].item()!r}" for at in chosen.nearest], dtype=object)
        for at, weight in zip(chosen.picks, chosen.weights):
            reasons[at] = f"stands for {weight:.4g} samples"
        return Selection.made(
            order,
            chosen.picks,
            weights=chosen.weights,
            values=chosen.distances,
            unit=f"distance to the nearest kept {'sample' if self.part == 'inputs' else 'gradient'} of its class",
            reasons=reasons,
        )

    def _rows(self, data: Splits, order: Tensor, measured: Any) -> GradientRows:
        """What distances are between, in the order of the ids."""
        if self.part == "inputs":
            return GradientRows(rows_of("train features", measured.train, data.train)[order])
        measured.positions(data.train)  # says where it is another data set
        e, h = measured.factors("train")
        return GradientRows(e, h) if self.part == "all" else GradientRows(e)


@dataclass(frozen=True, eq=False)
class Covered:
    """What `covered` chose: positions (k,), weights (k,), and of all samples (n,) the position of the one that stands for
    it and the distance of their gradients."""

    picks: NumPy
    weights: NumPy
    nearest: NumPy
    distances: NumPy


def covered(
    rows: GradientRows,
    labels: NumPy,
    budget: Budget,
    method: Method,
    draw: torch.Generator,
    deepcore_compat: bool = False,
) -> Covered:
    """`craig` class by class."""
    nearest, distances = np.empty(len(rows), dtype=np.int64), np.empty(len(rows))

    def pick(members: NumPy, k: int) -> tuple[NumPy, NumPy]:
        own = rows[torch.from_numpy(members).to(rows.left.device)].centered()
        given = own.left if own.right is None else (own.left, own.right)
        at, weights = craig(given, k, method=method, generator=draw, deepcore_compat=deepcore_compat)
        places = at.cpu().numpy()
        near, far = represented(own, places)
        nearest[members], distances[members] = members[places[near]], far
        return places, weights.double().cpu().numpy()

    nearest[:], distances[:] = np.arange(len(rows)), np.nan  # of a class that is allotted none
    picks, weights = by_class(labels, budget, pick)
    assert weights is not None
    return Covered(picks, weights, nearest, distances)
