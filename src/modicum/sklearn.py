"""Data valuation as a scikit-learn estimator: importing this module imports scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from modicum.arrays import NumPy
from modicum.context import Context
from modicum.data.load import standardized
from modicum.data.parting import split
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError
from modicum.scores import Budget
from modicum.verbs import score

__all__ = ["DataValuer", "InputError"]


class InputError(DataError, ValueError, TypeError):
    """The arrays cannot be used; a `ValueError` and a `TypeError` too, as callers of scikit-learn expect."""


class DataValuer(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What each row of a table is worth, by any valuation method.

    `fit` gives every training row a number, `select` keeps the best rows. Values are made on a validation set: give one to
    `fit`, or a stratified part of the rows is held out, with a warning, and has no value itself (NaN, last in the
    ranking, never selected).

    It follows scikit-learn's conventions (`get_params`, `set_params`, `clone`) and can be the last step of a pipeline, after
    a scaler for example; its values are then those of the transformed rows. Pipelines cannot drop rows, so train on what
    `select` gives, or on the rows of `get_support`. Validation rows given to a pipeline are not transformed by the steps
    before, unless it is told to (`transform_input`).

    Args:
        method: Key of a valuation method, with options or without, such as `data-shapley(permutations=200)`, or a method
            object; `modicum methods` lists all.
        valid: Share of the rows in (0, 1) that is held out where no validation rows are given.
        recipe: How networks are trained by the methods that train any; one that suits the data when None.
        max_seconds: Methods that get better the longer they run give their best answer then.
        device: `cpu`, `cuda`, `mps` or `auto`.
        random_state: An integer; the same one gives the same values.

    Attributes:
        values_: (n,) one number a row, in the order of the rows; NaN for held-out rows.
        standard_errors_: (n,) of the values; None where the method has none.
        ranking_: (n,) rows from the first to keep to the last, held-out rows at the end.
        scores_: The `modicum.Scores` of the rows that were valued, with their kind, unit and cost; `scores_.ids` are rows.
        held_out_: (h,) rows that were held out; empty where validation rows were given.
        classes_: The labels, for classification.
        n_features_in_: Columns.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> x, y = load_iris(return_X_y=True)
        >>> valuer = DataValuer("knn-shapley(k=3)").fit(x[::2], y[::2], x[1::2], y[1::2])
        >>> valuer.values_.shape, len(valuer.select(x[::2], y[::2], keep="80%")[0])
        ((75,), 60)
    """

    classes_: NumPy

    def __init__(
        self,
        method: Any = "knn-shapley",
        *,
        valid: float = 0.2,
        recipe: Any = None,
        max_seconds: float | None = None,
        device: str = "cpu",
        random_state: int = 0,
    ) -> None:
        self.method = method
        self.valid = valid
        self.recipe = recipe
        self.max_seconds = max_seconds
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any, X_valid: Any = None, y_valid: Any = None, sources: Any = None) -> DataValuer:
        """Value the rows.

        Args:
            X: (n, d) numbers, as an array or a data frame.
            y: (n,) labels, or numbers with a fraction for regression.
            X_valid: (m, d) validation rows; a part of X is held out when None.
            y_valid: (m,) their labels.
            sources: (n,) the source that each row comes from, for methods that read it.

        Returns:
            Itself.

        Raises:
            ModicumError: The arrays or a parameter cannot be used; `InputError` for the arrays.
        """
        if (X_valid is None) != (y_valid is None):
            given, missing = ("y_valid", "X_valid") if X_valid is None else ("X_valid", "y_valid")
            raise InputError(f"{given} is given without {missing}; give both or neither")
        if isinstance(self.random_state, bool) or not isinstance(self.random_state, (int, np.integer)):
            raise ModicumError(
                f"random_state={self.random_state!r}; expected an integer, so that values can be repeated"
            )
        ctx = Context(device=self.device, seed=int(self.random_state))
        rows, targets = self._arrays("X, y", X, y, reset=True)
        train = self._dataset(rows, targets, sources)
        n = len(train)
        if X_valid is not None:
            valid = self._valid(X_valid, y_valid, train)
        else:
            train, valid = self._parted(train)
        train = standardized(train)
        valid = valid.replace(info=train.info)
        self.scores_ = score(
            Splits(train, valid, valid), self.method, self.recipe, ctx, max_seconds=self.max_seconds, curves=None
        )
        at = train.ids
        self.values_, errors = np.full((2, n), np.nan)
        self.values_[at] = self.scores_.values
        self.standard_errors_ = None
        if self.scores_.errors is not None:
            errors[at] = self.scores_.errors
            self.standard_errors_ = errors
        self.held_out_ = np.setdiff1d(np.arange(n), at)
        self.ranking_ = np.concatenate([at[self.scores_.ranking()], self.held_out_])
        return self

    def get_support(self, keep: Budget | float | int | str, indices: bool = False) -> NumPy:
        """Which rows are kept.

        Args:
            keep: How much of the rows that were valued: a fraction, a count, `80%` or `10/class`.
            indices: Whether positions are wanted, in order, and not a mask.

        Returns:
            (n,) booleans, or (k,) positions.

        Raises:
            BudgetError: The budget does not fit.
            NotFittedError: `fit` was not called.
        """
        check_is_fitted(self)
        at: NumPy = np.sort(self.scores_.ids[self.scores_.kept(keep)])
        if indices:
            return at
        mask = np.zeros(len(self.values_), dtype=bool)
        mask[at] = True
        return mask

    def select(self, X: Any, y: Any = None, keep: Budget | float | int | str = "80%") -> Any:
        """The rows that are worth most, of the table that was fitted.

        Args:
            X: (n, ...) the rows that `fit` saw, or other columns of theirs; an array, data frame or list.
            y: (n,) their labels, or None.
            keep: See `get_support`.

        Returns:
            X with the kept rows only, in their order, and y likewise where it is given.

        Raises:
            InputError: There are more or fewer rows than were fitted.
            BudgetError: The budget does not fit.
        """
        at = self.get_support(keep, indices=True)
        kept = [_rows(name, part, at, len(self.values_)) for name, part in (("X", X), ("y", y)) if part is not None]
        return kept[0] if y is None else tuple(kept)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    # -- from arrays to data sets ----------------------------------------------------------------------------------

    def _arrays(self, name: str, X: Any, y: Any, reset: bool) -> tuple[NumPy, NumPy]:
        """Checked by scikit-learn's own rules."""
        with _as_input_error(name):
            try:
                from sklearn.utils.validation import validate_data
            except ImportError:  # scikit-learn before 1.6
                rows, targets = self._validate_data(X, y, reset=reset, dtype=np.float32)
            else:
                rows, targets = validate_data(self, X, y, reset=reset, dtype=np.float32)
        return np.ascontiguousarray(rows), targets

    def _dataset(self, rows: NumPy, targets: NumPy, sources: Any) -> Dataset:
        with _as_input_error("y"):
            kind = type_of_target(targets, input_name="y")
        inputs = torch.from_numpy(rows.copy())
        columns: dict[str, Any] = {}
        names: tuple[str, ...] = ()
        if sources is not None:
            found, at = np.unique(np.asarray(sources), return_inverse=True)
            if at.shape != (len(rows),):
                raise InputError(f"sources has shape {at.shape}; expected ({len(rows)},), one a row")
            columns["sources"], names = torch.from_numpy(at), tuple(map(str, found.tolist()))
        if kind == "continuous":
            self.__dict__.pop("classes_", None)  # of an earlier fit
            numbers = torch.from_numpy(targets.astype(np.float32))
            return Dataset(inputs, numbers, info=Info("regression", sources=names), **columns)
        if kind not in ("binary", "multiclass"):
            raise InputError(f"Unknown label type: y is {kind}; expected one label or one number a row")
        self.classes_, labels = np.unique(targets, return_inverse=True)
        info = Info(classes=tuple(map(str, self.classes_.tolist())), sources=names)
        return Dataset(inputs, torch.from_numpy(labels), info=info, **columns)

    def _valid(self, X_valid: Any, y_valid: Any, train: Dataset) -> Dataset:
        rows, targets = self._arrays("X_valid, y_valid", X_valid, y_valid, reset=False)
        inputs = torch.from_numpy(rows.copy())
        if train.info.task == "regression":
            return Dataset(inputs, torch.from_numpy(targets.astype(np.float32)), info=train.info)
        unknown = np.setdiff1d(targets, self.classes_)
        if len(unknown):
            raise InputError(f"y_valid has label {unknown[0].item()!r}; expected one of y: {self.classes_.tolist()}")
        return Dataset(inputs, torch.from_numpy(np.searchsorted(self.classes_, targets)), info=train.info)

    def _parted(self, train: Dataset) -> tuple[Dataset, Dataset]:
        if not 0 < self.valid < 1:
            raise ModicumError(f"valid={self.valid}; expected a share in (0, 1)")
        with _as_input_error("X"):
            kept, held_out = split(train, (1 - self.valid, self.valid), int(self.random_state))
        warnings.warn(
            f"no validation rows were given: {len(held_out)} of {len(train)} rows are held out to value the others and have "
            "no value themselves; give X_valid and y_valid",
            stacklevel=3,
        )
        return kept, held_out


@contextmanager
def _as_input_error(name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, DataError) as error:
        raise InputError(f"{name}: {error}") from error


def _rows(name: str, part: Any, at: NumPy, n: int) -> Any:
    length = part.shape[0] if hasattr(part, "shape") else len(part)
    if length != n:
        raise InputError(f"{name} has {length} rows; expected the {n} that fit was given")
    if hasattr(part, "iloc"):
        return part.iloc[at]
    return part[at] if hasattr(part, "shape") else [part[i] for i in at.tolist()]
