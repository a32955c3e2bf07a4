"""Leave-one-out for ridge regression, exact and for all samples at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import Array, back, class_indices, tensor
from modicum.errors import DataError

__all__ = ["RidgeLoo", "ridge_group_loo", "ridge_loo"]

BLOCK = 1 << 21  # entries of the design at a time
ALONE = 1e-10  # 1 - leverage below which a sample determines a parameter alone


@dataclass(frozen=True, eq=False)
class RidgeLoo:
    """Ridge regression, and what it becomes without each sample.

    P is the number of columns, one more with an intercept, whose coefficient is the last.

    Args:
        coefficients: (P,) or (P, c) theta, of all samples.
        leverages: (n,) `h_i = s_i x_i^T A^-1 x_i`, in [0, 1).
        residuals: (n,) or (n, c) left-out residuals `y_i - x_i^T theta_{-i} = r_i / (1 - h_i)`.
        values: (n,) `L_val(theta_{-i}) - L_val(theta)`, higher = more worth keeping, L_val being the mean over the
            validation samples of the squared error, summed over outputs; None without validation samples.
    """

    coefficients: Any
    leverages: Any
    residuals: Any
    values: Any
    _gains: Tensor = field(repr=False)  # s_i r_i / (1 - h_i)
    _design: _Design = field(repr=False)

    @property
    def press(self) -> float:
        """`sum_i ||y_i - x_i^T theta_{-i}||^2`, Allen's predicted residual sum of squares."""
        return float((self.residuals**2).sum())

    def without(self, i: int) -> Any:
        """(P,) or (P, c) coefficients `theta_{-i} = theta - A^-1 x_i s_i r_i / (1 - h_i)`.

        Args:
            i: Position of the sample.

        Raises:
            DataError: There is none.
        """
        design, n = self._design, len(self.leverages)
        if not 0 <= i < n:
            raise DataError(f"i={i}; expected the position of a sample, 0..{n - 1}")
        change = design.inverse_times(design.rows(slice(i, i + 1)).T) @ self._gains[i : i + 1]
        theta = design.original(design.theta - change, self.coefficients.ndim == 1)
        return back(theta.cpu().numpy(), self.coefficients)


def ridge_loo(
    features: Array,
    targets: Array,
    l2: float,
    *,
    weights: Array | None = None,
    intercept: bool = False,
    valid_features: Array | None = None,
    valid_targets: Array | None = None,
) -> RidgeLoo:
    """Ridge regression without each sample in turn, from one fit.

    The objective is the sum `sum_j s_j ||y_j - theta^T x_j||^2 + l2 ||theta||^2`: its penalty does not change when a
    sample goes, and an intercept is not penalized. With `A = X^T S X + Lambda`, `r = y - X theta` and the leverage
    `h_i = s_i x_i^T A^-1 x_i`, `theta_{-i} = theta - A^-1 x_i s_i r_i / (1 - h_i)`. On validation samples V with
    residuals R, `u_i = V A^-1 x_i` and `g_i = s_i r_i / (1 - h_i)`, the loss changes by
    `(2 u_i^T R g_i + ||u_i||^2 ||g_i||^2) / m`, which needs only `V^T R` and `V^T V`.

    Time is O((n + m) P^2 + P^3), with P at most n + 1 columns; memory 8 n (d + 3 c) bytes for the features and the
    results in double precision, a few matrices (P, P), and blocks of 2^21 numbers, about 100 MB.
    A is never formed: a QR factorization of the rows, a block at a time, keeps the digits that squaring would lose.

    Args:
        features: (n, d) finite numbers, n >= 2.
        targets: (n,) or (n, c) numbers; for classes, one column each of zeros and ones.
        l2: Penalty >= 0 on the squared coefficients.
        weights: (n,) weights s >= 0 of the samples in the sum; 1 when None.
        intercept: Whether a constant is fitted too.
        valid_features: (m, d) samples on which the change of the loss is wanted.
        valid_targets: (m,) or (m, c).

    Returns:
        What came out; arrays are of the kind and dtype of `features`.

    Raises:
        DataError: Shapes do not fit, entries are not finite, l2 < 0, the solution is not unique, or a sample determines
            a parameter alone (1 - h < 1e-10), so that there is none without it.

    Example:
        >>> x, y = np.array([[1.0], [2.0], [3.0]]), np.array([1.0, 2.0, 9.0])
        >>> found = ridge_loo(x, y, 0.0)
        >>> found.residuals.round(3).tolist(), found.without(2).round(3).tolist()
        ([-1.385, -3.6, 6.0], [1.0])

    Reference:
        Allen, The Relationship between Variable Selection and Data Augmentation and a Method for Prediction, 1974;
        Cook, Weisberg, Residuals and Influence in Regression, 1982.
    """
    design, vector = _design_of(features, targets, l2, weights, intercept)
    valid = _valid(design, valid_features, valid_targets, vector)
    n, c = len(design.x), design.y.shape[1]
    leverages, residuals, gains = (
        torch.empty(shape, dtype=torch.float64, device=design.x.device) for shape in ((n,), (n, c), (n, c))
    )
    values = None if valid is None else torch.empty(n, dtype=torch.float64, device=design.x.device)
    slope = square = None
    if valid is not None:
        (left, seen), m = valid.moments(design.theta), len(valid.x)
        slope = design.inverse_times(left)
        square = design.inverse_times(design.inverse_times(seen).T)
    for part in design.blocks():
        rows = design.rows(part)
        half = torch.linalg.solve_triangular(design.factor.T, rows.T, upper=False)
        h = design.s[part] * half.square().sum(0)
        rest = 1 - h
        if float(rest.min()) < ALONE:
            at = int(rest.argmin()) + part.start
            raise DataError(
                f"features[{at}] has leverage 1: it alone determines a coefficient, and there is no solution without it; "
                "use a larger l2 or drop that sample"
            )
        error = design.y[part] - rows @ design.theta
        leverages[part], residuals[part] = h, error / rest[:, None]
        gains[part] = design.s[part, None] * residuals[part]
        if values is not None and slope is not None and square is not None:
            size = torch.linalg.vecdot(rows @ square, rows)
            gain = gains[part]
            values[part] = (2 * (rows @ slope * gain).sum(1) + size * gain.square().sum(1)) / m

    def as_given(result: Tensor) -> Any:
        return back(result.cpu().numpy(), features)

    return RidgeLoo(
        as_given(design.original(design.theta, vector)),
        as_given(leverages),
        as_given(residuals[:, 0] if vector else residuals),
        None if values is None else as_given(values),
        gains,
        design,
    )


