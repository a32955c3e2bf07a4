"""D2 pruning: messages between neighbors balance difficulty against diversity."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch

from modicum.arrays import Array, NumPy, back, to_numpy
from modicum.arrays import features as checked_features
from modicum.errors import DataError, ModicumError
from modicum.methods import Card
from modicum.options import check_options
from modicum.reading import by_id, labels_of, rows_of
from modicum.scores import Budget, Selection
from modicum.selection.by_class import by_class, count_of
from modicum.selection.ccs import cutoff_of
from modicum.selection.neighbors import neighbor_graph
from modicum.selection.ranks import finite, first_of
from modicum.selection.scored import Scored, scores_for

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import Features

__all__ = ["D2Pruning", "d2_pruning"]

MODES = ("sum", "product")
REVERSE = ("weighted", "absolute")


class Messages(NamedTuple):
    """How messages are sent: the kernels' decays in units of the median distance, and the two ways of the paper."""

    gamma_forward: float = 1.0
    gamma_reverse: float = 0.1
    mode: str = "sum"
    reverse: str = "weighted"


class Edges(NamedTuple):
    """Who neighbors whom: the neighbors of i are `targets[starts[i] : starts[i + 1]]`, that many `lengths` away."""

    starts: NumPy
    targets: NumPy
    lengths: NumPy


def d2_pruning(
    scores: Array,
    features: Array | None,
    budget: Budget | float | int | str,
    neighbors: int = 5,
    gamma_forward: float = 1.0,
    gamma_reverse: float = 0.1,
    mode: str = "sum",
    reverse: str = "weighted",
    graph: tuple[Array, Array] | None = None,
) -> Array:
    """Pick hard samples one after another; each tells its neighbors that it stands for them.

    On the graph in which two samples are neighbors when one is among the nearest of the other, with `d_ij` the Euclidean
    distance over the median distance of neighbors, every sample first hears of the difficulty around it,
    `x_i <- x_i + sum_j exp(-gamma_forward d_ij) x_j` (mode `sum`) or `x_i <- x_i sum_j exp(-gamma_forward d_ij) x_j`
    (`product`). Then again and again the sample k with the highest number is picked, and for its neighbors
    `x_j <- x_j - exp(-gamma_reverse d_kj) x_k` (`weighted`) or `x_j <- x_j - x_k` (`absolute`). A sample whose own number
    is below zero sends nothing, as by the letter of the formula its neighbors would gain. Ties go to the lower position.

    Scores below zero are all shifted so that the least is zero, and infinity is one more than the largest. A heap whose
    numbers are put right when they come up, as they only fall, makes it O((n + k neighbors) log n) once the graph is
    there. Memory is that of the graph and the heap, about 700 bytes a sample with 5 neighbors.

    Args:
        scores: (n,) difficulties, higher = harder.
        features: (n, d); None where the graph is given.
        budget: How many.
        neighbors: Nearest samples of each; 0 for none, which keeps the highest scores.
        gamma_forward: Decay of the messages of the first round; 0 for none.
        gamma_reverse: Decay of those of a pick; the larger, the less is left of diversity. Infinity reaches only
            duplicates.
        mode: `sum` or `product`.
        reverse: `weighted` or `absolute`.
        graph: (n, m) positions of neighbors and (n, m) distances, as `neighbor_graph` gives, in place of features.

    Returns:
        (k,) positions in the order picked: a smaller budget gives the first of a larger one.

    Raises:
        BudgetError: More than n, or per class.
        DataError: Shapes do not fit, a score is NaN, neighbors >= n, or an option is out of range.

    Example:
        >>> features = np.array([[0.0], [0.0], [9.0], [9.5]])
        >>> d2_pruning(np.array([3.0, 2.0, 1.0, 1.5]), features, 2, neighbors=1).tolist()
        [0, 3]

    Reference:
        Maharana, Yadav, Bansal, D2 Pruning: Message Passing for Balancing Diversity and Difficulty in Data Pruning, 2024,
        arXiv 2310.07931.
    """
    hard = finite("scores", scores)
    n = len(hard)
    messages = Messages(gamma_forward, gamma_reverse, mode, reverse)
    _check(messages, neighbors, n)
    k = count_of(budget, n)
    if graph is not None:
        edges = _edges(*_checked(graph, n))
    else:
        rows = checked_features("features", features)
        if len(rows) != n:
            raise DataError(f"features has {len(rows)} rows; expected {n}, one for each score")
        edges = _near(rows, neighbors)
    return back(_pick(hard, edges, k, messages).positions, scores, floating=False)


