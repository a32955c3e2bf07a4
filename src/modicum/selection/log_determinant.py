"""Log-determinant: a subset whose members are unlike each other, by the volume they span."""

from __future__ import annotations

import warnings
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

__all__ = ["LogDeterminant", "log_determinant"]

NOTHING = 1e-9  # of the greatest diagonal entry: what is left of a sample that the picks explain, up to rounding


def log_determinant(
    similarity_or_features: Array,
    budget: Budget | float | int | str,
    method: str = "lazy",
    *,
    ridge: float = 0.0,
    kernel: str | None = None,
    epsilon: float = 0.01,
    generator: torch.Generator | None = None,
    deepcore_compat: bool = False,
) -> tuple[Array, Array]:
    """Pick samples one after another so that the determinant of their similarities is as great as can be.

    `f(S) = log det(K_SS + ridge I)` with K positive semidefinite; the gain of j is `log(K_jj + ridge - k_Sj^T (K_SS +
    ridge I)^-1 k_Sj)`. What stands in the logarithm is kept for every sample by one row of a growing Cholesky factor.
    Ties, up to rounding, go to the lowest position. Where the picks explain every sample, the first that are left follow,
    with gain minus infinity and a warning: a ridge prevents that.

    Time is 2 n (d + t) operations for pick t, memory 8 n k bytes. As every gain is known at every pick, `lazy`, `exact`
    and `approximate` are one and the same.

    Args:
        similarity_or_features: (n, n) similarities K, or (n, d) features; see `facility_location`. Entries may be negative.
        budget: How much.
        method: `lazy`, `exact`, `approximate`, or `stochastic`: the best of a random part.
        ridge: >= 0, added to the diagonal.
        kernel: `precomputed`, `cosine` or `rbf`; see `facility_location`. `cosine` of d columns has rank d + 1 at most.
        epsilon: Of `stochastic`, in (0, 1).
        generator: Of `stochastic`; a CPU generator.
        deepcore_compat: Picks the greatest `k_Sj^T K_SS^-1 k_Sj`, what the picks explain already, as DeepCore does; the gains
            that come back are those.

    Returns:
        (k,) positions in the order picked, and (k,) gains, which sum to f.

    Raises:
        BudgetError: More than n, or per class.
        DataError: Not similarities, not positive semidefinite, or features of another shape or not finite; ridge out of
            range.
        ModicumError: method or epsilon out of range, or no generator.

    Example:
        >>> indices, gains = log_determinant(np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]]), 2)
        >>> indices.tolist(), gains.tolist()
        ([0, 2], [0.0, 0.0])

    Reference:
        Kulesza, Taskar, Determinantal Point Processes for Machine Learning, 2012, arXiv 1207.6083; Chen, Zhang, Zhou, Fast
        Greedy MAP Inference for Determinantal Point Process, 2018, arXiv 1709.05135.
    """
    check_optimizer(method, epsilon, 0.5, generator)
    if isinstance(ridge, bool) or not isinstance(ridge, (int, float)) or not 0 <= ridge < float("inf"):
        raise DataError(f"ridge={ridge!r}; expected a number >= 0")
    made = kernel_of("similarity_or_features", similarity_or_features, kernel, negative=True)
    # a float32 matrix is right to 1e-7, which is what is left of it then
    nothing = NOTHING if made.rows.dtype == torch.float64 or made.name != "precomputed" else 1e-6
    made = made if made.name == "precomputed" else made.double()
    n = len(made)
    k = count_of(budget, n)
    rest = made.diagonal.double() + ridge
    whole, size = rest.clone(), sample_size(n, k, epsilon)
    least = nothing * float(rest.max())
    if float(rest.min()) < ridge:
        raise DataError(
            f"similarity_or_features has {float(rest.min()) - ridge:.4g} on its diagonal; expected entries >= 0"
        )
    left = torch.ones(n, dtype=torch.bool, device=rest.device)
    factor = rest.new_zeros((max(k - 1, 1), n))
    picks, won = np.empty(k, dtype=np.int64), np.full(k, -np.inf)
    draw = generator if method == "stochastic" else None
    for t in range(k):
        at = by_vector(whole - rest if deepcore_compat else rest, left, size, 1e-12 * float(whole.max()), draw)
        pivot = float(rest[at])
        if pivot <= least and not deepcore_compat and draw is None:
            picks[t:] = left.nonzero().flatten()[: k - t].cpu().numpy()
            warnings.warn(
                f"{t} picks explain every sample, the other {k - t} are the first that are left; give a ridge > 0 or "
                "kernel='rbf'",
                stacklevel=2,
            )
            break
        picks[t], left[at] = at, False
        won[t] = float(whole[at]) - pivot if deepcore_compat else np.log(pivot) if pivot > least else -np.inf
        if t + 1 < k and pivot > least:
            torch.sub(made.row(at).double(), factor[:t].T @ factor[:t, at], out=factor[t])
            factor[t, at] += ridge
            factor[t] /= pivot**0.5
            rest.addcmul_(factor[t], factor[t], value=-1)
            if float(rest.min()) < -1e3 * least:
                raise DataError(
                    "similarity_or_features is not positive semidefinite; expected a kernel, or give a ridge"
                )
            rest.clamp_(min=0)
    return back(picks, similarity_or_features, floating=False), back(won, similarity_or_features)


@dataclass(frozen=True)
class LogDeterminant(Submodular):
    """The samples of each class that span the greatest volume: diverse ones, outliers among them.

    Args:
        encoder: Whose features (see `modicum.measurement.Features`).
        kernel: `cosine` or `rbf`; see `facility_location`.
        ridge: Added to the diagonal, so that more samples than the rank of the similarities can be told apart.
        optimizer: `lazy`, `exact`, `approximate` (all the same picks) or `stochastic`.
        per_class: Choose inside each class, in the proportions of the data.
        epsilon: Of `stochastic`.
        deepcore_compat: Pick what the picks explain already: the most redundant samples.
    """

    ridge: float = 0.01

    card: ClassVar[Card] = Card(
        key="log-determinant",
        title="A subset whose members are unlike each other, by the volume they span",
        paper="Kulesza, Taskar, Determinantal Point Processes for Machine Learning, 2012, arXiv 1207.6083; Chen, Zhang, "
        "Zhou, Fast Greedy MAP Inference for Determinantal Point Process, 2018, arXiv 1709.05135",
        saves=("samples", "labels"),
        tasks=("classification", "regression", "unlabeled"),
        growth=3.0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self, not_negative=("ridge",))

    def operations(self, n: int, d: int, k: int) -> int:
        """A row of similarities and one of the factor a pick."""
        return n * k * (2 * d + k)

    def picked(self, rows: Tensor, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See the function."""
        return log_determinant(
            rows,
            k,
            self.optimizer,
            ridge=0.0 if self.deepcore_compat else self.ridge,
            kernel=self.kernel,
            epsilon=self.epsilon,
            generator=generator,
            deepcore_compat=self.deepcore_compat,
        )
