import itertools
import math
import time

import numpy as np
import pytest
import torch

from modicum.context import Context
from modicum.data import load
from modicum.errors import DataError
from modicum.measurement.learners import Knn, Problem, Ridge
from modicum.measurement.utilities import Utility
from modicum.store import Store
from modicum.training.recipe import Recipe
from modicum.valuation import CsShapley, class_wise_utility, cs_shapley, shapley_from_table

Y = torch.tensor([0, 1, 0, 1, 1, 0])
WANTED = torch.tensor([0, 1, 1, 0, 1])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def answers_game(seed=0):
    """(64, 5) right answers of every set of six; nobody answers nothing right."""
    bits = 1 << torch.arange(6)
    size = (torch.arange(64)[:, None] & bits != 0).sum(1, keepdim=True)
    right = (torch.rand(64, 5, generator=seeded(seed)) < 0.2 + 0.1 * size).double()  # more are right more often
    right[0] = 0
    return (lambda masks: right[(masks * bits).sum(1)]), right


def exact(worth, targets=Y):
    """By enumeration of all sets of others and of all sets of the own class."""
    n = len(targets)
    values = np.zeros(n)
    for c in torch.unique(targets).tolist():
        own, rest = ((targets == c).nonzero()[:, 0].tolist(), (targets != c).nonzero()[:, 0].tolist())
        every = [s for size in range(len(rest) + 1) for s in itertools.combinations(rest, size)]
        for others in every:
            game = [
                worth(sum(1 << own[i] for i in range(len(own)) if s >> i & 1) + sum(1 << j for j in others), c)
                for s in range(1 << len(own))
            ]
            values[own] += shapley_from_table(game, len(own)) / len(every)
    return values


def worth_of(right, wanted=WANTED):
    def worth(players, c):
        row, m = right[players], len(wanted)
        return float(row[wanted == c].sum()) / m * math.exp(float(row[wanted != c].sum()) / m)

    return worth


def problem(n=6, m=12, seed=0):
    draw = np.random.default_rng(seed)
    y, wanted = np.arange(n) % 2, np.arange(m) % 2
    x, q = (draw.normal(size=(len(t), 2)) + 1.5 * t[:, None] for t in (y, wanted))
    return Problem(*(torch.from_numpy(a) for a in (x, y, q, wanted)), 2)


def iris():
    data = load("iris")
    return data._replace(train=data.train[::3])


def scored(method, data, ctx=None):
    ctx = ctx or Context()
    return method.score(data, ctx, method.needs()[0].measure(data, Recipe(), ctx))


def test_utility_is_that_of_the_paper():
    correct = torch.tensor([[1.0, 1, 0, 1, 0], [0.0, 1, 1, 0, 1], [1, 0, 0, 1, 0]])
    expected = [2 / 5 * math.exp(1 / 5), 3 / 5, 2 / 5]
    assert class_wise_utility(correct, WANTED, torch.tensor([0, 1, 0])).tolist() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("antithetic", [False, True])
def test_comes_to_the_enumeration_of_all_sets(antithetic):
    game, right = answers_game()
    found = cs_shapley(game, Y, WANTED, seeded(), 4000, antithetic, normalize=False)
    assert (np.abs(found.values - exact(worth_of(right))) < 4 * found.errors).all()
    assert found.errors.max() < 0.01


@pytest.mark.parametrize("learner", [Ridge(), Knn(k=2)])
def test_learners_that_grow_come_to_the_enumeration_too(learner):
    utility = Utility(problem(), learner)
    sets = torch.from_numpy((np.arange(64)[:, None] >> np.arange(6)) & 1 == 1)
    right = utility.outcomes(sets, "correct")
    right[0] = 0
    targets, wanted = utility.problem.targets, utility.problem.wanted
    found = cs_shapley(utility, targets, wanted, seeded(), 500, normalize=False)
    assert (np.abs(found.values - exact(worth_of(right, wanted), targets)) < 4 * found.errors + 1e-12).all()


def test_growing_and_training_anew_are_the_same():
    class Anew(Ridge):
        def start(self, problem, orders):
            return None

    found = [
        cs_shapley(Utility(problem(20), learner), torch.arange(20) % 2, torch.arange(12) % 2, seeded(), 10)
        for learner in (Ridge(), Anew())
    ]
    np.testing.assert_allclose(found[0].values, found[1].values, atol=1e-12)
    np.testing.assert_allclose(found[0].errors, found[1].errors, atol=1e-12)


