import itertools
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso

import modicum
from modicum.context import Context
from modicum.errors import DataError
from modicum.measurement import Utilities
from modicum.store import Store
from modicum.training.recipe import Recipe
from modicum.valuation import Datamodels, datamodels
from modicum.valuation.datamodels import _mean_weights, _subsets

EVERY = np.array(list(itertools.product([False, True], repeat=8)))


def banzhaf(values, n):
    """From its definition: the mean over all sets without a player of what the player adds."""
    at = EVERY @ (1 << np.arange(n)[::-1])
    worth = dict(zip(at.tolist(), values))
    found = []
    for i in range(n):
        bit = 1 << (n - 1 - i)
        found.append(np.mean([worth[s | bit] - worth[s] for s in worth if not s & bit], axis=0))
    return np.array(found).T


def drawn(models=400, n=12, t=4, noise=0.5, seed=0):
    draw = np.random.default_rng(seed)
    masks = draw.random((models, n)) < 0.5
    truth = draw.normal(size=(t, n)) * (draw.random((t, n)) < 0.4)
    return masks, masks @ truth.T + 2 + noise * draw.normal(size=(models, t)), truth


def test_least_squares_over_all_subsets_are_the_banzhaf_values():
    values = np.random.default_rng(0).normal(size=(256, 3))
    found = datamodels(EVERY, values, beta=0)
    np.testing.assert_allclose(found.weights, banzhaf(values, 8), rtol=0, atol=5e-15)


def test_an_additive_game_is_found_with_its_worth_of_nobody():
    worth = np.arange(8.0)
    found = datamodels(EVERY, EVERY @ worth + 5, beta=0)
    np.testing.assert_allclose(found.weights, worth, atol=1e-13)
    np.testing.assert_allclose(found.intercepts, 5, atol=1e-13)


@pytest.mark.parametrize("beta", [0.3, 0.03])
def test_equals_scikit_learn(beta):
    masks, outputs, _ = drawn()
    found = datamodels(masks, outputs, beta=beta)
    for j in range(4):
        peer = Lasso(alpha=beta / 2, tol=1e-13, max_iter=100_000).fit(masks, outputs[:, j])
        np.testing.assert_allclose(found.weights[j], peer.coef_, atol=1e-8)
        np.testing.assert_allclose(found.intercepts[j], peer.intercept_, atol=1e-8)
    assert found.betas.tolist() == [beta] * 4


def test_the_penalty_that_is_found_leaves_out_what_does_nothing():
    masks, outputs, truth = drawn(models=300, n=40)
    found = datamodels(masks, outputs)
    least = datamodels(masks, outputs, beta=0)
    assert np.abs(found.weights - truth).mean() < np.abs(least.weights - truth).mean()
    assert (found.weights[truth == 0] == 0).mean() > 0.3
    assert (found.weights[truth != 0] != 0).mean() > 0.9
    assert (found.betas > 0).all()


def test_targets_do_not_know_of_each_other():
    masks, outputs, _ = drawn()
    together = datamodels(masks, outputs)
    for j in range(4):
        alone = datamodels(masks, outputs[:, j])
        assert alone.weights.shape == (12,)
        assert alone.intercepts.shape == alone.betas.shape == ()
        np.testing.assert_allclose(alone.weights, together.weights[j], atol=1e-9)
        np.testing.assert_allclose(alone.betas, together.betas[j], rtol=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 100), shift=st.floats(-10, 10), scale=st.floats(0.1, 10))
def test_shift_and_scale_of_outputs(seed, shift, scale):
    masks, outputs, _ = drawn(models=60, n=6, t=2, seed=seed)
    plain, moved = datamodels(masks, outputs, beta=0.1), datamodels(masks, scale * outputs + shift, beta=0.1 * scale)
    np.testing.assert_allclose(moved.weights, scale * plain.weights, atol=1e-6 * scale)
    np.testing.assert_allclose(moved.intercepts, scale * plain.intercepts + shift, atol=1e-5 * scale)


def test_same_kind_and_dtype_and_no_writes():
    masks, outputs, _ = drawn(models=60, n=6)
    single = torch.from_numpy(outputs).float()
    found = datamodels(torch.from_numpy(masks), single, beta=0.1)
    assert all(part.dtype == torch.float32 for part in found)
    masks.flags.writeable = outputs.flags.writeable = False
    again = datamodels(masks.astype(np.int8), outputs, beta=0.1)
    np.testing.assert_allclose(found.weights.numpy(), again.weights, atol=1e-4)


def test_fewer_models_than_samples_is_warned_of_without_a_penalty():
    masks, outputs, _ = drawn(models=40, n=60)
    with pytest.warns(UserWarning, match="masks has 40 models for 60 samples: least squares has many solutions"):
        found = datamodels(masks, outputs, beta=0)
    predicted = masks @ found.weights.T + found.intercepts
    np.testing.assert_allclose(predicted, outputs, atol=1e-9)
    assert np.isfinite(datamodels(masks, outputs, beta=0, l2=0.1).weights).all()


