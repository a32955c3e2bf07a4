"""Entropy, least confidence and margin as methods: what they read of a snapshot is what the functions make of it."""

import numpy as np
import pytest
import torch

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.measurement import Traces
from modicum.training.evaluate import forward
from modicum.training.fit import fit
from modicum.training.recipe import Recipe
from modicum.valuation import Entropy, LeastConfidence, Margin, entropy, least_confidence, margin

PAIRS = [(Entropy, entropy), (LeastConfidence, least_confidence), (Margin, margin)]
RECIPE = Recipe(model="mlp(hidden=6, layers=1)", epochs=4, batch_size=8)


def splits():
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    data = Dataset(x, x[:, :3].argmax(1), info=Info(classes=tuple("abc")))
    return Splits(data[:30], data[30:], data[30:])


@pytest.mark.parametrize("method, function", PAIRS)
def test_reads_what_the_function_makes_of_the_model(method, function):
    data, ctx = splits(), Context(seed=3)
    scores = method(until=0.5).score(data, ctx, Traces(1, 0.5).measure(data, RECIPE, ctx))
    model = fit(data.train, RECIPE, Context(seed=3), stop_after=2).model
    p = forward(model, data.train, Context()).double().softmax(1)
    np.testing.assert_allclose(scores.values, function(p), atol=1e-5)
    assert (scores.kind, scores.order) == ("difficulty", "hardest")


@pytest.mark.parametrize("method, function", PAIRS)
def test_as_released_the_surest_are_kept(method, function):
    data, ctx = splits(), Context()
    table = Traces(1, 0.5).measure(data, RECIPE, ctx)
    ours, theirs = (method(until=0.5, deepcore_compat=c).score(data, ctx, table) for c in (False, True))
    assert np.array_equal(ours.values, theirs.values)
    assert ours.kept(5).tolist() == np.sort(np.argsort(-ours.values)[:5]).tolist()
    assert theirs.kept(5).tolist() == np.sort(np.argsort(ours.values)[:5]).tolist()
