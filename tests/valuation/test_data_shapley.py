import itertools
import math
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError
from modicum.measurement.learners import Problem, Ridge
from modicum.measurement.utilities import Utilities, Utility
from modicum.store import Store
from modicum.training.recipe import Recipe
from modicum.valuation import DataShapley, knn_shapley, shapley_from_table, tmc_shapley
from modicum.valuation.game import tolerance_of


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def table_game(n=8, seed=0):
    table = np.random.default_rng(seed).normal(size=1 << n)
    bits = 1 << torch.arange(n)
    return (lambda masks: torch.from_numpy(table)[(masks * bits).sum(1)]), table


def splits(n=24, m=30, seed=0, sources=None, task="classification"):
    draw = np.random.default_rng(seed)
    centers, y, wanted = draw.normal(size=(3, 4)) * 2, np.arange(n) % 3, np.arange(m) % 3
    x, queries = (centers[t] + draw.normal(size=(len(t), 4)) for t in (y, wanted))
    info = Info(classes=tuple("abc"), sources=tuple("uvw") if sources is not None else ())
    if task == "regression":
        info, y, wanted = Info("regression"), x[:, 0] - x[:, 1], queries[:, 0] - queries[:, 1]
    inputs, asked = (torch.from_numpy(a.astype(np.float32)) for a in (x, queries))
    train = Dataset(inputs, torch.from_numpy(y), sources=sources, info=info)
    valid = Dataset(asked, torch.from_numpy(wanted), info=info)
    return Splits(train, valid, valid)


def measured(method, data, ctx=None):
    return method.needs()[0].measure(data, Recipe(), ctx or Context())


def scored(method, data, ctx=None):
    ctx = ctx or Context()
    return method.score(data, ctx, measured(method, data, ctx))