@pytest.mark.parametrize(
    "change, text",
    [
        ({"masks": EVERY[:10]}, r"masks has shape \(10, 8\); expected \(256, n\), one row for each of outputs"),
        ({"masks": EVERY[:, 0]}, r"masks has shape \(256,\)"),
        ({"masks": EVERY * 0.5}, "masks has entries other than 0 and 1"),
        ({"masks": EVERY | (np.arange(8) == 3)}, "masks: sample 3 is in every subset, and so are 0 more like it"),
        ({"masks": EVERY & (np.arange(8) < 6)}, "masks: sample 6 is in no subset, and so are 1 more"),
        ({"outputs": np.full((256, 2), np.nan)}, r"outputs\[0, 0\] is nan"),
        ({"outputs": np.zeros((256, 2, 2))}, r"outputs has shape .*; expected \(models, targets\)"),
        ({"beta": -1.0}, "beta=-1.0; expected a number >= 0"),
        ({"l2": np.inf}, "l2=inf; expected a number >= 0"),
        ({"folds": 1}, "folds=1 for 256 models; expected from 2 to 128, or give beta"),
    ],
)
def test_errors_name_the_argument(change, text):
    with pytest.raises(DataError, match=text):
        datamodels(**({"masks": EVERY, "outputs": np.random.default_rng(0).normal(size=(256, 2))} | change))


# -- the method --------------------------------------------------------------------------------------------------------


def test_in_every_batch_each_sample_is_as_often_there_as_alpha_says():
    masks = _subsets(50, 30, 0.3, torch.Generator().manual_seed(0))
    assert masks.sum(0).tolist() == [15] * 30
    assert len(set(masks.sum(1).tolist())) > 3, "each sample is there on its own"
    assert _subsets(20, 5, 0.001, torch.Generator()).sum(0).tolist() == [1] * 5


def test_standard_errors_are_those_of_other_models():
    truth = np.random.default_rng(0).normal(size=(6, 20)) * 0.3
    found, errors = [], []
    for seed in range(20):
        draw = np.random.default_rng(seed + 1)
        masks = torch.from_numpy(draw.random((200, 20)) < 0.5)
        shared = draw.normal(size=(200, 1))  # a lucky model is lucky with many targets
        outputs = torch.from_numpy(masks.numpy() @ truth.T + shared + draw.normal(size=(200, 6)))
        value, error = _mean_weights(masks, outputs, None, 0.0)
        found.append(value.numpy())
        errors.append(error.numpy())
    real = np.std(found, axis=0, ddof=1).mean()
    assert 0.75 * real < np.sqrt(np.square(errors).mean()) < 1.35 * real


@pytest.fixture(scope="module")
def iris():
    data = modicum.load("iris")
    return data, Utilities().measure(data, Recipe(), Context())


def test_its_values_are_the_mean_weights(iris):
    data, utility = iris
    scores = Datamodels(models=60, beta=0.01).score(data, Context(), utility)
    order = np.argsort(data.train.ids)
    draw = Context().generator("datamodels", "subsets")
    masks = torch.cat([_subsets(30, 90, 0.5, draw) for _ in range(2)])
    found = datamodels(masks, utility.outcomes(masks), beta=0.01)
    np.testing.assert_allclose(scores.values[order], found.weights.mean(0).numpy(), atol=1e-4)
    assert scores.note == "60 models"
    assert scores.unit == "margin"
    assert (scores.errors > 0).any()


def test_stops_at_the_deadline_and_goes_on_from_there(iris, tmp_path):
    data, utility = iris
    method, whole = Datamodels(models=120, beta=0.05), Context()
    straight = method.score(data, whole, utility)
    late = Context(store=Store(tmp_path), deadline=time.monotonic() - 1)
    first = method.score(data, late, utility)
    assert first.note == "stopped after 40 of 120 models"
    assert np.isfinite(first.values).all()
    rest = method.score(data, late.with_(deadline=None), utility)
    assert rest.note == "120 models"
    assert np.array_equal(rest.values, straight.values)
    assert np.array_equal(rest.errors, straight.errors)


def test_regression():
    data = modicum.load("diabetes", limit=60)
    scores = Datamodels(models=40, beta=0.0, l2=0.1).score(
        data, Context(), Utilities().measure(data, Recipe(), Context())
    )
    assert scores.unit == "negative absolute error"
    assert scores.values.std() > 0


@pytest.mark.parametrize(
    "options, text",
    [
        ({"alpha": 0.0}, r"alpha=0.0; expected a probability in \(0, 1\)"),
        ({"alpha": 1.0}, "alpha=1.0"),
        ({"models": 19}, "models=19; expected at least 20"),
        ({"beta": -0.1}, "beta=-0.1; expected a number >= 0"),
        ({"l2": -0.1}, "l2=-0.1; expected a number >= 0"),
    ],
)
def test_options_out_of_range(iris, options, text):
    data, utility = iris
    with pytest.raises(DataError, match=text):
        Datamodels(**({"models": 20} | options)).score(data, Context(), utility)


def test_a_utility_of_other_samples_is_refused(iris):
    data, _ = iris
    with pytest.raises(DataError, match="utilities have 3 players; expected the 90 training samples"):
        Datamodels().score(data, Context(), SimpleNamespace(players=3, groups=None))


PEAK = """
import resource, sys, torch
from modicum.ledger import peak_bytes
from modicum.valuation.datamodels import _mean_weights
torch.set_num_threads(1)
draw = torch.Generator().manual_seed(0)
def case(models, n, m):
    return torch.rand(models, n, generator=draw) < 0.5, torch.randn(models, m, generator=draw, dtype=torch.float64)
_mean_weights(*case(60, 20, 3), None, 0.0)
given = case(*map(int, sys.argv[1:]))
before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
_mean_weights(*given, None, 0.0)
print(peak_bytes() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory of a process is read from /proc")
@pytest.mark.parametrize("models, n, m", [(2000, 500, 100), (1000, 1500, 20)])
def test_memory_is_what_the_formula_says(models, n, m):
    out = subprocess.check_output([sys.executable, "-c", PEAK, str(models), str(n), str(m)])
    formula = 80 * models * n + 80 * n * n + 8 * models * m + 200 * min(2**20, n * m)
    assert int(out) == pytest.approx(formula, rel=0.25)