def ridge_group_loo(
    features: Array,
    targets: Array,
    l2: float,
    groups: Array,
    valid_features: Array,
    valid_targets: Array,
    *,
    weights: Array | None = None,
    intercept: bool = False,
) -> Array:
    """What the validation loss of ridge regression gains when a whole group of samples is left out.

    One solution per group: time O(groups (n P^2 + m P)), memory that of the features beside that of `ridge_loo`.

    Args:
        features: See `ridge_loo`, as all but the groups.
        targets: (n,) or (n, c).
        l2: Penalty >= 0.
        groups: (n,) group of each sample, 0, 1, ... without gaps; at least two groups.
        valid_features: (m, d).
        valid_targets: (m,) or (m, c).
        weights: (n,) or None.
        intercept: Whether a constant is fitted too.

    Returns:
        (groups,) `L_val(theta_{-g}) - L_val(theta)`, higher = more worth keeping.

    Raises:
        DataError: As `ridge_loo`; or groups do not fit.

    Example:
        >>> x, y = np.array([[1.0], [2.0], [3.0], [4.0]]), np.array([1.0, 2.0, 9.0, 9.0])
        >>> bool(ridge_group_loo(x, y, 0.0, np.array([0, 0, 1, 1]), x[:2], y[:2])[0] > 0)
        True
    """
    design, vector = _design_of(features, targets, l2, weights, intercept)
    of = class_indices("groups", groups, len(design.x))
    counts = np.bincount(of)
    if len(counts) < 2 or not counts.all():
        raise DataError(f"groups has {len(np.unique(of))} of {len(counts)} groups; expected 0, 1, ... and at least two")
    valid = _valid(design, valid_features, valid_targets, vector)
    assert valid is not None

    full, found = valid.loss(design.theta), []
    for group in range(len(counts)):
        kept = torch.from_numpy(np.flatnonzero(of != group)).to(design.x.device)
        rest = _Rows(design.x[kept], design.y[kept], design.intercept, design.basis)
        found.append(valid.loss(_Design(rest, design.s[kept], float(l2)).theta) - full)
    return back(np.array(found), features)


