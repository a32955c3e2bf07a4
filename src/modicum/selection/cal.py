"""Contrastive active learning: samples that the model answers otherwise than their neighbors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import BLOCK, Array, NumPy, back, center_of, class_indices, probabilities_of
from modicum.arrays import features as checked_features
from modicum.errors import DataError
from modicum.flops import count_flops
from modicum.methods import Card
from modicum.options import check_options
from modicum.reading import labels_of
from modicum.scores import Budget, Selection
from modicum.selection.by_class import by_class
from modicum.selection.neighbors import neighbor_graph

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.gradients import Gradients, GradientTable

__all__ = ["Cal", "cal"]

LEAST = 1e-12  # of probabilities whose logarithm is taken


def cal(
    features: Array,
    probabilities: Array,
    neighbors: int = 10,
    labeled: Array | None = None,
    *,
    symmetric: bool = False,
    deepcore_compat: bool = False,
) -> Array:
    """How much the predictions of the nearest neighbors of a sample differ from its own.

    `s(x) = (1/k) sum_{x' in N_k(x)} KL(p(y | x') || p(y | x))`, in nats, with the k nearest labeled samples `N_k(x)` by
    Euclidean distance; without any labels the neighbors are the other samples. The highest are worth most: they lie
    where alike samples are answered unlike. Time is n^2 d multiplications at most (see `neighbor_graph`), memory that of
    the features twice, n k numbers and blocks of 32 MB.

    Args:
        features: (n, d) of the same model, the input of its last layer.
        probabilities: (n, c) of every sample, rows summing to 1; below 1e-12 they count as that.
        neighbors: k.
        labeled: (m,) positions of labeled samples, from which neighbors are taken; the others are the candidates.
        symmetric: Half the sum of the divergences in both directions, as DeepCore does.
        deepcore_compat: As DeepCore's released code: the sample itself is left out by dropping the nearest, which is
            wrong where samples are equal, and probabilities of zero give NaN.

    Returns:
        (n,) scores, higher = more worth keeping; NaN for labeled samples, which are no candidates.

    Raises:
        DataError: Shapes that do not fit, entries that are not finite, rows that do not sum to 1, k out of range, or
            positions out of range.

    Example:
        >>> x, p = np.array([[0.0], [1.0], [2.0], [9.0]]), np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]])
        >>> cal(x, p, neighbors=1).round(3).tolist()
        [0.0, 0.0, 1.146, 0.0]

    Reference:
        Margatina et al., Active Learning by Acquiring Contrastive Examples, 2021, arXiv 2109.03764.
    """
    rows = checked_features("features", features)
    p = probabilities_of(probabilities, (2,), "(n, c)").cpu()
    if len(p) != len(rows):
        raise DataError(f"probabilities has {len(p)} rows but features {len(rows)}; expected as many")
    n, k = len(rows), neighbors
    scores = torch.full((n,), torch.nan, dtype=p.dtype)
    if labeled is None:
        _check_neighbors(k, n - 1, "the other samples")
        found = _dropping_first(rows, k) if deepcore_compat else neighbor_graph(rows, k)[0]
        scores[:] = _divergences(p, torch.arange(n), torch.from_numpy(found), symmetric, deepcore_compat)
    else:
        known = np.unique(class_indices("labeled", labeled))
        if known[-1] >= n:
            raise DataError(f"labeled has position {known[-1]}; expected positions from 0 to {n - 1}")
        _check_neighbors(k, len(known), "the labeled samples")
        pool = np.setdiff1d(np.arange(n), known)
        near = torch.from_numpy(known[_among(rows[pool], rows[known], k)]) if len(pool) else torch.empty(0, k).long()
        scores[torch.from_numpy(pool)] = _divergences(p, torch.from_numpy(pool), near, symmetric, deepcore_compat)
    return back(scores.numpy(), probabilities)


def _check_neighbors(k: Any, most: int, of: str) -> None:
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= most:
        raise DataError(f"neighbors={k!r}; expected an integer from 1 to {most}, the number of {of}")


def _divergences(p: Tensor, own: Tensor, near: Tensor, symmetric: bool, plain: bool) -> Tensor:
    """(b,) mean divergence of the neighbors (b, k) from the samples at the positions (b,)."""
    logs = (p if plain else p.clamp_min(LEAST)).log()
    found = torch.empty(len(own), dtype=p.dtype)
    for part in torch.split(torch.arange(len(own)), max(1, BLOCK // (near.shape[1] * p.shape[1]))):
        mine, theirs = own[part, None], near[part]
        apart = p[theirs] * (logs[theirs] - logs[mine])
        if symmetric:
            apart = (apart + p[mine] * (logs[mine] - logs[theirs])) / 2
        found[part] = apart.sum(-1).mean(-1)
    return found if plain else found.clamp_min(0)


def _among(queries: NumPy, table: NumPy, k: int) -> NumPy:
    """(b, k) places of the nearest rows of the table, in blocks."""
    center = center_of(table).astype(table.dtype)  # far from zero the products would lose the differences
    every, queries = torch.from_numpy(table - center), queries - center
    squares = torch.linalg.vecdot(every, every)
    parts = torch.split(torch.from_numpy(queries), max(1, BLOCK // len(table)))
    near = [torch.addmm(squares, part, every.T, alpha=-2).topk(k, largest=False).indices for part in parts]
    found: NumPy = torch.cat(near).numpy()
    return found


def _dropping_first(rows: NumPy, k: int) -> NumPy:
    """(n, k) what is left of the k + 1 nearest of all, the sample itself among them, without the first."""
    return _among(rows, rows, k + 1)[:, 1:]


@dataclass(frozen=True)
class Cal:
    """The samples that a young model answers otherwise than their nearest neighbors in its own features.

    Args:
        neighbors: k; as many as there are where there are fewer.
        until: Share of the training run after which features and probabilities are taken.
        per_class: Neighbors and budget class by class, as DeepCore does; the paper, which knows no labels yet, does not.
        symmetric: See `cal`.
        deepcore_compat: Keep the lowest scores, the least contrastive, and the rest of what `cal` says of this option.

    Raises:
        ModicumError: A number out of range.
    """

    neighbors: int = 10
    until: float = 0.2
    per_class: bool = True
    symmetric: bool = False
    deepcore_compat: bool = False

    card: ClassVar[Card] = Card(
        key="cal",
        title="Samples that a young model answers otherwise than their neighbors",
        paper="Margatina et al., Active Learning by Acquiring Contrastive Examples, 2021, arXiv 2109.03764",
        saves=("samples", "labels"),
        growth=2.0,
    )

    def __post_init__(self) -> None:
        check_options(self, positive=("neighbors", "until"), shares=("until",))

    def needs(self) -> tuple[Gradients]:
        """A model at one moment of its training."""
        from modicum.measurement.gradients import Gradients

        return (Gradients((self.until,)),)

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection:
        """The highest scores, ties to the lower id; charged for a pass over the samples and 2 d operations a pair.

        Without `per_class` a budget per class gives as many in all.
        """
        labels = labels_of("train", data.train)
        table: GradientTable = measured[0]
        order = table.positions(data.train)
        of = labels[order].numpy()
        values = np.full(len(of), np.nan)
        k = budget.count(len(of), len(np.unique(of)) if budget.per_class else 1)
        with ctx.ledger.clock("choose", self.card.key, labels=len(of) if self.per_class else 0) as counts:
            with count_flops() as counter:
                rows, p = features_and_probabilities(table)

                def pick(members: NumPy, wanted: int) -> tuple[NumPy, None]:
                    near = min(self.neighbors, len(members) - 1)
                    found = np.zeros(len(members))
                    if near:
                        found = cal(
                            rows[members], p[members], near,
                            symmetric=self.symmetric, deepcore_compat=self.deepcore_compat,
                        )  # fmt: skip
                    values[members] = found
                    return np.argsort(found if self.deepcore_compat else -found, kind="stable")[:wanted], None

                picks = by_class(of, budget, pick)[0] if self.per_class else pick(np.arange(len(of)), k)[0]
            counts.update(samples=len(of), extra_flops=counter.flops, uncounted=counter.uncounted)
        return Selection.made(order, picks, values=values, unit="nats from the neighbors")


def features_and_probabilities(table: GradientTable) -> tuple[NumPy, NumPy]:
    """(n, d) input of the last layer and (n, c) float64 probabilities of the training samples, in the order of their ids."""
    _, h = table.factors("train")
    logits = table.values("train", function=lambda outputs, targets: outputs)
    return h.cpu().numpy(), logits.double().softmax(1).cpu().numpy()
