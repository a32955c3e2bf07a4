"""Relabeled data: targets of the right samples, cached and charged, refused for others."""

import pytest
import torch
from torch import nn

from modicum.context import Context
from modicum.errors import DataError
from modicum.ledger import Ledger
from modicum.relabeling import Prior, PriorFeatures, PriorTargets, relabel, whitened_targets
from modicum.relabeling.prior_features import targets_of
from modicum.training.recipe import Recipe

RECIPE = Recipe("convnet(width=8)")


def test_targets_are_whitened_features(images):
    data = images(ids=torch.arange(48).numpy() * 2)
    made = relabel(data, "pixels", dim=5)
    features = data.train.prepare(data.train.inputs).flatten(1)
    assert torch.equal(made.targets, whitened_targets(features, 5))
    assert made.info.task == "regression"
    assert made.ids.tolist() == data.train.ids.tolist()
    assert torch.equal(made.inputs, data.train.inputs)


def test_labels_are_not_read(images):
    data = images()
    other = data._replace(train=data.train.replace(targets=data.train.targets.flip(0)))
    assert torch.equal(relabel(data, "pixels", 5).targets, relabel(other, "pixels", 5).targets)


def test_as_wide_as_there_are_components(images):
    with pytest.warns(UserWarning, match="48 samples have 47 principal components"):
        assert relabel(images(), "pixels").targets.shape == (48, 47)
    assert relabel(images(), nn.Sequential(nn.Flatten(), nn.Linear(192, 6))).targets.shape == (48, 6)
    with pytest.raises(DataError, match="dim=48; expected an integer from 1 to 47"):
        relabel(images(), "pixels", dim=48)


def test_another_order_permutes_the_targets(images):
    data = images()
    order = torch.randperm(48, generator=torch.Generator().manual_seed(1))
    a, b = relabel(data, "pixels", 4), relabel(data._replace(train=data.train[order]), "pixels", 4)
    torch.testing.assert_close(a.targets[order], b.targets, atol=1e-5, rtol=0)


def test_the_cache_charges_every_reader_in_full(images, tmp_path):
    first, second = Ledger(), Ledger()
    a, b = (
        PriorTargets("untrained").measure(images(), RECIPE, Context(ledger=ledger, cache=tmp_path))
        for ledger in (first, second)
    )
    assert torch.equal(a, b)
    assert first.total().flops == second.total().flops > 0
    assert first.total().forward_flops > 0, "the pass of the prior"
    assert first.total().extra_flops > 0, "whitening"
    assert first.total().seconds == second.total().seconds
    plain = PriorTargets("untrained").measure(images(), RECIPE, Context())
    assert torch.equal(a, plain)


def test_the_cache_is_keyed_by_data_prior_and_seed(images, tmp_path):
    def measured(data=None, prior="untrained", seed=0, side=0):
        return PriorFeatures(prior, side).measure(data or images(), RECIPE, Context(seed=seed, cache=tmp_path))

    first = measured()
    assert not torch.equal(first, measured(seed=1))
    assert not torch.equal(first, measured(images(seed=1)))
    one, two = (nn.Sequential(nn.Flatten(), nn.Linear(192, 4)) for _ in range(2))
    assert torch.equal(measured(prior=one), measured(prior=Prior(one)))
    assert not torch.equal(measured(prior=one), measured(prior=two))
    with torch.no_grad():
        before = measured(prior=one)
        one[1].weight[0, 0] += 1
    assert not torch.equal(measured(prior=one), before)


def test_as_wide_as_the_student_at_most(images):
    narrow = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    assert PriorTargets("pixels").measure(images(), RECIPE, Context()).shape == (48, 32)
    assert PriorTargets(narrow).measure(images(), RECIPE, Context()).shape == (48, 3)
    assert PriorTargets("pixels", dim=5).measure(images(), RECIPE, Context()).shape == (48, 5)
    with pytest.raises(DataError, match="dim=4; expected an integer from 1 to 3"):
        PriorTargets(narrow, dim=4).measure(images(), RECIPE, Context())


class TestTargetsOfOtherSamples:
    def test_the_same_samples(self, images):
        data = images()
        made = relabel(data, "pixels", 4)
        assert torch.equal(PriorTargets(made).measure(data, RECIPE, Context()), made.targets)

    def test_another_order(self, images):
        data = images()
        made = relabel(data, "pixels", 4)
        order = list(range(48))
        order[10], order[11] = 11, 10
        with pytest.raises(DataError, match="targets are of sample 10 at position 10, but the data have 11 there"):
            targets_of(made, data.train[order])
        assert torch.equal(targets_of(made[order], data.train[order]), made.targets[order])

    def test_another_number(self, images):
        data = images()
        with pytest.raises(DataError, match="there are targets of 48 samples, but the data have 40"):
            targets_of(relabel(data, "pixels", 4), data.train[:40])

    def test_no_such_targets(self, images):
        data = images().train
        with pytest.raises(DataError, match=r"targets of the relabeled data are torch.int64 of shape \(48,\)"):
            targets_of(data, data)

    def test_not_finite(self, images):
        data = images()
        made = relabel(data, "pixels", 4)
        targets = made.targets.clone()
        targets[5, 1] = torch.nan
        with pytest.raises(DataError, match="targets of sample 5 are not finite"):
            targets_of(made.replace(targets=targets), data.train)
