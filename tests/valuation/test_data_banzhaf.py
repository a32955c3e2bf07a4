import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.context import Context
from modicum.data import load
from modicum.errors import DataError
from modicum.measurement.learners import Ridge
from modicum.measurement.utilities import Utilities
from modicum.store import Store, pack, unpack
from modicum.training.recipe import Recipe
from modicum.valuation import DataBanzhaf, data_banzhaf, semivalue_from_subsets, semivalue_from_table
from modicum.valuation.data_banzhaf import _Reuse


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def table_game(n=6, seed=0):
    table = np.random.default_rng(seed).normal(size=1 << n)
    bits = 1 << torch.arange(n)
    return (lambda masks: torch.from_numpy(table)[(masks * bits).sum(1)]), table


def iris():
    data = load("iris")
    return data._replace(train=data.train[::5])


def scored(method, data, ctx=None, utility=None):
    ctx = ctx or Context()
    return method.score(data, ctx, utility or method.needs()[0].measure(data, Recipe(), ctx))


@pytest.mark.parametrize("p", [0.5, 0.2, 0.9])
def test_converges_to_all_subsets(p):
    game, table = table_game()
    found = data_banzhaf(game, seeded(), 6_000, players=6, p=p)
    exact = semivalue_from_table(table, 6, ("banzhaf", p))
    assert (np.abs(found.values - exact) < 4 * found.errors).all()
    assert found.errors.max() < 0.15
    assert found.note == "6,000 sets"


def test_unbiased_and_errors_are_right_over_seeds():
    game, table = table_game()
    for p in (0.5, 0.3):
        runs = [data_banzhaf(game, seeded(seed), 64, players=6, p=p) for seed in range(80)]
        values, errors = (np.stack([getattr(run, name) for run in runs]) for name in ("values", "errors"))
        spread = values.std(0, ddof=1)
        apart = np.abs(values.mean(0) - semivalue_from_table(table, 6, ("banzhaf", p))) / spread * np.sqrt(80)
        assert apart.max() < 4
        np.testing.assert_allclose(np.sqrt((errors**2).mean(0)), spread, rtol=0.35)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 10), st.integers(10, 200), st.floats(0.3, 0.7), st.integers(0, 1000))
def test_is_the_difference_of_the_two_means(n, samples, p, seed):
    game, asked = table_game(n, seed)[0], []

    def watched(masks):
        asked.append(masks)
        return game(masks)

    found = data_banzhaf(watched, seeded(seed), samples, players=n, p=p)
    masks = torch.cat(asked[1:])  # first of all, nobody and everybody
    seen = (masks.any(0) & ~masks.all(0)).numpy()
    expected = semivalue_from_subsets(masks[:, seen], game(masks), ("banzhaf", p), p=p)
    np.testing.assert_allclose(found.values[seen], expected, atol=1e-12)
    assert found.samples == len(masks) == 2 * ((samples + 1) // 2)


def test_pairs_are_complements():
    asked = []

    def game(masks):
        asked.append(masks)
        return masks.sum(1)

    data_banzhaf(game, seeded(), 10, players=4)
    pairs = asked[-1].reshape(5, 2, 4)
    assert torch.equal(pairs[:, 0], ~pairs[:, 1])


def test_nothing_varies_for_an_additive_game_of_one_player():
    found = data_banzhaf(lambda masks: masks.sum(1) * 3.0, seeded(), 10, players=1)
    assert found.values.tolist() == pytest.approx([3])
    assert found.errors.tolist() == pytest.approx([0], abs=1e-12)


def test_a_player_who_was_never_there():
    found = data_banzhaf(lambda masks: masks.sum(1), seeded(), 2, players=5, p=0.001)
    assert found.values.tolist() == [0] * 5
    assert np.isinf(found.errors).all()
    assert found.note == "2 sets; 5 samples were in all of them or in none: draw more"


def test_state_goes_on_to_the_same_bits():
    game, _ = table_game()
    whole, first, second = (_Reuse(6, game, seeded(seed), 200, 0.5) for seed in (0, 0, 9))
    for _ in range(whole.steps):
        whole.step()
    first.step()
    second.load_state_dict(unpack(pack(first.state_dict())))
    for _ in range(1, second.steps):
        second.step()
    assert pack(second.state_dict()) == pack(whole.state_dict())


def test_interrupted_and_resumed_is_uninterrupted(tmp_path):
    method = DataBanzhaf(samples=200)
    whole = scored(method, iris())
    late = Context(store=Store(tmp_path), deadline=time.monotonic() - 1)
    stopped = scored(method, iris(), late)
    assert stopped.note == "stopped after 64 of 200 sets"
    assert np.isfinite(stopped.errors).all()
    found = scored(method, iris(), late.with_(deadline=None))
    assert np.array_equal(found.values, whole.values)
    assert np.array_equal(found.errors, whole.errors)
    assert found.note == whole.note == "200 sets"


def test_repeats_average_over_seeds_of_a_random_learner():
    class Random(Ridge):
        costly = True

        def outputs(self, problem, masks):
            noise = torch.randn(len(masks), 1, 3, generator=seeded(problem.seed), dtype=torch.float64)
            return super().outputs(problem, masks) + 10 * noise

    data, ctx = iris(), Context()
    utility = Utilities(Random()).measure(data, Recipe(), ctx)
    once, often = (scored(DataBanzhaf(samples=60, repeats=r), data, ctx, utility) for r in (1, 6))
    assert not np.array_equal(once.values, often.values)
    assert often.errors.mean() < 0.8 * once.errors.mean()
    fixed = [scored(DataBanzhaf(samples=60, repeats=r), data) for r in (1, 3)]
    assert np.array_equal(fixed[0].values, fixed[1].values)  # ridge regression is not random


@pytest.mark.parametrize(
    "options, text",
    [
        ({"samples": 1}, "samples=1; expected at least 2 sets"),
        ({"p": 0.0}, r"p=0.0; expected a probability in \(0, 1\)"),
        ({"p": 1.0}, r"p=1.0; expected a probability in \(0, 1\)"),
        ({"repeats": 0}, "repeats=0; expected at least 1"),
    ],
)
def test_errors(options, text):
    with pytest.raises(DataError, match=text):
        scored(DataBanzhaf(**options), iris())
