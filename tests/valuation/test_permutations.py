import itertools
import math

import numpy as np
import pytest
import torch

from modicum.errors import DataError
from modicum.store import pack, unpack
from modicum.valuation import semivalue_from_table, semivalues_from_permutations
from modicum.valuation.game import Game, as_game, tolerance_of
from modicum.valuation.permutations import PermutationRun, carry_out


def game_of(n=6, seed=0):
    table = torch.randn(1 << n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    bits = 1 << torch.arange(n)
    return Game(lambda masks: table[(masks * bits).sum(1)], n), table.numpy()


def run_of(game, permutations=40, seed=0, **options):
    return PermutationRun(
        game, options.pop("kinds", ["shapley"]), torch.Generator().manual_seed(seed), permutations, **options
    )


class TestGame:
    def test_prefixes_are_the_worth_of_growing_sets(self):
        game, table = game_of(5)
        orders = torch.tensor(list(itertools.permutations(range(5))))
        values, length = game.prefixes(orders)
        sets = torch.cat([torch.zeros(120, 1, dtype=torch.int64), (1 << orders).cumsum(1)], 1)
        assert np.array_equal(values.numpy(), table[sets])
        assert (length == 5).all()

    def test_truncation_cuts_after_more_than_so_many_near_values_in_a_row(self):
        worth = torch.tensor([0.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0])
        game = Game(lambda masks: worth[masks.sum(1)], 7)
        orders = torch.stack([torch.arange(7), torch.arange(7).flip(0)])
        values, length = game.prefixes(orders, tolerance=0.01, patience=2)
        assert length.tolist() == [5, 5]  # near at 3, 4, 5; the one at 1 was not in the row
        assert values.tolist() == [worth.tolist()] * 2
        assert game.prefixes(orders, tolerance=0.01, patience=0)[1].tolist() == [1, 1]
        assert game.prefixes(orders, tolerance=0.01, patience=0)[0][0].tolist() == [0, *[1] * 7]

    def test_errors(self):
        with pytest.raises(DataError, match="players=0; expected how many there are"):
            Game(lambda masks: masks.sum(1), 0)
        with pytest.raises(DataError, match=r"the utility gave \(2, 3\) for 2 sets; expected one number a set"):
            Game(lambda masks: masks, 3)
        with pytest.raises(DataError, match=r"the utility of the players \[0, 1\] is inf; expected finite"):
            Game(lambda masks: torch.where(masks.all(1), math.inf, 0.0), 2)
        with pytest.raises(DataError, match="players is missing"):
            as_game(lambda masks: masks.sum(1), None)
        with pytest.raises(DataError, match="utility is a int"):
            as_game(3, 3)
        with pytest.raises(DataError, match="players=4, but the utility has 6"):
            as_game(game_of(6)[0], 4)

    def test_tolerances(self):
        game, table = game_of(4)
        draw = torch.Generator()
        assert tolerance_of(game, "none", 0.1, draw) is None
        assert tolerance_of(game, "absolute", 0.1, draw) == 0.1
        assert tolerance_of(game, "relative", 0.1, draw) == pytest.approx(0.1 * abs(table[-1]))
        with pytest.raises(DataError, match="tolerance=-1; expected a number >= 0"):
            tolerance_of(game, "absolute", -1, draw)
        with pytest.raises(DataError, match="truncation='soft'; expected one of relative, absolute, bootstrap, none"):
            tolerance_of(game, "soft", 0.1, draw)
        with pytest.raises(DataError, match="truncation='bootstrap' needs a utility that is an accuracy"):
            tolerance_of(game, "bootstrap", 0.1, draw)


class TestRun:
    @pytest.mark.parametrize("antithetic", [False, True])
    @pytest.mark.parametrize("permutations", [1, 2, 33, 100])
    def test_mean_and_error_are_those_of_the_units(self, antithetic, permutations):
        game, _ = game_of()
        found = carry_out(run_of(game, permutations, antithetic=antithetic))[0]
        draw = torch.Generator().manual_seed(0)
        units = []
        for _ in range(math.ceil(permutations / (1 + antithetic))):
            order = torch.randperm(6, generator=draw)
            orders = torch.stack([order, order.flip(0)] if antithetic else [order])
            units.append(semivalues_from_permutations(orders, game.prefixes(orders)[0], ["shapley"])["shapley"])
        stacked = torch.stack(units)
        np.testing.assert_allclose(found.values, stacked.mean(0), atol=1e-13)
        if len(units) > 1:
            np.testing.assert_allclose(found.errors, stacked.std(0) / math.sqrt(len(units)), atol=1e-13)
        else:
            assert np.isinf(found.errors).all()
        assert found.samples == len(units) * (1 + antithetic)
        assert found.utilities == found.samples * 6

    def test_several_kinds_from_the_same_utilities(self):
        game, table = game_of()
        kinds = ["shapley", ("beta", 16, 1), "banzhaf"]
        together = carry_out(run_of(game, 4000, kinds=kinds))
        assert len({found.utilities for found in together}) == 1
        for kind, found in zip(kinds, together):
            alone = carry_out(run_of(game, 4000, kinds=[kind]))[0]
            np.testing.assert_allclose(found.values, alone.values, rtol=1e-12)
            np.testing.assert_allclose(found.errors, alone.errors, rtol=1e-12)
            assert (np.abs(found.values - semivalue_from_table(table, 6, kind)) < 4 * found.errors).all()

    def test_efficient_after_every_step(self):
        game, table = game_of()
        run = run_of(game, 200)
        for _ in range(run.steps):
            run.step()
            assert float(run.mean.sum()) == pytest.approx(table[-1] - table[0], abs=1e-12)
            assert run.gain == pytest.approx(table[-1] - table[0], abs=1e-12)

    def test_antithetic_is_unbiased_and_less_noisy(self):
        game = Game(lambda masks: masks.sum(1).double().sqrt(), 10)  # what is added falls with the place
        exact = math.sqrt(10) / 10
        single, pairs = (carry_out(run_of(game, 2000, antithetic=a))[0] for a in (False, True))
        for found in (single, pairs):
            assert (np.abs(found.values - exact) < 4 * found.errors).all()
        assert pairs.errors.mean() < 0.8 * single.errors.mean()

    @pytest.mark.parametrize("rule", ["change", "gelman-rubin", "error"])
    def test_state_goes_on_to_the_same_bits(self, rule):
        game, _ = game_of()
        whole, first = (run_of(game, 400, rule=rule, threshold=0.0) for _ in range(2))
        for _ in range(whole.steps):
            whole.step()
        for _ in range(5):
            first.step()
        second = run_of(game, 400, seed=9, rule=rule, threshold=0.0)
        second.load_state_dict(unpack(pack(first.state_dict())))
        for _ in range(5, second.steps):
            second.step()
            second.settled()
        assert pack(second.state_dict()) == pack(whole.state_dict())

    def test_rule_of_change(self):
        game, _ = game_of()
        run = run_of(game, 1000, rule="change")
        means = {}
        for _ in range(run.steps):
            run.step()
            means[run.permutations] = run.mean[0].clone()
            old = [t for t in means if t <= run.permutations - 100]
            if not old:
                assert not run.settled()
                continue
            now, then = means[run.permutations], means[max(old)]
            change = ((now - then).abs() / (now.abs() + 1e-12)).mean()
            assert run.settled() == (change < 0.05)
        assert len(run.history) <= 100 / 32 + 2

    def test_rule_of_error_and_of_stability(self):
        game, _ = game_of()
        run = run_of(game, 3000, rule="error", threshold=0.05)
        found = carry_out(run)[0]
        assert found.errors.max() < 0.05 * abs(run.gain)
        assert found.samples < 3000
        assert found.note.startswith(f"settled (error) after {found.samples:,} permutations; ")
        found = carry_out(run_of(game, 3000, rule="stability"))[0]
        assert 1 - (found.errors**2).mean() / found.values.var(ddof=1) >= 0.95
        assert found.samples < 3000

    def test_gelman_rubin_is_that_of_ten_chains(self):
        game, _ = game_of()
        run = run_of(game, 200, rule="gelman-rubin", antithetic=False)
        draw = torch.Generator().manual_seed(0)
        for _ in range(run.steps):
            run.step()
        orders = torch.stack([torch.randperm(6, generator=draw) for _ in range(200)])
        values, _ = game.prefixes(orders)
        units = torch.zeros(200, 6, dtype=torch.float64).scatter_(1, orders, values.diff(dim=1))
        chains = units.reshape(20, 10, 6)
        within = chains.var(0, correction=1).mean(0)
        expected = (19 / 20 + chains.mean(0).var(0) / within).sqrt()
        torch.testing.assert_close(run.gelman_rubin()[0], expected)
        assert run.settled() == bool(expected.max() < 1.05)

    def test_rule_of_chains_where_nothing_varies(self):
        game = Game(lambda masks: masks.sum(1) * 0.1, 4)
        found = carry_out(run_of(game, 500, rule="gelman-rubin"))[0]
        assert found.samples < 500

    def test_notes(self):
        game, _ = game_of()
        assert carry_out(run_of(game, 50))[0].note == "50 permutations; 300 utilities"
        missed = carry_out(run_of(game, 50, rule="error", threshold=0.0))[0].note
        assert missed == "50 permutations, not settled by the rule 'error'; 300 utilities"
        stopped = carry_out(run_of(game, 50), lambda steps, state: iter(range(1)))[0]
        assert stopped.note == "stopped after 32 of 50 permutations; 192 utilities"

    def test_one_player(self):
        found = carry_out(run_of(Game(lambda masks: masks.sum(1) * 2.0, 1), 10, rule="stability"))[0]
        assert found.values.tolist() == [2.0]

    @pytest.mark.parametrize(
        "options, text",
        [
            ({"permutations": 0}, "permutations=0; expected at least 1"),
            ({"patience": -1}, "patience=-1; expected a number of times >= 0"),
            ({"tolerance": -0.1}, "tolerance=-0.1; expected a number >= 0"),
            ({"rule": "never"}, "stop='never'; expected one of change, error, gelman-rubin, stability, budget"),
        ],
    )
    def test_errors(self, options, text):
        with pytest.raises(DataError, match=text):
            run_of(game_of()[0], **options)
