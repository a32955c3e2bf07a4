"""Volume-based valuation: sets of samples by how much space they span, without labels, validation set or model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from modicum.arrays import Array, NumPy, back, center_of, features
from modicum.errors import DataError
from modicum.methods import Card
from modicum.reading import by_id, labels_of, rows_of
from modicum.scores import Scores
from modicum.valuation.semivalues import shapley_from_table

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import Features

__all__ = ["VolumeBased", "robust_volume", "volume", "volume_leave_one_out", "volume_values"]

PLAYERS = 10  # sources whose Shapley values are exact
CONSTANT = 1e-12  # relative spread below which a direction is constant


def volume(features: Array) -> float:
    """The logarithm of the volume that samples span, `log Vol(X) = log sqrt(det(X^T X))`.

    Time is O(n d^2), memory 40 n d bytes: the features in double precision a few times.

    Args:
        features: (n, d) finite numbers, centered by whatever all sets have in common.

    Returns:
        The natural logarithm; minus infinity, with a warning, when the rows do not span the space.

    Raises:
        DataError: Another shape, empty or not finite.

    Example:
        >>> x = np.eye(2)
        >>> round(volume(np.concatenate([x, x])) - volume(x), 4)  # twice the data: 2^(d/2)
        0.6931

    Reference:
        Xu, Wu, Foo, Low, Validation Free and Replication Robust Volume-based Data Valuation, 2021, NeurIPS.
    """
    return _volume(_rows("features", features), "features")


def robust_volume(
    features: Array, omega: float = 0.1, *, minimum: Any = None, alpha: float | None = None, beta: float = 10.0
) -> float:
    """The logarithm of the volume after near copies are merged, with a bounded reward for them.

    Space is cut into cubes of side omega from a corner that all sets share. The rows in an occupied cube become their mean,
    which gives X~, and `RV(X) = Vol(X~) prod_cubes sum_{p=0..phi} alpha^p` with phi the rows of the cube. With
    `alpha = 1 / (beta N~)`, N~ being the merged rows of all sets, the product is at most about `e^(1/beta)`.

    Args:
        features: (n, d), of spread about 1.
        omega: Side of a cube > 0, in units of the features.
        minimum: (d,) the corner; the least entries of these features when None.
        alpha: In [0, 1); from beta and these features when None.
        beta: > 0.

    Returns:
        The natural logarithm of RV; minus infinity, with a warning, when the merged rows do not span the space.

    Raises:
        DataError: A shape or a number is out of range.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(30, 2))
        >>> round(robust_volume(np.concatenate([x, x, x])) - robust_volume(x), 2)  # three times the data: next to nothing
        0.0

    Reference:
        Xu, Wu, Foo, Low, Validation Free and Replication Robust Volume-based Data Valuation, 2021, NeurIPS.
    """
    rows = _rows("features", features)
    _positive(omega=omega, beta=beta)
    corner = rows.min(0) if minimum is None else _corner(minimum, rows)
    means, counts = _merged(rows, corner, omega)
    if alpha is None:
        alpha = 1 / (beta * len(means))
    elif not 0 <= alpha < 1:
        raise DataError(f"alpha={alpha!r}; expected a number in [0, 1)")
    return _volume(means, "the merged features") + _reward(counts, alpha)


def volume_values(
    sets: Sequence[Array], omega: float = 0.1, *, beta: float = 10.0, shapley: bool = True
) -> np.ndarray[Any, Any]:
    """What each of several sets of samples is worth, relative to all of them together.

    The corner of the cubes and alpha are those of all sets. With `shapley`, the exact Shapley values of the game whose
    coalitions are worth the robust volume of their union (they sum to 1, and time doubles with every set); without, the
    robust volume of each set alone over that of all.

    Args:
        sets: (n_s, d) each.
        omega: Side of a cube > 0.
        beta: > 0.
        shapley: See above; for at most 10 sets.

    Returns:
        (sets,) values, higher = worth more; 0 for a set that does not span the space, with a warning.

    Raises:
        DataError: A shape or a number is out of range, all sets together do not span the space, or there are too many.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(40, 2))
        >>> values = volume_values([x[:30], x[30:]])
        >>> bool(values[0] > values[1]), round(float(values.sum()), 6)
        (True, 1.0)
    """
    _positive(omega=omega, beta=beta)
    rows = [_rows(f"sets[{i}]", part) for i, part in enumerate(sets)]
    if not rows:
        raise DataError("sets is empty; expected at least one set of samples")
    columns = {part.shape[1] for part in rows}
    if len(columns) > 1:
        raise DataError(f"sets have {sorted(columns)} columns; expected the same number in each")
    if shapley and len(rows) > PLAYERS:
        raise DataError(f"sets has {len(rows)} sets; exact Shapley values take at most {PLAYERS}: use shapley=False")
    corner = np.min([part.min(0) for part in rows], 0)
    merged = [_merged(part, corner, omega) for part in rows]
    alpha = 1 / (beta * sum(len(means) for means, _ in merged))

    def log_worth(players: Sequence[int], what: str) -> float:
        union = np.concatenate([rows[i] for i in players])
        means, counts = _merged(union, corner, omega)
        return _volume(means, what) + _reward(counts, alpha)

    everything = log_worth(range(len(rows)), "all sets together")
    if not np.isfinite(everything):
        raise DataError(
            "sets: all of them together do not span the space; drop columns that are constant or repeat others"
        )
    alone = np.array([log_worth([i], f"sets[{i}]") for i in range(len(rows))])
    if not shapley:
        return np.exp(alone - everything)

    def worth(players: frozenset[int]) -> float:
        if not players:
            return 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said above for each set
            return float(np.exp(log_worth(sorted(players), "") - everything))

    return shapley_from_table(worth, len(rows))


def volume_leave_one_out(features: Array) -> Array:
    """By how much the logarithm of the volume falls when a sample is left out.

    `log Vol(X) - log Vol(X_{-i}) = -1/2 log(1 - h_i)` with the leverage `h_i = x_i^T (X^T X)^-1 x_i`.

    Time is O(n d^2), memory 40 n d bytes: the features in double precision a few times.

    Args:
        features: (n, d), of rank d.

    Returns:
        (n,) values >= 0, higher = spans more that no other sample does; infinite where a direction is lost.

    Raises:
        DataError: Another shape, empty, not finite, or the rows do not span the space.

    Example:
        >>> volume_leave_one_out(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])).round(4).tolist()
        [0.3466, 0.3466, inf]
    """
    rows = _rows("features", features)
    root = np.linalg.qr(rows)[0] if len(rows) >= rows.shape[1] else None
    if root is None or not np.isfinite(_quiet_volume(rows)):
        raise DataError(
            f"features: {len(rows)} rows do not span {rows.shape[1]} columns; drop columns that are constant or repeat others"
        )
    left = 1 - np.einsum("ij,ij->i", root, root)
    with np.errstate(divide="ignore"):
        return back(-0.5 * np.log(np.where(left > 1e-10, left, 0.0)), features)


def _rows(name: str, array: Any) -> NumPy:
    return features(name, array).astype(np.float64)


def _positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not (np.isfinite(number) and number > 0):
            raise DataError(f"{name}={number!r}; expected a number > 0")


def _corner(minimum: Any, rows: NumPy) -> NumPy:
    corner = np.asarray(minimum, dtype=np.float64)
    if corner.shape != (rows.shape[1],) or (corner > rows.min(0)).any():
        raise DataError(f"minimum has shape {corner.shape}; expected ({rows.shape[1]},), nowhere above the features")
    return corner


def _quiet_volume(rows: NumPy) -> float:
    n, d = rows.shape
    if n < d:
        return -np.inf
    diagonal = np.abs(np.diagonal(np.linalg.qr(rows, mode="r")))
    return float(np.log(diagonal).sum()) if diagonal.min() > CONSTANT * diagonal.max() else -np.inf


def _volume(rows: NumPy, what: str) -> float:
    found = _quiet_volume(rows)
    if found == -np.inf:
        warnings.warn(
            f"{what}: {len(rows)} rows do not span {rows.shape[1]} columns, so that their volume is 0", stacklevel=3
        )
    return found


def _merged(rows: NumPy, corner: NumPy, omega: float) -> tuple[NumPy, NumPy]:
    """Means of the rows in each occupied cube, and their number."""
    cubes = np.floor((rows - corner) / omega)
    _, of, counts = np.unique(cubes, axis=0, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), rows.shape[1]))
    np.add.at(sums, of.reshape(-1), rows)
    return sums / counts[:, None], counts


def _reward(counts: NumPy, alpha: float) -> float:
    return float((np.log1p(-(alpha ** (counts + 1.0))) - np.log1p(-alpha)).sum())


def principal(rows: NumPy, components: int, seed: int) -> NumPy:
    """(n, k) scores on the first principal components, of variance 1; directions without variance are left out."""
    from sklearn.decomposition import PCA

    if not (rows != rows[0]).any():
        raise DataError("features: all samples are the same, so that they span nothing")
    k = min(components, *rows.shape)
    solver = "covariance_eigh" if rows.shape[1] <= 1024 else "randomized"
    scores = PCA(k, svd_solver=solver, random_state=seed).fit_transform(rows - center_of(rows))
    spread = scores.std(0)
    some = spread > 1e-7 * spread[0]
    found: NumPy = scores[:, some] / spread[some]
    return found


@dataclass(frozen=True)
class VolumeBased:
    """Sources are worth the space they span, whatever the labels; a sample is worth an equal share of its source.

    The value of a source is its Shapley value among all for up to 10 of them, else its own robust volume over that of
    all. Data without sources are valued sample by sample, which the paper does not do: by how much the logarithm of the
    volume falls without the sample. Features are reduced to principal components of variance 1, because in many
    dimensions every sample has a cube of its own.

    Args:
        omega: Side of the cubes in which copies are merged, in standard deviations.
        components: Principal components that are kept, at most.
        encoder: Whose features (see `modicum.measurement.Features`).
    """

    omega: float = 0.1
    components: int = 10
    encoder: str = "inputs"

    card: ClassVar[Card] = Card(
        key="volume-based",
        title="Space that a source, or a sample, spans",
        paper="Xu, Wu, Foo, Low, Validation Free and Replication Robust Volume-based Data Valuation, 2021, NeurIPS",
        saves=("samples", "labels"),
        tasks=("classification", "regression", "unlabeled"),
    )

    def needs(self) -> tuple[Features]:
        """Features of the training samples."""
        from modicum.measurement.features import Features

        return (Features(self.encoder),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Values of samples; labels are not read."""
        order = by_id(data.train)
        rows = rows_of("train features", measured[0].train, data.train)
        labels = labels_of("train", data.train).numpy() if data.train.info.task == "classification" else None
        sources = data.train.sources
        with ctx.ledger.clock("choose", self.card.key) as counts:
            scores = principal(features("train features", rows[order]), self.components, ctx.seed)
            n, d = scores.shape
            values = np.empty(n)
            passes = 1
            if sources is None:
                values[order], unit = volume_leave_one_out(scores), "log volume"
            else:
                present, of, sizes = np.unique(sources[order].numpy(), return_inverse=True, return_counts=True)
                shapley = len(present) <= PLAYERS
                worth = volume_values([scores[of == s] for s in range(len(present))], self.omega, shapley=shapley)
                values[order], unit = (worth / sizes)[of], "share of the volume of all sources, a sample"
                passes += 2 ** (len(present) - 1) if shapley else 2
            counts["extra_flops"] = 2 * rows.shape[1] ** 2 * n + passes * 2 * n * d * d
        return Scores(values, data.train.ids, self.card.key, "value", unit, labels=labels)