def test_without_right_answers_elsewhere_it_is_the_shapley_value_of_the_accuracy_in_the_class():
    game, _ = answers_game()

    def own_only(masks):  # others in the set change nothing, and other classes are always wrong
        return game(masks & (Y == 0)) * (WANTED == 0)

    found = cs_shapley(own_only, Y, WANTED, seeded(), 3000, normalize=False)
    own = [0, 2, 5]
    sets = [torch.tensor([[i in own and bool(s >> own.index(i) & 1) for i in range(6)]]) for s in range(8)]
    plain = shapley_from_table([float(own_only(mask).sum()) / 5 for mask in sets], 3)
    assert (np.abs(found.values[own] - plain) < 4 * found.errors[own] + 1e-12).all()
    assert (found.values[[1, 3, 4]] == 0).all()


def test_normalized_values_of_a_class_sum_to_its_accuracy():
    game, right = answers_game(3)
    plain, scaled = (cs_shapley(game, Y, WANTED, seeded(), 400, normalize=n) for n in (False, True))
    for c in (0, 1):
        member = (c == Y).numpy()
        accuracy = float(right[63][c == WANTED].sum()) / 5
        assert plain.values[member].sum() > 0
        assert scaled.values[member].sum() == pytest.approx(accuracy, abs=1e-12)
        ratio = accuracy / plain.values[member].sum()
        np.testing.assert_allclose(scaled.errors[member], plain.errors[member] * ratio)


def test_a_class_that_sums_to_less_than_nothing_keeps_its_signs():
    def game(masks):  # whoever joins does harm
        return (masks.sum(1, keepdim=True) <= 1).double().expand(-1, 5)

    found = cs_shapley(game, Y, WANTED, seeded(), 50)
    assert "class 0 is not normalized, as its values sum to " in found.note
    assert (found.values <= 0).all()


def test_a_class_that_validation_has_not_is_worth_nothing_with_a_warning():
    game, _ = answers_game()
    with pytest.warns(UserWarning, match="validation has no sample of class 1, which 3 training samples have"):
        found = cs_shapley(game, Y, torch.zeros(5, dtype=torch.int64), seeded(), 10)
    assert (found.values[(Y == 1).numpy()] == 0).all()
    assert np.isfinite(found.values).all()


def test_a_class_of_one_sample():
    y = torch.tensor([0, 0, 1])
    found = cs_shapley(lambda masks: masks.any(1, keepdim=True).expand(-1, 5), y, WANTED, seeded(), 100)
    assert found.values[2] == pytest.approx(3 / 5)


def test_interrupted_and_resumed_is_uninterrupted(tmp_path):
    method = CsShapley(permutations=30)
    whole = scored(method, iris())
    late = Context(store=Store(tmp_path), deadline=time.monotonic() - 1)
    stopped = scored(method, iris(), late)
    assert stopped.note.startswith("stopped after 10 of 30 permutations of each class; ")
    assert np.isfinite(stopped.errors).all()
    found = scored(method, iris(), late.with_(deadline=None))
    assert np.array_equal(found.values, whole.values)
    assert np.array_equal(found.errors, whole.errors)
    assert found.note == whole.note


def test_errors():
    game, _ = answers_game()
    with pytest.raises(DataError, match="permutations=0; expected at least 1"):
        cs_shapley(game, Y, WANTED, seeded(), 0)
    with pytest.raises(DataError, match=r"the utility gave \(\d+, 4\) for \d+ sets; expected \(\d+, 5\)"):
        cs_shapley(lambda masks: game(masks)[:, :4], Y, WANTED, seeded())
    with pytest.raises(DataError, match="utility has 6 players but targets has 5 rows"):
        cs_shapley(Utility(problem(), Ridge()), Y[:5], WANTED, seeded())
    with pytest.raises(DataError, match="targets has dtype float64; expected integer class indices"):
        cs_shapley(game, Y.double(), WANTED, seeded())
    data = load("diabetes")
    with pytest.raises(DataError, match="class labels are needed, but this data set is for regression"):
        scored(CsShapley(), data)
