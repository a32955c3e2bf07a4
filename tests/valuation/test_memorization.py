import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import modicum
from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError
from modicum.measurement import Utilities
from modicum.store import Store
from modicum.training.recipe import Recipe
from modicum.valuation import Memorization, influence_of_subsets, memorization
from modicum.valuation.memorization import _subsets


def drawn(models=40, n=12, m=5, seed=0):
    draw = np.random.default_rng(seed)
    return draw.random((models, n)) < 0.7, draw.random((models, m)) < 0.6


def by_hand(masks, column, i):
    inside, outside = column[masks[:, i]], column[~masks[:, i]]
    p, q = inside.mean(), outside.mean()
    return p - q, math.sqrt(p * (1 - p) / len(inside) + q * (1 - q) / len(outside))


def test_both_equal_their_definition():
    masks, correct = drawn(n=12, m=12)
    values, errors = memorization(masks, correct)
    pairs, spread = influence_of_subsets(masks, correct)
    assert pairs.shape == spread.shape == (12, 12)
    for i in range(12):
        np.testing.assert_allclose([values[i], errors[i]], by_hand(masks, correct[:, i], i), atol=1e-15)
        for j in range(12):
            np.testing.assert_allclose([pairs[j, i], spread[j, i]], by_hand(masks, correct[:, j], i), atol=1e-14)
    np.testing.assert_allclose(np.diag(pairs), values, atol=1e-14)


def test_a_constant_answer_memorizes_nothing():
    masks, _ = drawn()
    for constant in (np.ones, np.zeros):
        values, errors = memorization(masks, constant(masks.shape))
        assert not values.any()
        assert not errors.any()


def test_what_only_its_own_models_know_is_memorized():
    masks, _ = drawn()
    values, errors = memorization(masks, masks)
    assert values.tolist() == [1.0] * 12
    assert not errors.any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_bounds_and_wrong_answers(seed):
    masks, correct = drawn(seed=seed)
    values, errors = influence_of_subsets(masks, correct)
    opposite, same = influence_of_subsets(masks, ~correct)
    np.testing.assert_allclose(opposite, -values, atol=1e-14)
    np.testing.assert_allclose(same, errors, atol=1e-14)
    assert np.abs(values).max() <= 1
    assert (errors <= math.sqrt(0.25 / 1 + 0.25 / 1)).all()


def test_same_kind_and_no_writes():
    masks, correct = drawn(m=12)
    masks.flags.writeable = correct.flags.writeable = False
    values, _ = memorization(masks, correct)
    assert isinstance(values, np.ndarray)
    tensors = memorization(torch.tensor(masks), torch.tensor(correct))
    assert all(part.dtype == torch.float64 for part in tensors)
    assert np.array_equal(tensors[0].numpy(), values)


@pytest.mark.parametrize("function", [memorization, influence_of_subsets])
@pytest.mark.parametrize("everywhere, where", [(True, "every subset"), (False, "no subset")])
def test_a_sample_that_is_always_or_never_there_has_no_value(function, everywhere, where):
    masks, correct = drawn(m=12)
    masks[:, 3] = everywhere
    with pytest.warns(UserWarning, match=f"masks: sample 3 is in {where}; the values of 1 such samples are NaN"):
        values, errors = function(masks, correct)
    unknown = np.isnan(values)
    assert np.array_equal(unknown, np.isnan(errors))
    assert unknown[..., 3].all()
    assert unknown.sum() == unknown[..., 3].size


@pytest.mark.parametrize(
    "masks, correct, text",
    [
        (np.eye(9), np.eye(9), "masks has 9 models; expected at least 10"),
        (np.ones((12, 4)) * 0.5, np.ones((12, 4)), "masks has entries other than 0 and 1"),
        (np.ones((12, 4)), np.ones((11, 4)), r"masks has shape \(12, 4\); expected \(11, n\)"),
        (np.ones((12, 4)), np.ones((12, 3)), r"correct has shape \(12, 3\); expected \(12, 4\), that of masks"),
        (np.ones((12, 4)), np.ones((12, 4)) * 2, "correct reaches from 2 to 2; expected 0 for wrong and 1 for right"),
        (np.ones((12, 4)), np.full((12, 4), np.nan), r"correct\[0, 0\] is nan"),
    ],
)
def test_errors_name_the_argument(masks, correct, text):
    with pytest.raises(DataError, match=text):
        memorization(masks, correct)


