"""The pilot on real sources."""

import pytest
import torch

import modicum
from modicum.analysis import pilot_sources
from modicum.context import Context
from modicum.data import concatenate
from modicum.errors import DataError
from modicum.training.recipe import Recipe

RECIPE = Recipe("mlp(hidden=32)", epochs=12)


@pytest.fixture(scope="module")
def parts():
    train = modicum.load("digits").train
    train = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(1))]
    wrong = train.labels[250:500][torch.randperm(250, generator=torch.Generator().manual_seed(2))]
    noise = train[250:500].replace(targets=wrong)
    mirrored = train[500:750]
    mirrored = mirrored.replace(inputs=mirrored.inputs.flip(-1).contiguous())
    return concatenate({"clean": train[:250], "noise": noise, "mirrored": mirrored}), train[750:]


def test_the_source_like_the_target_is_the_most_relevant(parts):
    ctx = Context()
    found = pilot_sources(*parts, RECIPE, ctx, explore=200)
    assert found.relevance["clean"] > 2 * max(found.relevance["noise"], found.relevance["mirrored"])
    assert found.explored == {"clean": 200, "noise": 200, "mirrored": 200}
    assert 0 < found.residual < 1
    assert {charge.phase for charge in ctx.ledger.charges} == {"choose"}
    assert ctx.ledger.total().flops > 0
    assert pilot_sources(*parts, RECIPE, explore=200).relevance == found.relevance


def test_the_order_of_the_sources_does_not_matter_much(parts):
    mixed, target = parts
    order = torch.cat([(mixed.sources == s).nonzero().flatten() for s in (2, 1, 0)])
    assert pilot_sources(mixed[order], target, RECIPE).relevance["clean"] > 0.5


def test_what_cannot_be_compared_is_said(parts):
    mixed, target = parts
    with pytest.raises(DataError, match="sources has no column `sources`"):
        pilot_sources(target, target, RECIPE)
    with pytest.raises(DataError, match="target has other classes or inputs than sources"):
        pilot_sources(mixed, modicum.load("iris").train, RECIPE)
    with pytest.raises(DataError, match="explore=1; expected at least 2"):
        pilot_sources(mixed, target, RECIPE, explore=1)
    with pytest.raises(DataError, match="target is for classification of 0 samples"):
        pilot_sources(mixed, target[:0], RECIPE)
    with pytest.raises(DataError, match="every group of samples has one class only"):
        pilot_sources(mixed, target[target.labels == 3], RECIPE)
