"""Data-OOB: how well a sample is predicted by the trees of a forest that have not seen it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import Array, NumPy, back, class_indices, features, real
from modicum.context import generator
from modicum.errors import DataError
from modicum.methods import Card
from modicum.reading import by_id, labels_of, rows_of
from modicum.scores import Scores

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import Features

__all__ = ["DataOob", "OutOfBag", "data_oob", "data_oob_of"]

TOGETHER = 8  # trees of one step
MORE = 1000  # trees that may be added until every sample was out of bag
SPLITS = ("sqrt", "all")


class OutOfBag:
    """Sums over trees of what out-of-bag samples scored, with what is needed for standard errors.

    Args:
        n: Samples.
    """

    def __init__(self, n: int) -> None:
        self.trees = 0
        self.count = torch.zeros(n, dtype=torch.int64)
        self.total = torch.zeros(n, dtype=torch.float64)
        self.square = torch.zeros(n, dtype=torch.float64)

    def add(self, out: NumPy, scores: NumPy) -> None:
        """Enter one tree.

        Args:
            out: (k,) positions of the samples that it has not seen.
            scores: (k,) what each scored.
        """
        at, worth = torch.from_numpy(out), torch.from_numpy(scores.astype(np.float64))
        self.trees += 1
        self.count[at] += 1
        self.total[at] += worth
        self.square[at] += worth * worth

    @property
    def values(self) -> Tensor:
        """(n,) means; NaN where a sample was never out of bag."""
        return self.total / self.count

    @property
    def errors(self) -> Tensor:
        """(n,) standard errors of the means over trees; infinite where there is one tree only."""
        spread = (self.square / self.count - self.values**2).clamp(min=0)
        return (spread / (self.count - 1)).sqrt().nan_to_num(nan=torch.inf)

    def state_dict(self) -> dict[str, Any]:
        """The sums."""
        return {"trees": self.trees, "count": self.count, "total": self.total, "square": self.square}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """The inverse of `state_dict`."""
        self.trees, self.count, self.total, self.square = (state[k] for k in ("trees", "count", "total", "square"))


def data_oob(
    features: Array,
    targets: Array,
    trees: int = 800,
    *,
    regression: bool = False,
    max_features: str = "sqrt",
    seed: int = 0,
) -> tuple[Array, Array]:
    """The mean score of each sample by the trees of a random forest whose bootstrap sample leaves it out.

    `phi_i = sum_b 1[w_bi = 0] T(y_i, f_b(x_i)) / sum_b 1[w_bi = 0]`, with `w_bi` how often sample i was drawn for tree b,
    and T 1 for the right class and 0 otherwise, or the negative squared error. Every tree leaves out about 37 % of the
    samples. No validation samples are needed.

    Time is that of growing the trees; memory 4 n d bytes for the features in single precision, about
    200 n for the counts, and one tree a thread.

    Args:
        features: (n, d) finite numbers, n >= 2.
        targets: (n,) class indices, or numbers for a regression.
        trees: Unpruned trees to grow; more are grown, up to 1,000, until every sample was left out once.
        regression: Whether targets are numbers.
        max_features: Columns looked at for a split: `sqrt` of them, drawn at random, as a random forest does, or `all`,
            which is bagging; a regression always looks at all.
        seed: Of the bootstrap samples; tree b depends on (seed, b) alone.

    Returns:
        (n,) values, higher = more worth keeping, in units of accuracy or squared targets, and their (n,) standard errors
        over the trees.

    Raises:
        DataError: Shapes do not fit, entries are not finite, an option is out of range, or a sample was never left out.

    Example:
        >>> x, y = np.array([[0.0], [0.1], [0.2], [1.0], [1.1], [0.15]]), np.array([0, 0, 0, 1, 1, 1])
        >>> values, errors = data_oob(x, y, trees=100)
        >>> int(values.argmin())
        5

    Reference:
        Kwon, Zou, Data-OOB: Out-of-bag Estimate as a Simple and Efficient Data Value, 2023, arXiv 2304.07718.
    """
    if isinstance(trees, bool) or not isinstance(trees, (int, np.integer)) or trees < 1:
        raise DataError(f"trees={trees!r}; expected an integer >= 1")
    forest = _Forest(features, targets, regression, max_features, seed)
    sums = OutOfBag(forest.n)
    for start in range(0, trees, TOGETHER):
        forest.grow(sums, min(TOGETHER, trees - start))
    forest.complete(sums)
    return back(sums.values.numpy(), features), back(sums.errors.numpy(), features)


def data_oob_of(ensemble: Any, features: Array, targets: Array) -> tuple[Array, Array]:
    """The same for a bagging or random forest of scikit-learn that was fitted to these samples.

    Args:
        ensemble: Fitted, with `estimators_` and `estimators_samples_`.
        features: (n, d) what it was fitted to, in this order.
        targets: (n,) class labels or numbers.

    Returns:
        (n,) values and their standard errors, as `data_oob`.

    Raises:
        DataError: It is not such an ensemble, or some sample was never out of bag.

    Example:
        >>> from sklearn.ensemble import BaggingClassifier
        >>> x, y = np.arange(6.0)[:, None], np.array([0, 0, 0, 1, 1, 1])
        >>> values, errors = data_oob_of(BaggingClassifier(n_estimators=50, random_state=0).fit(x, y), x, y)
        >>> bool(values.min() >= 0), bool(values.max() <= 1)
        (True, True)
    """
    x, y = real("features", features, (2,), "(n, d)"), np.asarray(targets)
    if not hasattr(ensemble, "estimators_samples_"):
        raise DataError(f"ensemble is a {type(ensemble).__name__}; expected a fitted bagging or forest of scikit-learn")
    classes = getattr(ensemble, "classes_", None)
    columns: Sequence[Any] = getattr(ensemble, "estimators_features_", [slice(None)] * len(ensemble.estimators_))
    sums, wanted = OutOfBag(len(x)), y if classes is None else np.searchsorted(classes, y)
    for tree, drawn, used in zip(ensemble.estimators_, ensemble.estimators_samples_, columns):
        out = np.setdiff1d(np.arange(len(x)), drawn)
        if len(out):
            answers = tree.predict(x[out][:, used])
            sums.add(out, -((answers - wanted[out]) ** 2) if classes is None else answers == wanted[out])
    _all_out(sums)
    return back(sums.values.numpy(), features), back(sums.errors.numpy(), features)


class _Forest:
    """Trees one after another, each a function of the seed and its number."""

    def __init__(self, rows: Any, targets: Any, regression: bool, max_features: str, seed: int) -> None:
        given = features("features", rows)
        if max(given.max(), -given.min()) > np.finfo(np.float32).max:
            raise DataError("features are larger than single precision holds; scale them down")
        self.x = np.ascontiguousarray(given, dtype=np.float32)
        self.n, self.d = self.x.shape
        if self.n < 2:
            raise DataError("features has 1 row; expected at least 2: a bootstrap sample of one leaves nobody out")
        if max_features not in SPLITS:
            raise DataError(f"max_features={max_features!r}; expected 'sqrt' or 'all'")
        self.regression, self.seed = regression, seed
        self.columns = None if regression or max_features == "all" else "sqrt"
        if regression:
            self.y = real("targets", targets, (1,), "(n,)").astype(np.float64)
            if len(self.y) != self.n:
                raise DataError(f"targets has shape {self.y.shape}; expected ({self.n},), one a sample")
        else:
            self.y = class_indices("targets", targets, self.n)

    def grow(self, sums: OutOfBag, count: int) -> None:
        """The next trees, entered in the order of their numbers."""
        numbers = range(sums.trees, sums.trees + count)
        threads = min(torch.get_num_threads(), os.cpu_count() or 1)
        if threads == 1:
            grown = list(map(self._tree, numbers))
        else:
            with ThreadPoolExecutor(threads) as pool:
                grown = list(pool.map(self._tree, numbers))
        for out, scores in grown:
            sums.add(out, scores)

    def complete(self, sums: OutOfBag) -> None:
        """More trees until every sample was out of bag."""
        limit = sums.trees + MORE
        while not int(sums.count.min()) and sums.trees < limit:
            self.grow(sums, TOGETHER)
        _all_out(sums)

    def flops(self, trees: int) -> int:
        """About: at every level of a balanced tree, every sample is compared in every column looked at."""
        columns = self.d if self.columns is None else max(1, int(self.d**0.5))
        return int(trees * self.n * columns * np.log2(self.n) ** 2)

    def _tree(self, number: int) -> tuple[NumPy, NumPy]:
        from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

        draw = generator(self.seed, "data-oob", number)
        times = torch.bincount(torch.randint(self.n, (self.n,), generator=draw), minlength=self.n).numpy()
        state = int(torch.randint(2**31, (1,), generator=draw))
        kind = DecisionTreeRegressor if self.regression else DecisionTreeClassifier
        within, out = np.flatnonzero(times), np.flatnonzero(times == 0)
        tree = kind(max_features=self.columns, random_state=state)
        tree.fit(self.x[within], self.y[within], times[within].astype(np.float64), check_input=False)
        answers = tree.predict(self.x[out], check_input=False) if len(out) else np.empty(0)
        return out, -((answers - self.y[out]) ** 2) if self.regression else answers == self.y[out]


def _all_out(sums: OutOfBag) -> None:
    never = int((sums.count == 0).sum())
    if never:
        raise DataError(
            f"{never} samples are in all {sums.trees} bootstrap samples, first at {int((sums.count == 0).int().argmax())}; "
            "use more trees, drawn with replacement"
        )


@dataclass(frozen=True)
class DataOob:
    """Low values are predicted wrongly by trees that have not seen them: wrong labels and atypical samples.

    Args:
        trees: To grow, if the time allows.
        max_features: Columns looked at for a split: `sqrt` (a random forest, as in the paper's code) or `all` (bagging).
        encoder: Whose features (see `modicum.measurement.Features`).
    """

    trees: int = 800
    max_features: str = "sqrt"
    encoder: str = "inputs"

    card: ClassVar[Card] = Card(
        key="data-oob",
        title="Out-of-bag accuracy of each sample in a random forest",
        paper="Kwon, Zou, Data-OOB: Out-of-bag Estimate as a Simple and Efficient Data Value, 2023, arXiv 2304.07718",
        saves=("samples", "compute"),
        tasks=("classification", "regression"),
    )

    def needs(self) -> tuple[Features]:
        """Features of the training samples."""
        from modicum.measurement.features import Features

        return (Features(self.encoder),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """The mean over trees, with its standard error; a regression is in standardized targets."""
        regression = data.train.info.task == "regression"
        order = by_id(data.train)
        labels = None if regression else labels_of("train", data.train, classes=2)
        targets = data.train.prepare_targets().flatten() if labels is None else labels
        rows = rows_of("train features", measured[0].train, data.train)
        with ctx.ledger.clock("choose", self.card.key) as counts:
            forest = _Forest(_named(rows, order), targets[order], regression, self.max_features, ctx.seed)
            sums, steps = OutOfBag(forest.n), -(-self.trees // TOGETHER)
            work = (data.train.fingerprint, self.max_features, self.encoder, ctx.seed)
            for step in ctx.loop(self.card.key, steps, [sums], work, anytime=True):
                forest.grow(sums, min(TOGETHER, self.trees - step * TOGETHER))
            forest.complete(sums)
            counts["extra_flops"] = forest.flops(sums.trees)
            values, errors = np.empty(forest.n), np.empty(forest.n)
            values[order], errors[order] = sums.values.numpy(), sums.errors.numpy()
        note = "" if sums.trees >= self.trees else f"stopped after {sums.trees:,} of {self.trees:,} trees"
        unit = "squared target" if regression else "out-of-bag accuracy"
        given = None if labels is None else labels.numpy()
        return Scores(values, data.train.ids, self.card.key, "value", unit, labels=given, errors=errors, note=note)


def _named(rows: Tensor, order: Tensor) -> NumPy:
    return features("train features", rows.cpu()[order])
