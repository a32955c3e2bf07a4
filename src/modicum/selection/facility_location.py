"""Facility location: a subset in which every sample has one that is like it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import Array, NumPy, back
from modicum.errors import DataError
from modicum.methods import Card
from modicum.options import check_options
from modicum.scores import Budget
from modicum.selection.by_class import count_of
from modicum.selection.coverage import Coverage, SparseCoverage
from modicum.selection.greedy import Gains, by_gains, check_optimizer
from modicum.selection.kernels import Kernel, kernel_of
from modicum.selection.neighbors import neighbor_graph
from modicum.selection.submodular import Submodular, stood_for

__all__ = ["DENSE", "NEIGHBORS", "FacilityLocation", "facility_location", "sparse_similarity"]

DENSE = 20_000  # samples up to which the matrix of similarities is made
NEIGHBORS = 32  # of each sample above that
DEEPCORE_BATCH = 256  # the batch that its command line computes gains in


def facility_location(
    similarity_or_features: Array,
    budget: Budget | float | int | str,
    method: str = "lazy",
    *,
    kernel: str | None = None,
    neighbors: int = 0,
    epsilon: float = 0.01,
    beta: float = 0.9,
    generator: torch.Generator | None = None,
    deepcore_compat: bool = False,
) -> tuple[Array, Array]:
    """Pick samples one after another so that every sample is as similar as can be to one of them.

    `f(S) = sum_i max_{j in S} K_ij` with K >= 0; the gain of j is `sum_i max(0, K_ij - max_{s in S} K_is)`. Greedy picks
    reach at least 1 - 1/e of the best f. Ties, up to rounding, go to the lowest position; where nothing is left to gain
    the first that are left are picked, with gain 0.

    `lazy` and `exact` pick the same; `exact` computes n gains a pick, n^2 operations each. `lazy` computes a gain only
    while its last value could still win, and goes over to the entries that can still gain once they are fewer than a
    sixteenth of the matrix. `approximate` and `stochastic`: see `modicum.selection.greedy.by_gains`.

    Memory is the matrix, 4 n^2 bytes for float32 features up to 20,000 samples; above, the similarities of every sample
    to its nearest `neighbors` alone (the others count as 0), about 40 bytes a neighbor and sample at the peak. `stochastic` on
    features makes rows when it needs them, and no matrix.

    Args:
        similarity_or_features: (n, n) similarities K, or (n, d) features, or a SciPy sparse (n, n) matrix of similarities
            >= 0, samples x candidates. A square array is K unless `kernel` says otherwise, and must then be symmetric
            without negative entries; any other is features.
        budget: How much.
        method: `lazy`, `exact`, `stochastic` or `approximate`.
        kernel: `precomputed`; of features `cosine`, `(1 + cos) / 2`, or `rbf`, `exp(-||x - y||^2 / s)` with s the mean
            squared distance. None: see above, and `cosine`.
        neighbors: Of every sample, for a sparse K of features; 0 makes all of K, or takes 32 above 20,000 samples.
        epsilon: Of `stochastic`, in (0, 1): candidates a pick are `n / k ln(1 / epsilon)`.
        beta: Of `approximate`, in (0, 1).
        generator: Of `stochastic`; a CPU generator.
        deepcore_compat: Counts only the rows that the batched gain of DeepCore sums: the first 256, and 256 from every
            256 i on for i = 256, 512, ...

    Returns:
        (k,) positions in the order picked, and (k,) gains, which sum to f. A smaller budget gives the first of a larger
        one (not for `stochastic`).

    Raises:
        BudgetError: More than n, or per class.
        DataError: Not similarities, or features of another shape or not finite.
        ModicumError: method, epsilon, beta or neighbors out of range, or no generator.

    Example:
        >>> indices, gains = facility_location(np.array([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0]]), 2)
        >>> indices.tolist(), [round(g, 3) for g in gains.tolist()]
        ([1, 2], [2.547, 0.45])

    Reference:
        Nemhauser, Wolsey, Fisher, An analysis of approximations for maximizing submodular set functions, 1978; Minoux,
        Accelerated greedy algorithms for maximizing submodular set functions, 1978; Mirzasoleiman et al., Lazier Than
        Lazy Greedy, 2015, arXiv 1409.7938.
    """
    check_optimizer(method, epsilon, beta, generator)
    if isinstance(neighbors, bool) or not isinstance(neighbors, int) or neighbors < 0:
        raise DataError(f"neighbors={neighbors!r}; expected an integer >= 0")
    like: Any = similarity_or_features
    objective: Gains
    if hasattr(like, "tocsc"):
        objective, like = SparseCoverage.of(_checked_sparse(like)), like.data
        n = len(objective)
    else:
        given = kernel_of("similarity_or_features", like, kernel)
        n = len(given)
        count_of(budget, n)  # before a matrix is made for nothing
        if given.name != "precomputed" and (neighbors or (n > DENSE and method != "stochastic")):
            if deepcore_compat:
                raise DataError("deepcore_compat needs all similarities; give at most 20,000 samples and neighbors=0")
            objective = SparseCoverage.of(sparse_similarity(given, min(neighbors or NEIGHBORS, n - 1)))
        else:
            if method != "stochastic":
                given = given.whole()
            counted = _batched(n).to(given.rows.device) if deepcore_compat else None
            objective = Coverage(given, counted, shrink=method in ("lazy", "approximate"))
    picks, gains = by_gains(objective, count_of(budget, n), method, epsilon, beta, generator)
    return back(picks, like, floating=False), back(gains, like)


def sparse_similarity(kernel: Kernel, neighbors: int) -> Any:
    """The similarities of every sample to itself and to its nearest others, all others 0.

    Args:
        kernel: `cosine` or `rbf`.
        neighbors: Of each sample; the nearest are found in cells above 100,000 samples (`neighbor_graph`).

    Returns:
        SciPy (n, n) CSR matrix; row i holds what sample i is similar to.
    """
    from scipy.sparse import csr_matrix

    n = len(kernel)
    own = torch.arange(n, dtype=torch.int32)[:, None]
    if neighbors < 1:
        return csr_matrix(np.ones((n, n), dtype=np.float32))
    indices, distances = neighbor_graph(kernel.rows, neighbors)
    columns = torch.cat([own, indices.int().cpu()], 1)
    squares = distances.square_()
    alike = squares.div_(-4).add_(1).clamp_(min=0) if kernel.name == "cosine" else squares.div_(-kernel.scale).exp_()
    bare = (kernel.rows == 0).all(1) if kernel.name == "cosine" else None
    if bare is not None and bool(bare.any()):  # the cosine with a row of zeros is 0, whatever its distance
        alike.masked_fill_(bare[:, None] | bare[indices], 0.5)
    del indices
    values = torch.cat([kernel.diagonal[:, None].cpu(), alike.cpu()], 1)
    starts = np.arange(0, n * (neighbors + 1) + 1, neighbors + 1)
    return csr_matrix((values.numpy().ravel(), columns.numpy().ravel(), starts), shape=(n, n))


def _checked_sparse(matrix: Any) -> Any:
    if matrix.shape[0] != matrix.shape[1] or not matrix.shape[0]:
        raise DataError(f"similarity_or_features has shape {matrix.shape}; expected (n, n) similarities, not empty")
    data = matrix.tocsc().data
    if not np.isfinite(data).all() or (len(data) and data.min() < 0):
        raise DataError(f"similarity_or_features has the entry {data.min():.4g}; expected finite similarities >= 0")
    return matrix.astype(np.float64) if data.dtype.kind != "f" else matrix


def _batched(n: int) -> Tensor:
    """(n,) the rows that are summed by `range(b, n, b)` whose members are multiplied by b again."""
    at, b = torch.arange(n), DEEPCORE_BATCH
    return (at < b) | ((at >= b * b) & (at // b % b == 0))


@dataclass(frozen=True)
class FacilityLocation(Submodular):
    """The samples that the others are most similar to, each class on its own.

    Args:
        encoder: Whose features (see `modicum.measurement.Features`).
        kernel: `cosine` or `rbf`; see `facility_location`.
        optimizer: `lazy`, `exact`, `stochastic` or `approximate`.
        per_class: Choose inside each class, in the proportions of the data.
        neighbors: Of a sparse matrix of similarities; 0 is dense up to 20,000 members.
        epsilon: Of `stochastic`.
        beta: Of `approximate`.
        deepcore_compat: Count only the rows that the batched gain of DeepCore sums.
    """

    neighbors: int = 0
    beta: float = 0.9

    card: ClassVar[Card] = Card(
        key="facility-location",
        title="A subset in which every sample has one that is like it",
        paper="Nemhauser, Wolsey, Fisher, An analysis of approximations for maximizing submodular set functions, 1978; "
        "Minoux, Accelerated greedy algorithms for maximizing submodular set functions, 1978",
        saves=("samples", "labels"),
        tasks=("classification", "regression", "unlabeled"),
        growth=2.0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self, positive=("beta",), below_one=("beta",), not_negative=("neighbors",))

    def picked(self, rows: Tensor, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See the function."""
        return facility_location(
            rows,
            k,
            self.optimizer,
            kernel=self.kernel,
            neighbors=self.neighbors,
            epsilon=self.epsilon,
            beta=self.beta,
            generator=generator,
            deepcore_compat=self.deepcore_compat,
        )

    def explained(self, rows: Tensor, places: NumPy, ids: NumPy) -> list[str]:
        """Which kept sample stands for each."""
        return stood_for(rows, self.kernel, places, ids)