def _check(messages: Messages, neighbors: int, n: int) -> None:
    for name in ("gamma_forward", "gamma_reverse"):
        value = getattr(messages, name)
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not value >= 0:
            raise DataError(f"{name}={value!r}; expected a number >= 0, in units of one over the median distance")
    if isinstance(neighbors, bool) or not isinstance(neighbors, (int, np.integer)) or not 0 <= neighbors < n:
        raise DataError(f"neighbors={neighbors!r}; expected an integer from 0 to n - 1 = {n - 1}")
    for name, allowed in (("mode", MODES), ("reverse", REVERSE)):
        if getattr(messages, name) not in allowed:
            raise DataError(f"{name}={getattr(messages, name)!r}; expected one of {allowed}")


def _checked(graph: Any, n: int) -> tuple[NumPy, NumPy]:
    if not isinstance(graph, (tuple, list)) or len(graph) != 2:
        raise DataError(f"graph is a {type(graph).__name__}; expected the pair of positions and distances")
    indices, distances = (to_numpy("graph", part) for part in graph)
    if indices.ndim != 2 or len(indices) != n or indices.shape != distances.shape or indices.dtype.kind not in "iu":
        raise DataError(
            f"graph has shapes {indices.shape} and {distances.shape}; expected integers ({n}, m) and distances ({n}, m)"
        )
    if indices.size and (indices.min() < 0 or indices.max() >= n):
        raise DataError(f"graph has positions from {indices.min()} to {indices.max()}; expected 0..{n - 1}")
    if distances.size and not (np.isfinite(distances).all() and distances.min() >= 0):
        raise DataError("graph has distances that are negative or not finite; expected numbers >= 0")
    return indices.astype(np.int64), distances.astype(np.float64)


def _near(rows: NumPy, neighbors: int) -> Edges:
    if not neighbors:
        return Edges(np.zeros(len(rows) + 1, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0))
    indices, distances = neighbor_graph(rows, neighbors)
    return _edges(indices, distances.astype(np.float64))


def _edges(indices: NumPy, distances: NumPy) -> Edges:
    """Neighbors in both directions, each once and none of itself, with distances in units of their median."""
    n, m = indices.shape
    here = np.repeat(np.arange(n), m)
    other = indices.reshape(-1) != here
    here, there, lengths = here[other], indices.reshape(-1)[other], distances.reshape(-1)[other]
    some = lengths[lengths > 0]
    keys, first = np.unique(np.concatenate([here * n + there, there * n + here]), return_index=True)
    starts = np.searchsorted(keys, np.arange(n + 1) * n)
    both = np.tile(lengths, 2)[first] / (np.median(some) if len(some) else 1.0)
    return Edges(starts, keys % n, both)


def _kernel(gamma: float, lengths: NumPy) -> NumPy:
    return np.asarray(lengths == 0, dtype=np.float64) if np.isinf(gamma) else np.asarray(np.exp(-gamma * lengths))


def _forward(hard: NumPy, edges: Edges, messages: Messages) -> NumPy:
    x: NumPy = hard - min(0.0, float(hard.min()))
    if not len(edges.targets):
        return x
    sent = _kernel(messages.gamma_forward, edges.lengths) * x[edges.targets]
    heard = np.bincount(np.repeat(np.arange(len(x)), np.diff(edges.starts)), sent, len(x))
    return np.asarray(x + heard if messages.mode == "sum" else x * heard)


