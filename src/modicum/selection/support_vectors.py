"""Support vectors: of a support-vector machine, the samples that alone give the same machine."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from modicum.arrays import Array, NumPy, back, class_indices
from modicum.arrays import features as checked
from modicum.errors import BudgetError, DataError
from modicum.methods import Card
from modicum.reading import by_id, labels_of, rows_of
from modicum.scores import Budget, Selection

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import Features

__all__ = ["SupportVectors", "support_vectors"]

KERNELS = ("linear", "rbf", "poly", "sigmoid")
TOLERANCE = 1e-8  # of the optimizer: what is lossless depends on it


def support_vectors(
    features: Array, targets: Array, C: float = 1.0, kernel: str = "rbf", gamma: float | None = None
) -> Array:
    """The samples that a support-vector machine needs: trained on them alone it is the same machine.

    A sample with multiplier `alpha_i = 0` fulfills `y_i f(x_i) >= 1`; without it all conditions of the optimum still hold,
    and the optimum is unique (its bias too, if some `0 < alpha_i < C`). So the others are a lossless subset, of whatever
    size it is. For more than two classes it is the union over the pairs of classes. This holds for hyper-parameters that
    do not change with the data: C in the sum of the losses, a fixed number for gamma, features that are not
    standardized again on the subset, no class weights from frequencies, and no nu.

    Time is that of the sequential minimal optimization, n^2 to n^3; memory the features in double precision and a
    cache of 200 MB.

    Args:
        features: (n, d) finite numbers.
        targets: (n,) class indices, at least two classes.
        C: Weight > 0 of a sample's loss in the sum.
        kernel: `linear`, `rbf`, `poly` (of degree 3) or `sigmoid`.
        gamma: Of the kernel, > 0; 1 / d when None or 0. Not `scale`, which changes with the subset.

    Returns:
        (k,) sorted positions.

    Raises:
        DataError: Shapes do not fit, entries are not finite, there is one class, or an option is out of range.

    Example:
        >>> x, y = np.array([[0.0], [1.0], [3.0], [4.0]]), np.array([0, 0, 1, 1])
        >>> support_vectors(x, y, C=10, kernel="linear").tolist()
        [1, 2]

    Reference:
        Cortes, Vapnik, Support-Vector Networks, 1995.
    """
    machine = _machine(checked("features", features), class_indices("targets", targets), C, kernel, gamma)
    return back(np.sort(machine.support_).astype(np.int64), features, floating=False)


def _machine(rows: NumPy, labels: NumPy, C: float, kernel: str, gamma: float | None) -> Any:
    from sklearn.svm import SVC

    if len(labels) != len(rows):
        raise DataError(f"targets has {len(labels)} rows but features has {len(rows)}")
    if (labels == labels[0]).all():
        raise DataError(
            f"targets: all {len(labels)} samples are of class {int(labels[0])}; expected at least 2 classes"
        )
    _check(C, kernel, gamma)
    width = 1 / rows.shape[1] if not gamma else float(gamma)
    return SVC(C=float(C), kernel=kernel, gamma=width, tol=TOLERANCE).fit(rows.astype(np.float64), labels)


def _check(C: float, kernel: str, gamma: float | None) -> None:
    if isinstance(gamma, str):
        raise DataError(
            f"gamma={gamma!r} depends on the data that the machine is fitted to, so that the support vectors alone would "
            "give another machine; expected a number such as 1 / d, d being the number of columns"
        )
    if not _number(C) or C == 0:
        raise DataError(f"C={C!r}; expected a number > 0")
    if kernel not in KERNELS:
        raise DataError(f"kernel={kernel!r}; expected one of {', '.join(KERNELS)}")
    if gamma is not None and not _number(gamma):
        raise DataError(f"gamma={gamma!r}; expected a number > 0")


def _number(value: Any) -> bool:
    real = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return real and bool(np.isfinite(value) and value >= 0)


@dataclass(frozen=True)
class SupportVectors:
    """The support vectors, a lossless subset for the machine whose they are.

    Their number is what it is. A larger budget is filled with the samples nearest the margin, which loses nothing. A
    smaller one keeps the support vectors with the largest multipliers, with a warning, because then something is lost;
    with `lossless` it is refused, and the number that is needed is named.

    Args:
        C: Weight > 0 of a sample's loss in the sum of the losses.
        kernel: `linear`, `rbf`, `poly` or `sigmoid`.
        gamma: Of the kernel, a number; 0 for 1 / d, which no subset changes.
        lossless: Whether a budget below the number of support vectors is refused.
        encoder: Whose features (see `modicum.measurement.Features`).
    """

    C: float = 1.0
    kernel: str = "rbf"
    gamma: float = 0.0
    lossless: bool = False
    encoder: str = "inputs"

    card: ClassVar[Card] = Card(
        key="support-vectors",
        title="The support vectors of a support-vector machine: a lossless subset for it",
        paper="Cortes, Vapnik, Support-Vector Networks, 1995",
        saves=("samples",),
        growth=2.0,
    )

    def __post_init__(self) -> None:
        _check(self.C, self.kernel, self.gamma)

    def needs(self) -> tuple[Features]:
        """Features of the training samples."""
        from modicum.measurement.features import Features

        return (Features(self.encoder),)

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection:
        """A budget per class gives as many samples in all, of whatever class."""
        order = by_id(data.train)
        labels = labels_of("train", data.train, classes=2)[order].numpy()
        given = rows_of("train features", measured[0].train, data.train)[order]
        present = len(np.unique(labels))
        k, n, d = budget.count(len(order), present), *given.shape
        with ctx.ledger.clock("choose", self.card.key, labels=n) as counts:
            rows: NumPy = checked("train features", given.cpu().numpy()).astype(np.float64)
            machine = _machine(rows, labels, self.C, self.kernel, self.gamma)
            steps = int(np.sum(machine.n_iter_))
            counts["extra_flops"] = int(2 * d * min(n, steps) * n + 6 * steps * n)
            support = machine.support_
            if len(support) >= k:
                ranking = support[np.lexsort((support, -np.abs(machine.dual_coef_).max(0)))]
                if len(support) > k:
                    self._too_small(k, len(support))
            else:
                rest = np.setdiff1d(np.arange(n), support)
                margins = _margins(machine, rows[rest], labels[rest])
                counts["extra_flops"] += 2 * d * len(rest) * len(support)
                ranking = np.concatenate([support, rest[np.lexsort((rest, margins))]])
            return Selection.made(order, ranking[:k])

    def _too_small(self, k: int, needed: int) -> None:
        text = f"budget of {k} is less than the {needed} support vectors"
        if self.lossless:
            raise BudgetError(f"{text}, and fewer are not lossless; keep at least {needed}")
        warnings.warn(f"{text}: those with the largest multipliers are kept, which is not lossless", stacklevel=3)


def _margins(machine: Any, rows: NumPy, labels: NumPy) -> NumPy:
    """(n,) the least margin of each sample over the pairs of classes that its own is in."""
    machine.set_params(decision_function_shape="ovo")
    decisions = machine.decision_function(rows)
    own = np.searchsorted(machine.classes_, labels)
    if decisions.ndim == 1:
        signed: NumPy = np.where(own == 1, decisions, -decisions)
        return signed
    least, pair = np.full(len(rows), np.inf), 0
    for first in range(len(machine.classes_)):
        for second in range(first + 1, len(machine.classes_)):
            column = decisions[:, pair]
            least = np.where(own == first, np.minimum(least, column), least)
            least = np.where(own == second, np.minimum(least, -column), least)
            pair += 1
    return least