class _Rows:
    """Rows (n, P) in double precision, a block at a time: turned into a basis where columns outnumber samples, with a
    column of ones for an intercept."""

    def __init__(self, x: Tensor, y: Tensor, intercept: bool, basis: Tensor | None) -> None:
        self.x, self.y, self.intercept, self.basis = x, y, intercept, basis
        self.width = x.shape[1] if basis is None else basis.shape[1]

    def blocks(self) -> list[slice]:
        size = max(4 * self.width, BLOCK // self.x.shape[1], 1)
        return [slice(start, min(start + size, len(self.x))) for start in range(0, len(self.x), size)]

    def rows(self, part: slice) -> Tensor:
        rows = self.x[part].double()
        if self.basis is not None:
            rows = rows @ self.basis
        return torch.cat([rows, rows.new_ones(len(rows), 1)], 1) if self.intercept else rows

    def moments(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """`X^T (y - X theta)` and `X^T X`."""
        left, seen = torch.zeros_like(theta), theta.new_zeros(len(theta), len(theta))
        for part in self.blocks():
            rows = self.rows(part)
            left += rows.T @ (self.y[part] - rows @ theta)
            seen.addmm_(rows.T, rows)
        return left, seen

    def loss(self, theta: Tensor) -> float:
        """Mean squared error, summed over outputs."""
        parts = [(self.y[part] - self.rows(part) @ theta).square().sum() for part in self.blocks()]
        return float(torch.stack(parts).sum()) / len(self.x)


class _Design(_Rows):
    """A least-squares problem, its triangular factor `R^T R = X^T S X + Lambda`, and its solution."""

    def __init__(self, rows: _Rows, s: Tensor, l2: float) -> None:
        super().__init__(rows.x, rows.y, rows.intercept, rows.basis)
        self.s = s
        columns = self.width + self.intercept
        factor = torch.eye(self.width, columns + self.y.shape[1], dtype=torch.float64, device=self.x.device) * l2**0.5
        factor = factor if l2 else factor[:0]
        for part in self.blocks():
            weighted = torch.cat([self.rows(part), self.y[part]], 1) * s[part, None].sqrt()
            factor = torch.linalg.qr(torch.cat([factor, weighted]), mode="r")[1]
        self.factor = factor[:columns, :columns]
        diagonal = self.factor.diagonal().abs()
        if len(diagonal) < columns or not float(diagonal.min()) > 1e-12 * float(diagonal.max()):
            raise DataError(
                f"features: the {len(self.x)} rows do not determine {columns} coefficients; use l2 > 0 (got l2={l2}), or "
                "drop columns that repeat others"
            )
        self.theta = torch.linalg.solve_triangular(self.factor, factor[:columns, columns:], upper=True)

    def inverse_times(self, right: Tensor) -> Tensor:
        half = torch.linalg.solve_triangular(self.factor.T, right, upper=False)
        found: Tensor = torch.linalg.solve_triangular(self.factor, half, upper=True)
        return found

    def original(self, theta: Tensor, vector: bool) -> Tensor:
        """Coefficients of the columns that were given."""
        if self.basis is not None:
            theta = torch.cat([self.basis @ theta[: self.width], theta[self.width :]])
        return theta[:, 0] if vector else theta


def _design_of(features: Any, targets: Any, l2: float, weights: Any, intercept: bool) -> tuple[_Design, bool]:
    if isinstance(l2, bool) or not isinstance(l2, (int, float, np.number)) or not 0 <= l2 < np.inf:
        raise DataError(f"l2={l2!r}; expected a finite number >= 0")
    x, y, vector = _pair(features, targets, "")
    if len(x) < 2:
        raise DataError("features has 1 row; expected at least 2, as one is left out")
    s = torch.ones(len(x), dtype=torch.float64, device=x.device)
    if weights is not None:
        s = tensor("weights", weights, (1,), "(n,)").to(x.device).double()
        if len(s) != len(x):
            raise DataError(f"weights has shape {tuple(s.shape)}; expected ({len(x)},), one a row of features")
        if float(s.min()) < 0:
            raise DataError(f"weights[{int(s.argmin())}] is {float(s.min())}; expected numbers >= 0")
    basis = None
    if x.shape[1] > len(x) and l2 > 0:
        # the solution lies in the span of the rows, and turning keeps the length that is penalized
        basis = torch.linalg.qr(x.double().T)[0]
    return _Design(_Rows(x, y, bool(intercept), basis), s, float(l2)), vector


def _valid(design: _Design, features: Any, targets: Any, vector: bool) -> _Rows | None:
    if features is None and targets is None:
        return None
    if features is None or targets is None:
        raise DataError("valid_features and valid_targets belong together; give both or neither")
    x, y, of_one = _pair(features, targets, "valid_")
    if x.shape[1] != design.x.shape[1] or y.shape[1] != design.y.shape[1] or of_one != vector:
        raise DataError(
            f"valid_features and valid_targets have {x.shape[1]} and {y.shape[1]} columns; expected those of features and "
            f"targets, {design.x.shape[1]} and {design.y.shape[1]}"
        )
    device = design.x.device
    return _Rows(x.to(device), y.to(device), design.intercept, design.basis)


def _pair(features: Any, targets: Any, name: str) -> tuple[Tensor, Tensor, bool]:
    x = tensor(f"{name}features", features, (2,), "(n, d), one row a sample")
    y = tensor(f"{name}targets", targets, (1, 2), "(n,) or (n, c)").to(x.device)
    if len(y) != len(x):
        raise DataError(f"{name}targets has {len(y)} rows but {name}features has {len(x)}")
    if x.device.type == "mps":  # which has no float64
        x, y = x.cpu(), y.cpu()
    return x, (y[:, None] if y.ndim == 1 else y).double(), y.ndim == 1
