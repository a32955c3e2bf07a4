"""Graph cut: a subset that is like all samples, and little like itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import Array, back
from modicum.errors import DataError
from modicum.methods import Card
from modicum.options import check_options
from modicum.scores import Budget
from modicum.selection.by_class import count_of
from modicum.selection.greedy import by_vector, check_optimizer, sample_size
from modicum.selection.kernels import kernel_of
from modicum.selection.submodular import Submodular

__all__ = ["GraphCut", "graph_cut"]


def graph_cut(
    similarity_or_features: Array,
    budget: Budget | float | int | str,
    method: str = "lazy",
    *,
    trade_off: float = 2.0,
    kernel: str | None = None,
    epsilon: float = 0.01,
    generator: torch.Generator | None = None,
    deepcore_compat: bool = False,
) -> tuple[Array, Array]:
    """Pick samples one after another that are similar to all samples, but not to each other.

    `f(S) = lambda sum_{i in V, j in S} K_ij - sum_{i, j in S} K_ij` with K >= 0; the gain of j is `lambda sum_i K_ij -
    2 sum_{s in S} K_sj - K_jj`. Submodular for every lambda > 0, and never falling from lambda = 2 on, where greedy picks
    reach at least 1 - 1/e of the best f. Ties, up to rounding, go to the lowest position.

    Every gain is kept up to date with one row of K a pick, so that `lazy`, `exact` and `approximate` are one and the same.
    Time is 2 n d operations a pick on features, n on a matrix; `rbf` takes n^2 d once for the sums. No matrix is made:
    memory is that of the features.

    Args:
        similarity_or_features: (n, n) similarities K, or (n, d) features; see `facility_location`.
        budget: How much.
        method: `lazy`, `exact`, `approximate`, or `stochastic`: the best of a random part.
        trade_off: lambda > 0.
        kernel: `precomputed`, `cosine` or `rbf`; see `facility_location`.
        epsilon: Of `stochastic`, in (0, 1).
        generator: Of `stochastic`; a CPU generator.
        deepcore_compat: Leaves K_jj out of the gain, as DeepCore does (with trade_off=1).

    Returns:
        (k,) positions in the order picked, and (k,) gains, which sum to f and may be negative for lambda < 2.

    Raises:
        BudgetError: More than n, or per class.
        DataError: Not similarities, or features of another shape or not finite; trade_off out of range.
        ModicumError: method or epsilon out of range, or no generator.

    Example:
        >>> indices, gains = graph_cut(np.array([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0]]), 2)
        >>> indices.tolist(), [round(g, 3) for g in gains.tolist()]
        ([1, 0], [4.095, 2.0])

    Reference:
        Iyer et al., Submodular Combinatorial Information Measures with Applications in Machine Learning, 2021,
        arXiv 2006.15412; Nemhauser, Wolsey, Fisher, 1978.
    """
    check_optimizer(method, epsilon, 0.5, generator)
    if isinstance(trade_off, bool) or not isinstance(trade_off, (int, float)) or not 0 < trade_off < float("inf"):
        raise DataError(f"trade_off={trade_off!r}; expected a number > 0")
    made = kernel_of("similarity_or_features", similarity_or_features, kernel)
    n = len(made)
    k = count_of(budget, n)
    gains = trade_off * made.sums()
    if not deepcore_compat:
        gains -= made.diagonal.double()
    tolerance = 1e-12 * float(gains.abs().max())
    if made.rows.dtype == torch.float32:  # the sums are exact, but every pick subtracts entries that were rounded
        tolerance = 1e-6 * float(made.diagonal.abs().max()) * k**0.5
    left = torch.ones(n, dtype=torch.bool, device=gains.device)
    picks, won = np.empty(k, dtype=np.int64), np.empty(k)
    size, draw = sample_size(n, k, epsilon), generator if method == "stochastic" else None
    for t in range(k):
        at = by_vector(gains, left, size, tolerance, draw)
        picks[t], won[t] = at, float(gains[at])
        left[at] = False
        if t + 1 < k:
            gains.sub_(made.row(at), alpha=2)
    return back(picks, similarity_or_features, floating=False), back(won, similarity_or_features)


@dataclass(frozen=True)
class GraphCut(Submodular):
    """The samples that are like the others of their class, but not like each other.

    Args:
        encoder: Whose features (see `modicum.measurement.Features`).
        kernel: `cosine` or `rbf`; see `facility_location`.
        trade_off: lambda, how much likeness to all counts against likeness among those picked.
        optimizer: `lazy`, `exact`, `approximate` (all the same picks) or `stochastic`.
        per_class: Choose inside each class, in the proportions of the data.
        epsilon: Of `stochastic`.
        deepcore_compat: Leave K_jj out of the gain; with trade_off=1 this is DeepCore's.
    """

    trade_off: float = 2.0

    card: ClassVar[Card] = Card(
        key="graph-cut",
        title="A subset that is like all samples, and little like itself",
        paper="Iyer et al., Submodular Combinatorial Information Measures with Applications in Machine Learning, 2021, "
        "arXiv 2006.15412",
        saves=("samples", "labels"),
        tasks=("classification", "regression", "unlabeled"),
        growth=2.0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self, positive=("trade_off",))

    def operations(self, n: int, d: int, k: int) -> int:
        """A row of similarities a pick, and the sums."""
        return 2 * n * d * (k + (n if self.kernel == "rbf" else 2))

    def picked(self, rows: Tensor, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See the function."""
        return graph_cut(
            rows,
            k,
            self.optimizer,
            trade_off=self.trade_off,
            kernel=self.kernel,
            epsilon=self.epsilon,
            generator=generator,
            deepcore_compat=self.deepcore_compat,
        )