class TestMathematics:
    def test_converges_to_all_subsets(self):
        game, table = table_game()
        found = tmc_shapley(game, seeded(), 4000, players=8, truncation="none", stop="budget")
        exact = shapley_from_table(table, 8)
        assert (np.abs(found.values - exact) < 4 * found.errors).all()
        assert found.errors.max() < 0.05

    @settings(max_examples=20, deadline=None)
    @given(st.integers(1, 12), st.integers(1, 50), st.booleans(), st.integers(0, 1000))
    def test_additive_games_are_exact_after_any_number_of_permutations(self, n, permutations, antithetic, seed):
        c = torch.randn(n, generator=seeded(seed), dtype=torch.float64)
        found = tmc_shapley(
            lambda masks: masks.double() @ c,
            seeded(seed),
            permutations,
            players=n,
            truncation="none",
            antithetic=antithetic,
        )
        np.testing.assert_allclose(found.values, c, atol=1e-12)

    @settings(max_examples=20, deadline=None)
    @given(st.integers(1, 7), st.integers(1, 30), st.integers(0, 1000))
    def test_efficient_for_any_number_of_permutations(self, n, permutations, seed):
        game, table = table_game(n, seed)
        found = tmc_shapley(game, seeded(seed), permutations, players=n, truncation="none")
        assert found.values.sum() == pytest.approx(table[-1] - table[0], abs=1e-12)

    def test_a_null_player_gets_nothing(self):
        game, _ = table_game()
        present = torch.tensor([False] + [True] * 7)
        found = tmc_shapley(lambda masks: game(masks & present), seeded(), 100, players=8, truncation="none")
        assert found.values[0] == 0
        assert found.errors[0] == 0

    def test_truncation_gives_those_who_come_late_nothing(self):
        asked = []

        def game(masks):
            asked.append(len(masks))
            return (masks.sum(1) / 4).clamp_max(1.0)

        found = tmc_shapley(game, seeded(), 64, players=50, tolerance=0.0, patience=3, stop="budget")
        assert found.utilities == 64 * 7  # full from 4 on, cut at the fourth time
        assert sum(asked) == 2 + 64 * 7
        assert found.values.sum() == pytest.approx(1, abs=1e-12)

    def test_nearest_neighbors_come_to_the_exact_values(self):
        data, k = splits(n=20, m=25, seed=1), 3
        utility = Utilities(f"knn(k={k})", metric="probability").measure(data, Recipe(), Context())
        found = tmc_shapley(utility, seeded(), 1000, truncation="none", stop="budget")
        problem = utility.problem
        exact = knn_shapley(problem.features, problem.targets, problem.queries, problem.wanted, k=k).numpy()
        apart = np.abs(found.values - exact) / found.errors
        assert apart.max() < 3.5
        assert (apart < 3).mean() >= 0.95
        assert found.values.sum() == pytest.approx(exact.sum(), abs=1e-12)

    def test_ridge_comes_to_the_value_over_all_subsets(self):
        data = splits(n=9)
        utility = measured(DataShapley(), data)
        sets = torch.from_numpy((np.arange(512)[:, None] >> np.arange(9)) & 1 == 1)
        exact = shapley_from_table(utility.values(sets), 9)
        found = tmc_shapley(utility, seeded(), 400, truncation="none", stop="budget")
        assert (np.abs(found.values - exact) < 4 * found.errors + 1e-12).all()
        orders = torch.tensor(list(itertools.permutations(range(9)))[::997])
        values, _ = utility.prefixes(orders)
        there = torch.zeros(len(orders), 9, dtype=torch.bool)
        for j in range(9):
            there[torch.arange(len(orders)), orders[:, j]] = True
            torch.testing.assert_close(values[:, j + 1], utility.values(there), rtol=0, atol=1e-12)

    def test_bootstrap_tolerance_is_the_noise_of_the_accuracy(self):
        data = splits(n=60, m=200)
        utility = measured(DataShapley(), data)
        near = tolerance_of(utility, "bootstrap", 0.0, seeded())
        assert near == pytest.approx(math.sqrt(utility.full * (1 - utility.full) / 200), rel=0.3)

    @pytest.mark.parametrize(
        "options, text",
        [
            ({"tolerance": -0.1}, "tolerance=-0.1; expected a number >= 0"),
            ({"truncation": "late"}, "truncation='late'; expected one of relative"),
            ({"stop": "soon"}, "stop='soon'; expected one of change"),
            ({"permutations": 0}, "permutations=0; expected at least 1"),
            ({"players": None}, "players is missing"),
            ({"players": 0}, "players=0; expected how many there are"),
        ],
    )
    def test_errors(self, options, text):
        with pytest.raises(DataError, match=text):
            tmc_shapley(lambda masks: masks.sum(1), seeded(), **{"players": 3, **options})

    def test_a_value_that_is_not_finite_names_the_set(self):
        game, _ = table_game(3)
        with pytest.raises(DataError, match=r"the utility of the players \[2\] is nan"):
            tmc_shapley(
                lambda masks: torch.where(masks[:, 2] & ~masks[:, :2].any(1), math.nan, game(masks)),
                seeded(),
                20,
                players=3,
            )


