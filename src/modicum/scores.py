"""How much to keep (`Budget`), one number per sample that says which (`Scores`), and what was kept (`Selection`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from modicum.errors import BudgetError, DataError

if TYPE_CHECKING:
    from modicum.dataset import Dataset
    from modicum.ledger import Ledger

__all__ = ["Budget", "Kind", "Order", "Scores", "Selection", "as_budget", "budget_of"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Kind = Literal["value", "difficulty"]
Order = Literal["hardest", "easiest", "middle"]


@dataclass(frozen=True)
class Budget:
    """How much to keep: a fraction, a count, or a count per class.

    Args:
        keep: A fraction of the samples as a float in (0, 1], or their number as an integer >= 1.
        per_class: A number of samples of each class, instead of `keep`.

    Raises:
        BudgetError: Neither or both are given, or the number makes no sense.

    Example:
        >>> Budget(keep=0.1).count(1000), Budget(keep=500).count(1000), Budget(per_class=10).count(1000, classes=3)
        (100, 500, 30)
        >>> Budget.parse("30%"), Budget.parse("10/class")
        (Budget(keep=0.3, per_class=None), Budget(keep=None, per_class=10))
    """

    keep: float | int | None = None
    per_class: int | None = None

    def __post_init__(self) -> None:
        if (self.keep is None) == (self.per_class is None):
            raise BudgetError(f"give keep or per_class and not both, got keep={self.keep}, per_class={self.per_class}")
        for name, value in (("keep", self.keep), ("per_class", self.per_class)):
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
                raise BudgetError(f"{name}={value!r} is a {type(value).__name__}; expected a number")
            if isinstance(value, (float, np.floating)):
                if name == "per_class" or not 0 < value <= 1:
                    expected = "an integer >= 1" + (" or a fraction in (0, 1]" if name == "keep" else "")
                    raise BudgetError(f"{name}={value!r} is out of range; expected {expected}")
            elif value < 1:
                raise BudgetError(f"{name}={value!r} keeps nothing; expected an integer >= 1")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read `30%`, `0.3`, `500` or `10/class`."""
        try:
            if text.endswith("/class"):
                return cls(per_class=int(text.removesuffix("/class")))
            if text.endswith("%"):
                return cls(keep=round(float(text[:-1]) / 100, 12))
            return cls(keep=int(text) if text.isdigit() else float(text))
        except ValueError:
            raise BudgetError(f"budget {text!r} is not understood; expected 30%, 0.3, 500 or 10/class") from None

    def count(self, n: int, classes: int = 1) -> int:
        """How many of n samples this is: a fraction is rounded to the nearest count, and keeps at least one.

        Raises:
            BudgetError: More than n.
        """
        if self.per_class is not None:
            k = self.per_class * classes
        elif isinstance(self.keep, (float, np.floating)):
            k = max(1, int(np.floor(float(self.keep) * n + 0.5)))
        else:
            assert self.keep is not None
            k = int(self.keep)
        if k > n:
            raise BudgetError(f"{self} asks for {k} samples, but there are {n}; keep fewer")
        return k

    def fraction(self, n: int, classes: int = 1) -> float:
        """The fraction of n samples that this keeps."""
        return self.count(n, classes) / n

    @property
    def text(self) -> str:
        """What `parse` reads as the same budget."""
        return f"{self.per_class}/class" if self.per_class is not None else str(self.keep)

    def __str__(self) -> str:
        if self.per_class is not None:
            return f"{self.per_class}/class"
        return f"{self.keep:.4g}" if isinstance(self.keep, int) else f"{100 * float(self.keep or 0):.4g}%"


def as_budget(value: Budget | float | int | str) -> Budget:
    """A budget from what people write: a `Budget`, 0.1, 500, `10%` or `10/class`."""
    if isinstance(value, Budget):
        return value
    return Budget.parse(value) if isinstance(value, str) else Budget(keep=value)


