"""Importing is light, in a fresh process; and the checks can fail."""

import json
import subprocess
import sys
import time

import pytest

import modicum

HEAVY = ("torch", "numpy", "sklearn", "pyarrow", "plotly", "PIL", "scipy")
FAMILIES = (
    "comparison",
    "data",
    "distillation",
    "measurement",
    "models",
    "report",
    "selection",
    "training",
    "valuation",
)


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported_by(code):
    """The heavy packages that are there after this code."""
    return set(json.loads(run(f"{code}\nimport json, sys\nprint(json.dumps(sorted(set({HEAVY}) & set(sys.modules))))")))


def test_importing_modicum_imports_nothing_heavy():
    assert imported_by("import modicum") == set()


def test_the_command_line_starts_without_torch():
    assert imported_by("import modicum.cli") == set()


def test_importing_valuation_leaves_out_what_only_some_methods_need():
    found = imported_by("import modicum.valuation")
    assert found.isdisjoint({"sklearn", "pyarrow", "plotly", "PIL", "scipy"})
    # and the check can fail: the data set stands on torch
    assert {"torch", "numpy"} <= imported_by("import modicum.dataset")


def test_public_names_and_families_are_there_after_a_bare_import():
    code = f"""
import modicum
for family in {FAMILIES}:
    assert getattr(modicum, family).__name__ == "modicum." + family
for name in modicum.__all__:
    assert getattr(modicum, name) is not None, name
    assert name in dir(modicum)
for family in ("valuation", "selection", "distillation", "comparison", "measurement"):
    for name in getattr(modicum, family).__all__:
        assert hasattr(getattr(modicum, family), name), name
# a module of the same letters does not take the place of a public function
import modicum.scores, modicum.training.fit, modicum.comparison.compare, modicum.data.load, modicum.data.save
assert callable(modicum.fit) and callable(modicum.compare) and callable(modicum.load) and callable(modicum.score)
"""
    run(code)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'modicum' has no attribute 'train'"):
        _ = modicum.train
    assert not hasattr(modicum, "__path_of_nothing__")


def test_help_comes_at_once():
    seconds = []
    for _ in range(5):  # the best of some: other work on the machine only makes it slower
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "modicum", "--help"], capture_output=True, text=True, timeout=60)
        seconds.append(time.perf_counter() - started)
        assert done.returncode == 0, done.stderr
        assert "compare" in done.stdout
        if seconds[-1] < 1:
            break
    assert min(seconds) < 1, f"the fastest of {len(seconds)} starts took {min(seconds):.2f} s"