class Picked(NamedTuple):
    """(k,) positions in the order picked, the (n,) numbers after the forward messages, those that are left, and how many
    were picked when no number was above zero any more."""

    positions: NumPy
    before: NumPy
    after: NumPy
    spent: int


def _pick(hard: NumPy, edges: Edges, k: int, messages: Messages) -> Picked:
    before = _forward(hard, edges, messages)
    x = before.copy()
    weights = np.ones(len(edges.targets))
    if messages.reverse == "weighted":
        weights = _kernel(messages.gamma_reverse, edges.lengths)
    starts, targets = edges.starts.tolist(), edges.targets
    heap = list(zip((-x).tolist(), range(len(x))))
    heapq.heapify(heap)
    picks, spent = np.empty(k, dtype=np.int64), 0
    for t in range(k):
        bound, at = heap[0]
        while (now := -float(x[at])) != bound:  # messages came since it was put in the heap
            heapq.heapreplace(heap, (now, at))
            bound, at = heap[0]
        heapq.heappop(heap)
        picks[t] = at
        if bound < 0:
            part = slice(starts[at], starts[at + 1])
            x[targets[part]] += bound * weights[part]
        else:
            spent += 1
    return Picked(picks, before, x, spent)


@dataclass(frozen=True)
class D2Pruning:
    """The hardest samples that do not stand beside each other, class by class.

    Args:
        score: A valuation, with options or without; of a score that is a value, low values are hard.
        encoder: Whose features (see `modicum.measurement.Features`).
        neighbors: Nearest samples of each; of a class that has fewer, all others.
        gamma_forward: Decay of the first messages, in units of one over the median distance of neighbors.
        gamma_reverse: Decay of the messages of a pick.
        mode: `sum` or `product`.
        reverse: `weighted` or `absolute`.
        beta: Share of all samples, the hardest, that is cut first; None for that of `modicum.selection.cutoff_of`. The
            authors' example keeps 10 % after a cut of 40 %.
        per_class: Neighbors within each class, whose part is that of the data, and not over all classes.
        class_balance: Every class keeps at least this share of k / c samples; for neighbors over all classes.
    """

    score: str = "forgetting"
    encoder: str = "trained"
    neighbors: int = 5
    gamma_forward: float = 1.0
    gamma_reverse: float = 0.1
    mode: str = "sum"
    reverse: str = "weighted"
    beta: float | None = None
    per_class: bool = True
    class_balance: float = 0.0

    card: ClassVar[Card] = Card(
        key="d2-pruning",
        title="Hard samples that do not stand beside each other",
        paper="Maharana, Yadav, Bansal, D2 Pruning: Message Passing for Balancing Diversity and Difficulty in Data "
        "Pruning, 2024, arXiv 2310.07931",
        saves=("samples", "compute"),
        growth=2.0,
    )

    def __post_init__(self) -> None:
        check_options(
            self,
            not_negative=("neighbors", "gamma_forward", "gamma_reverse"),
            shares=("class_balance",),
            choices={"mode": MODES, "reverse": REVERSE},
        )
        if self.beta is not None and not (isinstance(self.beta, (int, float)) and 0 <= self.beta < 1):
            raise ModicumError(f"method 'd2-pruning' option beta={self.beta!r}; expected None or a number in [0, 1)")
        if self.per_class and self.class_balance:
            raise ModicumError(
                f"method 'd2-pruning' option class_balance={self.class_balance} is for per_class=False, as "
                "per_class=True gives every class its share; give one of them"
            )
        Scored(self.score)

    def needs(self) -> tuple[Scored, Features]:
        """The score, and features of the training samples."""
        from modicum.measurement.features import Features

        return (Scored(self.score), Features(self.encoder))

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection:
        """As `d2_pruning`, ties at random; a cutoff that leaves a class too few is filled up with the least hard of those
        cut. Charged with the distances of all pairs, 2 n^2 d operations, within each class or over all."""
        order = by_id(data.train)
        of = labels_of("train", data.train)[order].numpy()
        scores = scores_for(measured[0], data.train)
        table = rows_of("train features", measured[1].train, data.train)
        classes = self.per_class or budget.per_class is not None
        sizes = np.bincount(of) if classes else np.array([len(of)])
        pairs = 2 * int((sizes.astype(np.int64) ** 2).sum()) * table.shape[1]
        with ctx.ledger.clock("choose", self.card.key, extra_flops=pairs, labels=len(of)):
            # in a random order, so that ties, of which some scores have many, are broken at random
            chance = torch.randperm(len(of), generator=ctx.generator(self.card.key)).numpy()
            order, of = order[torch.from_numpy(chance)], of[chance]
            rows = checked_features("train features", table[order])
            hard = finite("scores", scores.difficulties[order])
            keep = budget.fraction(len(of), len(np.unique(of)))
            beta = cutoff_of(keep) if self.beta is None else self.beta
            inside = np.ones(len(of), dtype=bool)
            inside[np.argsort(-hard, kind="stable")[: int(np.floor(beta * len(of) + 0.5))]] = False
            before, after = np.full((2, len(of)), np.nan)
            spent: list[NumPy] = []

            def sequence(members: NumPy, k: int) -> NumPy:
                """The members as places among them, those that are cut last."""
                heard = members[inside[members]]
                made = self._picked(hard[heard], rows[heard], min(k, len(heard)))
                before[heard], after[heard] = made.before, made.after
                spent.append(heard[made.positions[len(made.positions) - made.spent :]])
                cut = members[~inside[members]]
                cut = cut[np.argsort(hard[cut], kind="stable")][: k - len(made.positions)]
                return np.searchsorted(members, np.concatenate([heard[made.positions], cut]))

            everyone = np.arange(len(of))
            if classes:
                kept, _ = by_class(of, budget, lambda members, k: (sequence(members, k), None))
            elif self.class_balance:
                kept = first_of(sequence(everyone, len(of)), budget, of, self.class_balance)
                spent = []  # all were picked, to have a sequence
            else:
                kept = sequence(everyone, budget.count(len(of)))
            reasons = np.where(after < before, "a sample beside it stands for it", "easier than those kept").astype(
                object
            )
            reasons[~inside] = f"harder than the cutoff of {100 * beta:.4g} %"
            reasons[kept[inside[kept]]] = "hard, and apart from those picked before it"
            last = np.concatenate([*spent, np.empty(0, dtype=np.int64)])
            reasons[last] = "picked when no hard sample was left"
            return Selection.made(
                order,
                kept,
                values=before,
                unit="difficulty around it" if self.mode == "sum" else "difficulty times that around it",
                reasons=reasons,
                note=_note(int((~inside[kept]).sum()), len(last), len(kept), beta),
            )

    def _picked(self, hard: NumPy, rows: NumPy, k: int) -> Picked:
        if not len(hard):
            return Picked(np.empty(0, dtype=np.int64), hard, hard, 0)
        edges = _near(rows, min(self.neighbors, len(rows) - 1))
        return _pick(hard, edges, k, Messages(self.gamma_forward, self.gamma_reverse, self.mode, self.reverse))


def _note(filled: int, spent: int, k: int, beta: float) -> str:
    notes = []
    if filled:
        notes.append(f"{filled} of those beyond the cutoff of {100 * beta:.4g} % were needed")
    if spent:
        notes.append(
            f"{spent} of {k} were picked when no number was above zero, where the order says little: a larger "
            "gamma_reverse, fewer neighbors or a score with fewer zeros leaves more"
        )
    return "; ".join(notes)
