import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.errors import DataError
from modicum.valuation import (
    position_tables,
    semivalue_from_subsets,
    semivalue_from_table,
    semivalue_weights,
    semivalues_from_permutations,
    semivalues_from_positions,
    shapley_from_table,
)

KINDS = ["shapley", "banzhaf", ("banzhaf", 0.2), ("beta", 16, 1), ("beta", 1, 4), "loo", "loo-first"]


def table_of(n, seed=0):
    return np.random.default_rng(seed).normal(size=1 << n)


def beta_function(a, b):
    return math.gamma(a) * math.gamma(b) / math.gamma(a + b)


def weight(n, j, kind):
    """From the definitions, by gamma functions that overflow for many players."""
    if kind == "shapley":
        return 1.0
    if kind in ("loo", "loo-first"):
        return float(n * (j == (n if kind == "loo" else 1)))
    if kind[0] == "beta":
        _, a, b = kind
        return n * math.comb(n - 1, j - 1) * beta_function(j + b - 1, n - j + a) / beta_function(a, b)
    p = 0.5 if kind == "banzhaf" else kind[1]
    return n * math.comb(n - 1, j - 1) * p ** (j - 1) * (1 - p) ** (n - j)


def by_definition(table, n, kind):
    """Mean marginal over the sets of each size, then the weighted mean over sizes."""
    values = np.zeros(n)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for size in range(n):
            sets = [sum(1 << j for j in s) for s in itertools.combinations(others, size)]
            delta = np.mean([table[s | 1 << i] - table[s] for s in sets])
            values[i] += weight(n, size + 1, kind) * delta / n
    return values


def every_order(n):
    return np.array(list(itertools.permutations(range(n))))


def prefix_values(orders, table):
    sets = np.concatenate([np.zeros((len(orders), 1), int), np.cumsum(1 << orders, axis=1)], axis=1)
    return table[sets]


def every_set(n):
    return (np.arange(1 << n)[:, None] >> np.arange(n)) & 1 == 1


class TestWeights:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("n", [1, 2, 7, 30])
    def test_are_those_of_the_definition(self, kind, n):
        expected = [weight(n, j, kind) for j in range(1, n + 1)]
        np.testing.assert_allclose(semivalue_weights(n, kind), expected, rtol=1e-12, atol=1e-13)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 5000), st.floats(0.1, 30), st.floats(0.1, 30), st.floats(0.01, 0.99))
    def test_mean_is_one_and_nothing_overflows(self, n, a, b, p):
        for kind in ("banzhaf", ("banzhaf", p), ("beta", a, b)):
            weights = semivalue_weights(n, kind)
            assert weights.mean() == pytest.approx(1, abs=1e-12)
            assert np.isfinite(weights).all()
            assert (weights >= 0).all()

    def test_numbers_of_the_sheet(self):
        weights = semivalue_weights(50, ("beta", 16, 1))
        np.testing.assert_allclose(weights[:2], [12.3, 9.4], atol=0.05)
        assert (np.diff(weights) < 0).all()
        assert np.array_equal(semivalue_weights(50, ("beta", 1, 1)), np.ones(50))
        np.testing.assert_allclose(semivalue_weights(50, ("beta", 1, 16)), weights[::-1], rtol=1e-12)

    def test_a_million_players(self):
        assert semivalue_weights(1_000_000, "banzhaf").argmax() in (499_999, 500_000)

    @pytest.mark.parametrize(
        "n, kind, text",
        [
            (0, "shapley", "n=0; expected a number of players >= 1"),
            (2.5, "shapley", "n=2.5; expected"),
            (3, "shapely", "kind='shapely' is unknown; expected 'shapley', .*'loo'"),
            (3, ("beta", 1), r"kind=\('beta', 1\) is unknown"),
            (3, ("beta", 0, 1), "not positive; expected alpha > 0 and beta > 0"),
            (3, ("beta", 1, -1.0), "expected alpha > 0 and beta > 0"),
            (3, ("beta", math.nan, 1), "is unknown"),
            (3, ("banzhaf", 1), r"p=1.0 .* expected a probability in \(0, 1\)"),
        ],
    )
    def test_errors(self, n, kind, text):
        with pytest.raises(DataError, match=text):
            semivalue_weights(n, kind)


