"""Any classifier or regressor with `fit` and `predict`."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import NumPy
from modicum.errors import DataError, ModicumError
from modicum.measurement.learners.problem import Outputs, Problem
from modicum.spec import canonical

__all__ = ["Estimator"]


@dataclass(frozen=True, eq=False)
class Estimator:
    """A scikit-learn estimator, or any object with `fit(x, y)` and `predict(x)`; a copy is trained on each subset.

    A `random_state` that is None is set to the seed. Where `fit` or `predict` fails on a subset, the answer is its commonest
    class (or mean target), and `Utility.failures` says how often; failing on all samples is an error. Answers of
    estimators with `get_params` are kept between commands. Its operations are not counted, only its seconds.

    Args:
        estimator: What is copied and trained.

    Raises:
        DataError: It has no `fit` or no `predict`.
    """

    estimator: Any

    reads: ClassVar[Literal["features", "inputs"]] = "features"
    costly: ClassVar[bool] = True
    any_subset: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("fit", "predict"):
            if not callable(getattr(self.estimator, name, None)):
                raise DataError(f"estimator {self.estimator!r} has no method {name}; expected one with fit and predict")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Estimator):
            return NotImplemented
        mine = self.describe()
        return self.estimator is other.estimator or (mine is not None and mine == other.describe())

    def __hash__(self) -> int:
        return hash(type(self.estimator))

    @property
    def gives(self) -> Outputs:
        """Probabilities where there is `predict_proba`."""
        return "probabilities" if hasattr(self.estimator, "predict_proba") else "scores"

    @property
    def uncounted(self) -> tuple[str, ...]:
        """What has no count of operations."""
        return (type(self.estimator).__name__,)

    def describe(self) -> Any:
        """Its class, version and options in JSON types; None when there are none that last."""
        kind = type(self.estimator)
        try:
            options = _plain(self.estimator.get_params(deep=True))
        except (AttributeError, ModicumError):
            return None
        version = _version(kind)  # code without one may change unnoticed
        return (
            {"class": f"{kind.__module__}:{kind.__qualname__}", "version": version, "options": options}
            if version
            else None
        )

    def outputs(self, problem: Problem, masks: Tensor) -> Tensor:
        """One copy a subset."""
        x, queries = (a.cpu().numpy() for a in (problem.features, problem.queries))
        y = problem.targets.cpu().numpy()
        made = np.zeros((len(masks), len(queries), problem.columns))
        for i, mask in enumerate(masks):
            at = mask.nonzero()[:, 0].cpu().numpy()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the same ones for every subset
                    made[i] = self._answers(problem, x[at], y[at], queries)
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                if bool(mask.all()):
                    raise DataError(f"estimator {self.estimator!r} fails on all {len(x)} samples: {why}") from error
                problem.fail(mask, why)
                if problem.classes:
                    made[i, :, np.bincount(y[at]).argmax()] = 1
                else:
                    made[i] = y[at].mean()
        return torch.from_numpy(made).to(problem.features.device)

    def _answers(self, problem: Problem, x: NumPy, y: NumPy, queries: NumPy) -> NumPy:
        made = np.zeros((len(queries), problem.columns))
        copied = self._copy(problem.seed)
        copied.fit(x, y)
        if not problem.classes:
            made[:] = np.asarray(copied.predict(queries), dtype=np.float64).reshape(len(queries), 1)
        elif self.gives == "scores":
            made[np.arange(len(queries)), np.asarray(copied.predict(queries), dtype=np.int64)] = 1
        else:
            there = np.asarray(getattr(copied, "classes_", np.unique(y)), dtype=np.int64)
            made[:, there] = copied.predict_proba(queries)
        return made

    def _copy(self, seed: int) -> Any:
        if not hasattr(self.estimator, "get_params"):
            return copy.deepcopy(self.estimator)
        from sklearn.base import clone

        copied = clone(self.estimator)
        open_ = {k: seed for k, v in copied.get_params().items() if k.split("__")[-1] == "random_state" and v is None}
        return copied.set_params(**open_)

    def start(self, problem: Problem, orders: Tensor) -> None:
        """It is always trained anew."""

    def room(self, problem: Problem) -> int:
        """That of one estimator, which is not known."""
        return 0

    def flops(self, problem: Problem, size: float) -> float:
        """They are not known."""
        return 0.0


def _plain(options: Any) -> Any:
    """Options with nested estimators as their classes; their own options are listed beside them."""
    if isinstance(options, dict):
        return {k: _plain(v) for k, v in options.items()}
    if isinstance(options, (list, tuple)):
        return [_plain(v) for v in options]
    if hasattr(options, "get_params"):
        return f"{type(options).__module__}:{type(options).__qualname__}"
    if isinstance(options, np.generic):
        return options.item()
    return canonical(options)


def _version(kind: type) -> str:
    import importlib

    return str(getattr(importlib.import_module(kind.__module__.split(".")[0]), "__version__", ""))
