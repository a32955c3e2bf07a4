from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError
from modicum.valuation import DynUnc, cartography, dyn_unc


def naive(q, window):
    spreads = [q[t : t + window].std(0, ddof=1) for t in range(max(1, len(q) - window))]
    return np.mean(spreads, axis=0)


def test_what_never_changes_is_zero_to_the_bit():
    assert dyn_unc(np.full((7, 3), 0.3), 3).tolist() == [0, 0, 0]


def test_alternating():
    q = np.tile([[0.0], [1.0]], (5, 1))
    np.testing.assert_allclose(dyn_unc(q, 2), 1 / np.sqrt(2), rtol=1e-15)


@settings(max_examples=30, deadline=None)
@given(epochs=st.integers(2, 20), seed=st.integers(0, 99), data=st.data())
def test_cumulative_sums_equal_the_loop(epochs, seed, data):
    window = data.draw(st.integers(2, epochs))
    q = np.random.default_rng(seed).random((epochs, 4))
    np.testing.assert_allclose(dyn_unc(q, window), naive(q, window), atol=1e-7)


def test_as_wide_as_the_run_is_variability_with_another_divisor():
    q = np.random.default_rng(0).random((8, 20))
    _, variability, _ = cartography(q, q > 0.5)
    np.testing.assert_allclose(dyn_unc(q, 8), variability * np.sqrt(8 / 7))


def test_blocks_are_the_whole_and_the_kind_is_kept(monkeypatch):
    import importlib

    q = torch.rand(9, 40, generator=torch.Generator().manual_seed(0))
    whole = dyn_unc(q, 4)
    assert whole.dtype == torch.float32
    monkeypatch.setattr(importlib.import_module("modicum.valuation.dyn_unc"), "BLOCK", 20)
    torch.testing.assert_close(dyn_unc(q, 4), whole)


@pytest.mark.parametrize(
    "q, window, text",
    [
        (np.ones((5, 2)), 1, "window=1; expected an integer from 2 to the number of epochs, 5"),
        (np.ones((5, 2)), 6, "window=6; expected"),
        (np.ones((5, 2)), 2.0, "window=2.0; expected"),
        (np.full((5, 2), -0.5), 2, r"probabilities\[0, 0\] is -0.5; expected a number in"),
        (np.ones(5), 2, r"expected \(epochs, n\)"),
    ],
)
def test_errors_name_the_argument(q, window, text):
    with pytest.raises(DataError, match=text):
        dyn_unc(q, window)


def scored(method, epochs):
    q = torch.rand(2, epochs, 30, generator=torch.Generator().manual_seed(0))
    data = Dataset(torch.zeros(30, 2), torch.arange(30) % 3, info=Info(classes=tuple("abc")))
    return q.double().numpy(), method.score(Splits(data, data, data), Context(), SimpleNamespace(probability=q))


def test_the_method_is_the_mean_over_runs():
    q, scores = scored(DynUnc(window=4, runs=2), 9)
    np.testing.assert_allclose(scores.values, np.mean([naive(run, 4) for run in q], axis=0), atol=1e-9)
    assert scores.note == ""
    assert scores.errors is not None


def test_short_runs_have_shorter_windows_and_say_so():
    q, scores = scored(DynUnc(runs=2), 7)
    np.testing.assert_allclose(scores.values, np.mean([naive(run, 3) for run in q], axis=0), atol=1e-9)
    assert scores.note == "windows of 3 epochs, as the run has 7"
    with pytest.raises(DataError, match="probability was recorded in 2 epochs; expected at least 3"):
        scored(DynUnc(runs=2), 2)


def test_options():
    with pytest.raises(ModicumError, match="option window=1; expected an integer >= 2"):
        DynUnc(window=1)
