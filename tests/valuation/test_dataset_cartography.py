from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError
from modicum.valuation import DatasetCartography, cartography

SOME = np.random.default_rng(0).random((6, 30))


@settings(max_examples=40, deadline=None)
@given(q=arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(1, 5)), elements=st.floats(0, 1)))
def test_variability_is_bounded_by_confidence(q):
    confidence, variability, _ = cartography(q, q > 0.5)
    assert (variability <= 0.5 + 1e-12).all()
    assert (variability <= np.sqrt(np.clip(confidence * (1 - confidence), 0, None)) + 1e-7).all()
    if len(q) == 1:
        assert (variability == 0).all()


def test_by_the_definitions():
    right = SOME > 0.4
    confidence, variability, correctness = cartography(SOME, right)
    np.testing.assert_allclose(confidence, SOME.mean(0))
    np.testing.assert_allclose(variability, SOME.std(0))
    assert correctness.tolist() == right.sum(0).tolist()
    variance = SOME.var(0)
    np.testing.assert_allclose(cartography(SOME, right, corrected=True)[1], np.sqrt(variance + variance**2 / 5))


def test_blocks_are_the_whole(monkeypatch):
    import importlib

    whole = cartography(SOME, SOME > 0.5)
    monkeypatch.setattr(importlib.import_module("modicum.valuation.dataset_cartography"), "BLOCK", 12)
    for a, b in zip(whole, cartography(SOME, SOME > 0.5)):
        np.testing.assert_allclose(a, b, atol=1e-15)


def test_kind_and_dtype_are_kept():
    q = torch.from_numpy(SOME).float()
    before = q.clone()
    found = cartography(q, q > 0.5)
    assert [part.dtype for part in found] == [torch.float32] * 3
    assert torch.equal(q, before)
    np.testing.assert_allclose(found[1], SOME.std(0), atol=1e-6)


@pytest.mark.parametrize(
    "q, right, options, text",
    [
        (
            np.full((2, 2), 1.5),
            np.ones((2, 2), bool),
            {},
            r"probabilities\[0, 0\] is 1.5; expected a number in \[0, 1\]",
        ),
        (np.full((2, 2), np.nan), np.ones((2, 2), bool), {}, r"probabilities\[0, 0\] is nan"),
        (np.ones((2, 2)), np.ones((2, 3), bool), {}, r"correct has shape \(2, 3\); expected \(2, 2\)"),
        (np.ones((2, 2)), np.full((2, 2), 3), {}, "correct has entries from 3 to 3"),
        (np.ones((1, 2)), np.ones((1, 2), bool), {"corrected": True}, "probabilities has 1 epoch"),
        (np.ones(3), np.ones(3, bool), {}, r"expected \(epochs, n\)"),
        (np.empty((0, 2)), np.empty((0, 2), bool), {}, "not empty"),
    ],
)
def test_errors_name_the_argument(q, right, options, text):
    with pytest.raises(DataError, match=text):
        cartography(q, right, **options)


def scored(region, runs=1, epochs=6):
    draw = torch.Generator().manual_seed(0)
    q = torch.rand(runs, epochs, 30, generator=draw)
    data = Dataset(torch.zeros(30, 2), torch.arange(30) % 3, info=Info(classes=tuple("abc")))
    table = SimpleNamespace(probability=q, correct=q > 0.5)
    return q, DatasetCartography(region, runs).score(Splits(data, data, data), Context(), table)


@pytest.mark.parametrize("runs", [1, 3])
def test_regions(runs):
    q, ambiguous = scored("ambiguous", runs)
    np.testing.assert_allclose(ambiguous.values, q.double().std(1, correction=0).mean(0), atol=1e-9)
    assert (ambiguous.errors is None) == (runs == 1)
    _, hard = scored("hard", runs)
    np.testing.assert_allclose(hard.values, 1 - q.double().mean((0, 1)), atol=1e-9)
    _, easy = scored("easy", runs)
    assert np.array_equal(easy.values, hard.values)
    assert easy.kept(5).tolist() == np.sort(np.argsort(easy.values)[:5]).tolist()
    assert hard.kept(5).tolist() == np.sort(np.argsort(-hard.values)[:5]).tolist()


def test_one_epoch_has_no_variability():
    with pytest.raises(DataError, match="probability was recorded in 1 epoch; variability needs at least 2"):
        scored("ambiguous", epochs=1)
    assert len(scored("hard", epochs=1)[1]) == 30


def test_options():
    with pytest.raises(ModicumError, match="option region='harder'; expected 'ambiguous', 'hard', 'easy'"):
        DatasetCartography("harder")
