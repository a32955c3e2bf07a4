import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.context import Context
from modicum.data import load
from modicum.errors import DataError
from modicum.store import Store
from modicum.training.recipe import Recipe
from modicum.valuation import BetaShapley, DataShapley, beta_shapley, semivalue_from_table, tmc_shapley


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def table_game(n=7, seed=0):
    table = np.random.default_rng(seed).normal(size=1 << n)
    bits = 1 << torch.arange(n)
    return (lambda masks: torch.from_numpy(table)[(masks * bits).sum(1)]), table


def iris():
    data = load("iris")
    return data._replace(train=data.train[::5])


def scored(method, data, ctx=None):
    ctx = ctx or Context()
    return method.score(data, ctx, *(need.measure(data, Recipe(), ctx) for need in method.needs()))


@pytest.mark.parametrize("alpha, beta", [(16, 1), (4, 1), (1, 1), (1, 4), (0.5, 2)])
def test_converges_to_all_subsets(alpha, beta):
    game, table = table_game()
    found = beta_shapley(game, seeded(), alpha, beta, 3000, players=7, stop="budget")
    exact = semivalue_from_table(table, 7, ("beta", alpha, beta))
    assert (np.abs(found.values - exact) < 4 * found.errors).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 8), st.integers(1, 60), st.integers(0, 1000))
def test_one_and_one_is_data_shapley_on_the_same_permutations(n, permutations, seed):
    game, _ = table_game(n, seed)
    beta = beta_shapley(game, seeded(seed), 1, 1, permutations, players=n)
    shapley = tmc_shapley(game, seeded(seed), permutations, players=n, truncation="none")
    np.testing.assert_allclose(beta.values, shapley.values, atol=1e-12)


def test_one_and_one_is_data_shapley_on_data():
    options = {"permutations": 6, "truncation": "none"}
    beta = scored(BetaShapley(alpha=1.0, beta=1.0, **options), iris())
    np.testing.assert_allclose(beta.values, scored(DataShapley(**options), iris()).values, atol=1e-12)


def test_additive_games():
    c = torch.arange(5).double()
    found = beta_shapley(lambda masks: masks.double() @ c, seeded(), 16, 1, 4000, players=5)
    assert (np.abs(found.values - c.numpy()) <= 4 * found.errors + 1e-12).all()


def test_interrupted_and_resumed_is_uninterrupted(tmp_path):
    method = BetaShapley(permutations=100)
    whole = scored(method, iris())
    late = Context(store=Store(tmp_path), deadline=time.monotonic() - 1)
    assert scored(method, iris(), late).note.startswith("stopped after 32 of 100 permutations")
    found = scored(method, iris(), late.with_(deadline=None))
    assert np.array_equal(found.values, whole.values)
    assert np.array_equal(found.errors, whole.errors)
    assert found.note == whole.note == "100 permutations, not settled by the rule 'gelman-rubin'; 1,800 utilities"


def test_chains_are_looked_at_from_1000_permutations_on():
    game, _ = table_game()
    found = beta_shapley(game, seeded(), permutations=5000, players=7, threshold=2.0)
    assert found.samples == 1024
    assert found.note.startswith("settled (gelman-rubin) after 1,024 permutations")


def test_truncation_with_weights_early_is_allowed_and_late_refused():
    game, _ = table_game()
    beta_shapley(game, seeded(), 16, 1, 10, players=7, truncation="absolute", tolerance=0.1)
    text = r"truncation='relative' leaves out .* alpha=1 < beta=4 weights most; use truncation='none', or alpha >= beta"
    with pytest.raises(DataError, match=text):
        beta_shapley(game, seeded(), 1, 4, 10, players=7, truncation="relative")
    with pytest.raises(DataError, match=text):
        scored(BetaShapley(alpha=1.0, beta=4.0, truncation="relative"), iris())


@pytest.mark.parametrize(
    "alpha, beta, players, text",
    [
        (0.0, 1.0, 3, r"kind=\('beta', 0.0, 1.0\) .* expected alpha > 0 and beta > 0"),
        (1.0, -2.0, 3, "expected alpha > 0 and beta > 0"),
        (1.0, 1.0, 1, "the utility has 1 player; expected at least 2"),
    ],
)
def test_errors(alpha, beta, players, text):
    with pytest.raises(DataError, match=text):
        beta_shapley(lambda masks: masks.sum(1), seeded(), alpha, beta, players=players)