class TestTable:
    @pytest.mark.parametrize("kind", KINDS)
    def test_equals_the_definition_over_all_subsets(self, kind):
        table = table_of(8)
        np.testing.assert_allclose(semivalue_from_table(table, 8, kind), by_definition(table, 8, kind), atol=1e-13)

    def test_axioms(self):
        n, table = 8, table_of(8)
        values = shapley_from_table(table, n)
        assert values.sum() == pytest.approx(table[-1] - table[0], abs=1e-12)
        np.testing.assert_allclose(shapley_from_table(2 * table + 3, n), 2 * values, atol=1e-12)  # linear
        sets = np.arange(1 << n)
        without = table[sets & ~1]  # player 0 changes nothing
        assert shapley_from_table(without, n)[0] == 0
        swapped = (sets & ~3) | (sets & 1) << 1 | (sets & 2) >> 1
        twins = shapley_from_table(table + table[swapped], n)
        assert twins[0] == pytest.approx(twins[1], abs=1e-13)

    @pytest.mark.parametrize("kind", KINDS)
    def test_additive_game(self, kind):
        c = np.arange(5) - 1.5
        np.testing.assert_allclose(semivalue_from_table(every_set(5) @ c, 5, kind), c, atol=1e-13)

    def test_function_array_tensor_and_list_are_the_same(self):
        table = table_of(4)
        expected = shapley_from_table(table, 4)

        def worth(players):
            return table[sum(1 << i for i in players)]

        for given_as in (worth, torch.from_numpy(table), table.tolist()):
            assert np.array_equal(shapley_from_table(given_as, 4), expected)

    @pytest.mark.parametrize(
        "utility, n, text",
        [
            (np.zeros(7), 3, r"utility has shape \(7,\); expected \(8,\)"),
            (np.zeros(8), 0, "n=0; expected 1 to 24 players"),
            (np.zeros(8), 25, "n=25; expected 1 to 24 players, because all 2"),
            (np.array([0, 0, 0, math.nan]), 2, r"utility of the players \[0, 1\] is nan"),
            ("no", 2, "utility is a str"),
        ],
    )
    def test_errors(self, utility, n, text):
        with pytest.raises(DataError, match=text):
            shapley_from_table(utility, n)


class TestPermutations:
    def test_all_40320_orders_of_8_players_give_every_semivalue(self):
        orders, table = every_order(8), table_of(8)
        assert len(orders) == 40_320
        found = semivalues_from_permutations(orders, prefix_values(orders, table), KINDS)
        for kind in KINDS:
            np.testing.assert_allclose(found[kind], semivalue_from_table(table, 8, kind), atol=1e-12)

    @settings(max_examples=20, deadline=None)
    @given(st.integers(1, 8), st.integers(1, 20), st.integers(0, 1000))
    def test_each_order_is_efficient_and_additive_games_are_exact(self, n, b, seed):
        draw = np.random.default_rng(seed)
        orders, table = np.stack([draw.permutation(n) for _ in range(b)]), table_of(n, seed)
        values = semivalues_from_permutations(orders, prefix_values(orders, table), ["shapley"])["shapley"]
        assert values.sum() == pytest.approx(table[-1] - table[0], abs=1e-12)
        c = draw.normal(size=n)
        additive = semivalues_from_permutations(orders, prefix_values(orders, every_set(n) @ c), ["shapley"])
        np.testing.assert_allclose(additive["shapley"], c, atol=1e-12)

    def test_tables_give_the_same_and_add_up(self):
        draw = np.random.default_rng(0)
        orders, table = np.stack([draw.permutation(6) for _ in range(50)]), table_of(6)
        values = prefix_values(orders, table)
        sums, counts = position_tables(orders, values)
        parts = [position_tables(orders[s], values[s]) for s in (slice(20), slice(20, 50))]
        np.testing.assert_allclose(parts[0][0] + parts[1][0], sums, atol=1e-13)
        assert np.array_equal(parts[0][1] + parts[1][1], counts)
        assert (counts.sum(0) == 50).all()
        direct, read = (
            semivalues_from_permutations(orders, values, KINDS),
            semivalues_from_positions(sums, counts, KINDS),
        )
        for kind in KINDS:
            np.testing.assert_allclose(read[kind], direct[kind], atol=1e-12)

    def test_same_kind_of_array(self):
        orders, values = torch.tensor([[0, 1]]), torch.tensor([[0.0, 1.0, 3.0]])
        found = semivalues_from_permutations(orders, values, ["shapley"])["shapley"]
        assert found.dtype == torch.float32
        assert found.tolist() == [1, 2]

    @pytest.mark.parametrize(
        "orders, values, text",
        [
            (np.array([[0, 0]]), np.zeros((1, 3)), r"orders\[0\] is no permutation of the players 0..1"),
            (np.array([[0, 1]]), np.zeros((1, 2)), r"values has shape \(1, 2\); expected \(1, 3\)"),
            (np.array([[0.0, 1.0]]), np.zeros((1, 3)), "orders is float64"),
            (np.array([[0, 1]]), np.array([[0, 1, math.inf]]), r"values\[0, 2\] is inf"),
            (np.zeros((0, 2), int), np.zeros((0, 3)), "not empty"),
        ],
    )
    def test_errors(self, orders, values, text):
        with pytest.raises(DataError, match=text):
            semivalues_from_permutations(orders, values, ["shapley"])

    def test_errors_of_tables(self):
        with pytest.raises(DataError, match=r"expected both \(n, n\)"):
            semivalues_from_positions(np.zeros((2, 3)), np.zeros((2, 3)), ["shapley"])
        with pytest.raises(DataError, match="counts of player 1 are all 0"):
            semivalues_from_positions(np.zeros((2, 2)), np.array([[1.0, 1.0], [0, 0]]), ["shapley"])