class TestMethod:
    def test_interrupted_and_resumed_is_uninterrupted(self, tmp_path):
        data, method = splits(), DataShapley(permutations=160, stop="gelman-rubin", threshold=0.0)
        whole = scored(method, data)
        ctx = Context(store=Store(tmp_path), deadline=time.monotonic() - 1)
        notes = [scored(method, data, ctx).note for _ in range(3)]
        assert [note.split(";")[0] for note in notes] == [
            f"stopped after {done} of 160 permutations" for done in (32, 64, 96)
        ]
        found = scored(method, data, ctx.with_(deadline=None))
        assert np.array_equal(found.values, whole.values)
        assert np.array_equal(found.errors, whole.errors)
        assert found.note == whole.note

    def test_a_deadline_gives_an_answer_with_errors(self):
        found = scored(DataShapley(permutations=500), splits(), Context(deadline=time.monotonic() - 1))
        assert found.note.startswith("stopped after 32 of 500 permutations; ")
        assert (found.errors > 0).any()
        assert np.isfinite(found.errors).all()
        assert found.stability is not None

    def test_sum_is_the_gain_of_all(self):
        data, method = splits(), DataShapley(permutations=10, truncation="none")
        utility = measured(method, data)
        found = method.score(data, Context(), utility)
        assert found.values.sum() == pytest.approx(utility.full - utility.empty, abs=1e-12)
        assert found.unit == "validation accuracy"

    def test_sources_are_players(self):
        sources = torch.tensor([2, 0] * 12)  # the second of three sources has no sample
        data, method = splits(sources=sources), DataShapley(permutations=8, truncation="none", sources=True)
        utility = measured(method, data)
        found = method.score(data, Context(), utility)
        worth = utility.grouped(1 - torch.arange(24) % 2)
        exact = shapley_from_table([worth.empty, *worth.values(torch.eye(2).bool()).tolist(), worth.full], 2)
        np.testing.assert_allclose(found.values, exact[1 - np.arange(24) % 2] / 12, atol=1e-12)
        with pytest.raises(DataError, match="sources=True, but train has no sources"):
            scored(method, splits())

    def test_regression(self):
        data = splits(task="regression")
        found = scored(DataShapley(permutations=20, truncation="none"), data)
        utility = measured(DataShapley(), data)
        assert found.values.sum() == pytest.approx(utility.full - utility.empty, abs=1e-12)
        assert found.unit == "validation squared error"
        assert found.labels is None

    def test_costly_learners_are_asked_once_for_the_same_sets(self, tmp_path):
        asked = []

        class Slow(Ridge):
            costly = True

            def outputs(self, problem, masks):
                asked.append(len(masks))
                return super().outputs(problem, masks)

        data = splits(n=12)
        ctx = Context(cache=tmp_path)
        utility = Utilities(Slow()).measure(data, Recipe(), ctx)
        method = DataShapley(permutations=4, truncation="none")
        first = method.score(data, ctx, utility)
        before = sum(asked)
        again = method.score(data, ctx, Utilities(Slow()).measure(data, Recipe(), ctx))
        assert sum(asked) == before
        assert np.array_equal(first.values, again.values)

    def test_utilities_of_other_samples(self):
        with pytest.raises(DataError, match="utilities have 24 players; expected the 21 training samples"):
            DataShapley().score(splits(n=21), Context(), measured(DataShapley(), splits()))

    def test_charges_what_it_asked(self):
        data, ctx = splits(), Context()
        utility = measured(DataShapley(), data)
        DataShapley(permutations=8, truncation="none").score(data, ctx, utility)
        assert ctx.ledger.charges[-1].what == "data-shapley"
        assert ctx.ledger.total("choose").flops == 8 * 24 * Ridge().start(utility.problem, torch.arange(24)[None]).flops

    def test_errors(self):
        with pytest.raises(ModicumError, match="learner='rigde' is unknown"):
            DataShapley(learner="rigde").needs()
        data = splits()
        with pytest.raises(DataError, match="valid has 0 samples; expected at least one"):
            scored(DataShapley(), data._replace(valid=data.valid[[]]))


def test_two_samples_of_two_classes():
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    problem = Problem(x, torch.tensor([0, 1]), x, torch.tensor([0, 1]), 2)
    found = tmc_shapley(Utility(problem, Ridge(l2=0.01)), seeded(), 2, truncation="none")
    np.testing.assert_allclose(found.values, [0.25, 0.25])


PEAK = """
import sys, torch
from modicum.ledger import peak_bytes
from modicum.measurement.learners import Problem, Ridge
from modicum.measurement.utilities import Utility
from modicum.valuation import tmc_shapley
draw = torch.Generator().manual_seed(0)
def run(n, d, m, c):
    x, q = (torch.randn(k, d, dtype=torch.float64, generator=draw) for k in (n, m))
    utility = Utility(Problem(x, torch.arange(n) % c, q, torch.arange(m) % c, c), Ridge())
    before = peak_bytes() // 1024
    tmc_shapley(utility, draw, 32, truncation="none")
    return peak_bytes() // 1024 - before
run(20, 5, 10, 2)
print(run(*map(int, sys.argv[1:])) * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("n, d, m, c", [(900, 400, 500, 10), (300, 100, 5000, 10), (600, 200, 1000, 20)])
def test_memory_is_that_of_the_formula(n, d, m, c):
    out = subprocess.check_output([sys.executable, "-c", PEAK, *map(str, (n, d, m, c))])
    assert int(out) < 1.25 * 8 * 32 * (4 * n + 2 * d**2 + 16 * (2 * d + m) + 6 * m * c)
