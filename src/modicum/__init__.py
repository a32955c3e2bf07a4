"""modicum: make models cost less to train.

Which way of spending less works on this data set, and what does it save once choosing is paid for?

    import modicum
    frontier = modicum.compare("digits")
    print(frontier.recommendation.sentence)

Everything is imported when it is first used, so `import modicum` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modicum.comparison.frontier import Frontier
    from modicum.context import Context
    from modicum.data import load, save
    from modicum.dataset import Dataset, Info, Splits
    from modicum.errors import ModicumError
    from modicum.ledger import Charge, Ledger
    from modicum.scores import Budget, Scores
    from modicum.store import Store
    from modicum.training.fit import Fit
    from modicum.training.many import fit_many
    from modicum.training.recipe import Recipe
    from modicum.verbs import compare, distill, filter, fit, forecast, mix, pretrain, probe, relabel, score, select

_HOMES = {
    "compare": "verbs",
    "Frontier": "comparison.frontier",
    "Context": "context",
    "load": "data",
    "save": "data",
    "Dataset": "dataset",
    "Info": "dataset",
    "Splits": "dataset",
    "ModicumError": "errors",
    "Charge": "ledger",
    "Ledger": "ledger",
    "Budget": "scores",
    "Scores": "scores",
    "Store": "store",
    "Fit": "training.fit",
    "fit_many": "training.many",
    "Recipe": "training.recipe",
    "distill": "verbs",
    "filter": "verbs",
    "fit": "verbs",
    "forecast": "verbs",
    "mix": "verbs",
    "pretrain": "verbs",
    "probe": "verbs",
    "relabel": "verbs",
    "score": "verbs",
    "select": "verbs",
}
_PACKAGES = (
    "analysis",
    "comparison",
    "data",
    "distillation",
    "losses",
    "measurement",
    "models",
    "pretraining",
    "relabeling",
    "report",
    "selection",
    "sklearn",
    "training",
    "valuation",
)

__all__ = [
    "Budget",
    "Charge",
    "Context",
    "Dataset",
    "Fit",
    "Frontier",
    "Info",
    "Ledger",
    "ModicumError",
    "Recipe",
    "Scores",
    "Splits",
    "Store",
    "compare",
    "distill",
    "filter",
    "fit",
    "fit_many",
    "forecast",
    "load",
    "mix",
    "pretrain",
    "probe",
    "relabel",
    "save",
    "score",
    "select",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("modicum")
    if name in _HOMES:
        value = getattr(importlib.import_module(f"modicum.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if name in _PACKAGES:
        return importlib.import_module(f"modicum.{name}")
    raise AttributeError(f"module 'modicum' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})