# -- the method --------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 40), count=st.integers(1, 30), share=st.floats(0.05, 0.95), seed=st.integers(0, 100))
def test_subsets_have_one_size_and_leave_everybody_out_as_often(n, count, share, seed):
    size = max(1, min(n - 1, round(share * n)))
    masks = _subsets(count, n, size, torch.Generator().manual_seed(seed))
    assert masks.sum(1).tolist() == [size] * count
    left_out = (~masks).sum(0)
    assert int(left_out.max() - left_out.min()) <= 1


def random_points(n=40, classes=3):
    draw = torch.Generator().manual_seed(4)
    x, y = torch.randn(n, 2, generator=draw), torch.randint(classes, (n,), generator=draw)
    train = Dataset(x, y, info=Info(classes=tuple("abc"[:classes])))
    return Splits(train, train[:5], train[:5])


def test_of_one_nearest_neighbor_it_has_a_closed_form():
    data = random_points()
    n, m, models = 40, 28, 3000
    method = Memorization(models=models, learner="knn(k=1)")
    scores = method.score(data, Context(), Utilities("knn(k=1)").measure(data, Recipe(), Context()))
    distances = torch.cdist(data.train.inputs.double(), data.train.inputs.double())
    ranked = data.train.labels[distances.argsort(1)[:, 1:]]
    # of the others, who are n - 1 of which m are there, the r-th is the first that is there
    first = [math.comb(n - 1 - r, m - 1) / math.comb(n - 1, m) for r in range(1, n)]
    wrong = (ranked != data.train.labels[:, None]).double().numpy()
    exact = wrong @ np.array(first)
    assert np.isclose(sum(first), 1)
    np.testing.assert_allclose(scores.values, exact, atol=4 * 0.5 / math.sqrt(0.3 * models))
    off = (scores.values - exact)[scores.errors > 0] / scores.errors[scores.errors > 0]
    assert np.abs(off).max() < 4
    assert scores.kind == "difficulty"
    assert scores.unit == "accuracy"


def test_networks_memorize_a_wrong_label():
    data = modicum.load("digits", limit=120)
    wrong = data.train.targets.clone()
    wrong[:12] = (wrong[:12] + 1) % 10
    data = data._replace(train=data.train.replace(targets=wrong))
    recipe, ctx = Recipe(model="mlp(hidden=64, layers=1)", epochs=20, batch_size=16, lr=0.1), Context()
    method = Memorization(models=12)
    (need,) = method.needs()
    scores = method.score(data, ctx, need.measure(data, recipe, ctx))
    assert scores.values[:12].mean() > scores.values[12:].mean() + 0.4
    assert ctx.ledger.total("choose").flops > 0
    assert scores.note == "12 models"


def test_stops_at_the_deadline_and_goes_on_from_there(tmp_path):
    data = random_points()
    utility = Utilities("knn(k=1)").measure(data, Recipe(), Context())
    method = Memorization(models=60, learner="knn(k=1)")
    straight = method.score(data, Context(), utility)
    late = Context(store=Store(tmp_path), deadline=time.monotonic() - 1)
    first = method.score(data, late, utility)
    assert first.note == "stopped after 20 of 60 models"
    assert np.isfinite(first.errors).all()
    rest = method.score(data, late.with_(deadline=None), utility)
    assert rest.note == "60 models"
    assert np.array_equal(rest.values, straight.values)
    assert np.array_equal(rest.errors, straight.errors)


def test_samples_that_were_always_there_are_told_of():
    data = random_points()
    utility = Utilities("knn(k=1)").measure(data, Recipe(), Context())
    scores = Memorization(models=10, share=0.99, learner="knn(k=1)").score(data, Context(), utility)
    assert scores.note == "10 models; 30 samples were in every subset or in none: use more models"
    assert np.isinf(scores.errors).sum() == 30
    assert not scores.values[np.isinf(scores.errors)].any()


@pytest.mark.parametrize(
    "options, text",
    [
        ({"share": 0.0}, r"share=0.0; expected a share in \(0, 1\)"),
        ({"share": 1.0}, "share=1.0"),
        ({"models": 9}, "models=9; expected at least 10"),
    ],
)
def test_options_out_of_range(options, text):
    data = random_points()
    utility = Utilities("knn(k=1)").measure(data, Recipe(), Context())
    with pytest.raises(DataError, match=text):
        Memorization(**options).score(data, Context(), utility)


def test_regression_has_no_right_answers():
    data = modicum.load("diabetes", limit=40)
    utility = Utilities().measure(data, Recipe(), Context())
    with pytest.raises(DataError, match="class labels are needed, but this data set is for regression"):
        Memorization().score(data, Context(), utility)