def budget_of(keep: Budget | float | int | str | None, per_class: int | None) -> Budget:
    """The budget that one of two arguments gives.

    Raises:
        BudgetError: Both are given, or neither.
    """
    if keep is not None and per_class is not None:
        raise BudgetError(f"keep={keep!r} and per_class={per_class!r} are both given; expected one of them")
    return Budget(per_class=per_class) if keep is None else as_budget(keep)


@dataclass(frozen=True, eq=False)
class Scores:
    """One number per sample, with what it means.

    A *value* is higher for a sample more worth keeping; a *difficulty* is higher for a harder sample. No sign is left
    to guess: `kept` keeps the highest values, and of difficulties what `order` says.

    Args:
        values: (n,) numbers; infinities are allowed, NaN is not.
        ids: (n,) ids of the samples, unique.
        method: The key of the method that gave them.
        kind: `value` or `difficulty`.
        unit: What one unit is, for people.
        labels: (n,) class indices, for budgets per class and class floors.
        order: Which difficulties to keep unless `kept` is told otherwise.
        errors: (n,) standard errors of the values where the method has them.
        ties: (n,) which of equal scores comes first: the lowest. Without it, and where it is equal too, the id decides.
        class_balance: The floor that the method's paper gives every class (see `kept`).
        ledger: What the scores cost.
        note: What people must know about how far the method came, such as "stopped after 120 of 1,000 permutations".
        columns: Other numbers (n,) that the method has of every sample, by name; they go into tables and pictures.

    Raises:
        DataError: Shapes differ, ids repeat, or a value is NaN.

    Example:
        >>> scores = Scores(np.array([3.0, 1.0, 2.0]), np.array([7, 8, 9]), "example", "value", "points")
        >>> scores.kept(Budget(keep=2)).tolist(), scores.dropped(Budget(keep=2)).tolist()
        ([0, 2], [1])
    """

    values: Array
    ids: Array
    method: str
    kind: Kind
    unit: str
    labels: Array | None = None
    order: Order = "hardest"
    errors: Array | None = None
    ties: Array | None = None
    class_balance: float = 0.0
    ledger: Ledger | None = field(default=None, repr=False)
    note: str = ""
    columns: Mapping[str, Array] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", np.asarray(self.values, dtype=np.float64))
        object.__setattr__(self, "ids", np.asarray(self.ids))
        n = len(self.values)
        named = {name: getattr(self, name) for name in ("ids", "labels", "errors", "ties")}
        for name, column in {**self.columns, **named}.items():
            if column is not None and len(column) != n:
                raise DataError(f"{name} has {len(column)} rows but values has {n}")
        if self.values.ndim != 1:
            raise DataError(f"values must have shape (n,), got {self.values.shape}")
        if np.isnan(self.values).any():
            bad = self.ids[np.isnan(self.values)][:3].tolist()
            raise DataError(
                f"values of {self.method} are NaN for {int(np.isnan(self.values).sum())} samples, first {bad}"
            )
        if len(np.unique(self.ids)) != n:
            raise DataError("ids of scores must be unique")
        if self.kind not in ("value", "difficulty"):
            raise DataError(f"kind={self.kind!r}; expected 'value' or 'difficulty'")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def difficulties(self) -> Array:
        """(n,) numbers that are higher for harder samples: the scores, or less the scores where they are values.

        Example:
            >>> Scores(np.array([3.0, 1.0]), np.arange(2), "aum", "value", "logits").difficulties.tolist()
            [-3.0, -1.0]
        """
        return self.values if self.kind == "difficulty" else -self.values

    @property
    def stability(self) -> float | None:
        """How well these scores would agree with those of a repetition: the expected correlation of the two.

        The reliability `1 - mean(se^2) / var(values)` of classical test theory, at least 0: what the standard errors leave
        of the spread of the values. None without standard errors.

        Example:
            >>> noisy = Scores(np.array([0.0, 1.0]), np.arange(2), "x", "value", "points", errors=np.array([0.1, 0.1]))
            >>> round(noisy.stability, 2)
            0.98
        """
        if self.errors is None or len(self) < 2:
            return None
        known = np.isfinite(self.values) & np.isfinite(self.errors)
        spread = float(np.var(self.values[known], ddof=1)) if known.sum() > 1 else 0.0
        return max(0.0, 1 - float(np.mean(self.errors[known] ** 2)) / spread) if spread > 0 else 0.0

    def ranking(self, order: Order | None = None, skip: float = 0.0) -> Array:
        """(n,) positions from the first to keep to the last; ties break by `ties`, then by id.

        Args:
            order: For difficulties `hardest`, `easiest` or `middle` (nearest the median rank first).
            skip: In [0, 1): this share of the samples, the hardest, comes after all others, the least hard first; the
                order is that of the rest.

        Raises:
            BudgetError: Skip is out of range.
            DataError: An order is asked of values, which have only one, or it is unknown.
        """
        if self.kind == "value":
            if order is not None:
                raise DataError(
                    f"order={order!r} is for difficulties; {self.method} gives values: the highest are kept"
                )
            chosen: Order = "easiest"  # the highest values are the least difficulties
        else:
            chosen = order or self.order
        if chosen not in ("hardest", "easiest", "middle"):
            raise DataError(f"order={order!r}; expected 'hardest', 'easiest' or 'middle'")
        skipped = self.skipped(skip)
        rest = np.delete(np.arange(len(self)), skipped)
        then = tuple(column[rest] for column in (self.ids, self.ties) if column is not None)
        hard = self.difficulties[rest]
        if chosen == "hardest":
            ranked = np.lexsort((*then, -hard))
        elif chosen == "easiest":
            ranked = np.lexsort((*then, hard))
        else:
            # the rank of a tie is the mean rank of its members, so that equal scores are equally far from the middle
            _, inverse, counts = np.unique(hard, return_inverse=True, return_counts=True)
            rank = (np.cumsum(counts) - (counts + 1) / 2)[inverse]
            ranked = np.lexsort((*then, np.abs(rank - (len(hard) - 1) / 2)))
        return np.concatenate([rest[ranked], skipped[::-1]])

    def skipped(self, skip: float) -> Array:
        """Positions of the hardest share of the samples, the hardest first; of equal ones the first by `ties` and id.

        Raises:
            BudgetError: Skip is out of range.

        Example:
            >>> Scores(np.array([1.0, 9.0, 5.0, 2.0]), np.arange(4), "x", "difficulty", "points").skipped(0.5).tolist()
            [1, 2]
        """
        if not 0 <= skip < 1:
            raise BudgetError(f"skip={skip}; expected a share of the samples in [0, 1)")
        if not skip:
            return np.empty(0, dtype=np.int64)
        then = (self.ids,) if self.ties is None else (self.ids, self.ties)
        return np.lexsort((*then, -self.difficulties))[: int(np.floor(skip * len(self) + 0.5))]

    def kept(
        self,
        budget: Budget | float | int | str,
        order: Order | None = None,
        class_balance: float | None = None,
        skip: float = 0.0,
    ) -> Array:
        """Sorted positions of the samples to keep.

        Args:
            budget: How much.
            order: See `ranking`.
            class_balance: In [0, 1]: every class keeps at least this share of k / c samples (or all it has); that of
                the scores when None.
            skip: In [0, 1): this share of the samples, the hardest, is kept only where the others are too few for the
                budget or for a class floor.

        Raises:
            BudgetError: The budget does not fit the data.
        """
        budget = as_budget(budget)
        ranking = self.ranking(order, skip)
        class_balance = self.class_balance if class_balance is None else class_balance
        if not 0 <= class_balance <= 1:
            raise BudgetError(f"class_balance={class_balance}; expected a share in [0, 1]")
        if budget.per_class is None and class_balance == 0:
            return np.sort(ranking[: budget.count(len(self))])
        if self.labels is None:
            raise BudgetError("a budget per class or a class floor needs labels, but these scores have none")
        present = np.unique(self.labels)
        k = budget.count(len(self), len(present)) if budget.per_class is None else budget.per_class * len(present)
        floor = budget.per_class or int(class_balance * k / len(present))
        labels = self.labels[ranking]
        rank_in_class = np.empty(len(self), dtype=np.int64)
        for c in present:
            of_class = labels == c
            if budget.per_class is not None and of_class.sum() < floor:
                raise BudgetError(f"{budget} asks for more than the {int(of_class.sum())} samples of class {int(c)}")
            rank_in_class[of_class] = np.arange(of_class.sum())
        first = rank_in_class < floor
        rest = ranking[~first][: max(0, k - int(first.sum()))]
        return np.sort(np.concatenate([ranking[first], rest]))

    def dropped(
        self,
        budget: Budget | float | int | str,
        order: Order | None = None,
        class_balance: float | None = None,
        skip: float = 0.0,
    ) -> Array:
        """Sorted positions of the samples that `kept` with the same arguments leaves out."""
        mask = np.ones(len(self), dtype=bool)
        mask[self.kept(budget, order, class_balance, skip)] = False
        return np.flatnonzero(mask)


