"""What can go wrong, as exceptions whose text says which argument, what came, what was expected and what to do."""

from __future__ import annotations

__all__ = ["BudgetError", "DataError", "MissingExtraError", "ModicumError", "StoreError", "TrainingError"]


class ModicumError(Exception):
    """Base of every error that modicum raises on purpose; the command line prints it as one line and exits 1."""


class DataError(ModicumError):
    """The data cannot be used as they are: shapes, types, labels, missing values, unreadable files."""


class BudgetError(ModicumError):
    """A budget asks for something that the data set cannot give."""


class StoreError(ModicumError):
    """A stored file is damaged, foreign, locked or cannot be written."""


class TrainingError(ModicumError):
    """A training run cannot start or has diverged."""


class MissingExtraError(ModicumError):
    """An optional package is needed.

    Args:
        package: The import that failed.
        extra: The extra of modicum that brings it.
        purpose: What it was needed for.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package '{package}': pip install 'modicum[{extra}]'")
