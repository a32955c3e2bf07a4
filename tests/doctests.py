"""Every docstring example of the installed package runs, with warnings as errors, from whatever directory this is in."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import modicum

NAMES = sorted(m.name for m in pkgutil.walk_packages(modicum.__path__, "modicum."))


@pytest.mark.parametrize("name", NAMES)
def test_examples(name: str, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODICUM_HOME", str(tmp_path / "runs"))
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    total = sum(bool(t.examples) for name in NAMES for t in finder.find(importlib.import_module(name)))
    assert total > 30