class TestSubsets:
    def test_all_64_sets_give_banzhaf_to_1e_15(self):
        table = table_of(6) / 4
        found = semivalue_from_subsets(every_set(6), table)
        np.testing.assert_allclose(found, by_definition(table, 6, "banzhaf"), atol=1e-15)

    @pytest.mark.parametrize("kind", KINDS)
    def test_all_sets_give_every_semivalue(self, kind):
        table = table_of(6)
        np.testing.assert_allclose(
            semivalue_from_subsets(every_set(6), table, kind), by_definition(table, 6, kind), atol=1e-12
        )

    def test_is_the_slope_of_least_squares(self):
        masks, table = every_set(6), table_of(6)
        design = np.column_stack([np.ones(64), masks])
        slopes = np.linalg.lstsq(design, table, rcond=None)[0][1:]
        np.testing.assert_allclose(semivalue_from_subsets(masks, table), slopes, atol=1e-14)

    def test_sets_drawn_with_another_probability(self):
        draw = np.random.default_rng(0)
        masks, c = draw.random((100_000, 4)) < 0.3, np.array([1.0, 2.0, 3.0, 4.0])
        for kind in (("banzhaf", 0.3), "banzhaf", "shapley"):
            np.testing.assert_allclose(semivalue_from_subsets(masks, masks @ c, kind, p=0.3), c, atol=0.15)

    def test_a_player_who_is_always_there_is_nan_with_a_warning(self):
        masks = np.array([[True, True], [True, False]])
        with pytest.warns(UserWarning, match=r"1 players, first \[0\], are in every set or in none"):
            found = semivalue_from_subsets(masks, np.array([1.0, 2.0]))
        assert np.isnan(found).tolist() == [True, False]

    @pytest.mark.parametrize(
        "masks, values, p, text",
        [
            (np.ones((2, 2)), np.ones(2), 0.5, "masks is float64"),
            (np.ones((1, 2), bool), np.ones(1), 0.5, "expected one value a mask, at least 2"),
            (np.ones((2, 2), bool), np.ones(3), 0.5, r"values has shape \(3,\) for 2 masks"),
            (np.ones((2, 2), bool), np.array([1, math.nan]), 0.5, r"values\[1\] is nan"),
            (np.ones((2, 2), bool), np.ones(2), 1.0, r"p=1.0; expected a probability in \(0, 1\)"),
        ],
    )
    def test_errors(self, masks, values, p, text):
        with pytest.raises(DataError, match=text):
            semivalue_from_subsets(masks, values, p=p)