@dataclass(frozen=True, eq=False)
class Selection:
    """Which samples are kept, how much each counts, and why.

    Args:
        positions: (k,) sorted positions of the kept samples.
        weights: (k,) numbers >= 0, how many samples each stands for in the loss; None for equal weights.
        values: (n,) the number of every sample that the choice was made by, NaN where there is none; None without any.
        unit: Of the values, for people.
        reasons: (n,) a few words about every sample, kept or not; None where the values say it all.
        note: What people must know, such as "13 of 50 were filled in at random".

    Raises:
        DataError: Positions are not sorted, or the columns do not fit.

    Example:
        >>> chosen = Selection.made(np.array([2, 0, 1]), np.array([1, 0]), weights=np.array([3.0, 1.0]))
        >>> chosen.positions.tolist(), chosen.weights.tolist()
        ([0, 2], [3.0, 1.0])
    """

    positions: Array
    weights: Array | None = None
    values: Array | None = None
    unit: str = ""
    reasons: Array | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.positions.ndim != 1 or (np.diff(self.positions) <= 0).any():
            raise DataError(f"positions of shape {self.positions.shape} are not sorted, or one comes twice")
        if self.weights is not None and self.weights.shape != self.positions.shape:
            raise DataError(
                f"weights has shape {self.weights.shape}; expected {self.positions.shape}, one a kept sample"
            )

    @classmethod
    def made(
        cls,
        order: Any,
        picks: Any,
        *,
        weights: Any = None,
        values: Any = None,
        unit: str = "",
        reasons: Any = None,
        note: str = "",
    ) -> Selection:
        """A selection that was made on the samples in another order, as methods do that work in the order of the ids.

        Args:
            order: (n,) position in the data of each sample of that order (see `modicum.reading.by_id`).
            picks: (k,) what was picked, as positions in that order, in any sequence.
            weights: (k,) of the picks, in the same sequence.
            values: (n,) in that order.
            unit: Of the values.
            reasons: (n,) in that order.
            note: See the class.
        """
        order, picks = np.asarray(order), np.asarray(picks, dtype=np.int64)
        positions = order[picks]
        sequence = np.argsort(positions, kind="stable")

        def straight(column: Any) -> Array | None:
            if column is None:
                return None
            given = np.asarray(column)
            there = np.empty_like(given)
            there[order] = given
            return there

        return cls(
            positions[sequence],
            None if weights is None else np.asarray(weights, dtype=np.float64)[sequence],
            straight(values),
            unit,
            straight(reasons),
            note,
        )

    def __len__(self) -> int:
        return len(self.positions)

    def taken_from(self, dataset: Dataset) -> Dataset:
        """The kept samples with their weights, divided by their mean; what the data set weighs its samples by stays a
        factor."""
        kept = dataset[self.positions]
        if self.weights is None:
            return kept
        import torch

        own = torch.from_numpy(self.weights / max(self.weights.mean(), 1e-300)).float()
        return kept.replace(weights=own if kept.weights is None else own * kept.weights)
