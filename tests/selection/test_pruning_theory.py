"""The theory of pruning against the published numbers, the paper's own equations, and what must hold exactly."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from modicum.errors import ModicumError
from modicum.selection import perceptron_averages
from modicum.selection.perceptron_averages import averages, nodes
from modicum.selection.pruning_theory import _solution, perceptron_solution, pruning_theory

TABLE = [  # alpha_total, keep, random, hardest, easiest at angle 0
    (1, 0.5, 0.3288, 0.4057, 0.2502),
    (2, 0.5, 0.2657, 0.3210, 0.1818),
    (4, 0.5, 0.1885, 0.1361, 0.1173),
    (8, 0.5, 0.1137, 0.0610, 0.0679),
    (16, 0.5, 0.0609, 0.0311, 0.0366),
    (4, 0.2, 0.2879, 0.4386, 0.1535),
    (8, 0.2, 0.2142, 0.2794, 0.0987),
    (16, 0.2, 0.1360, 0.0320, 0.0581),
    (32, 0.2, 0.0751, 0.0156, 0.0319),
    (1.5, 0.5, None, 0.3665, 0.2105),
]
ANGLED = [
    (4, 20, "hardest", 0.1804),
    (8, 30, "random", 0.1135),
    (8, 30, "hardest", 0.0861),
    (8, 30, "easiest", 0.1589),
    (4, 30, "random", 0.1888),
    (4, 30, "hardest", 0.2083),
    (4, 30, "easiest", 0.1983),
]


@pytest.mark.parametrize("alpha, keep, random, hardest, easiest", TABLE)
def test_the_phase_transition_of_the_paper(alpha, keep, random, hardest, easiest):
    found = [pruning_theory(alpha, keep, 0.0, rule) for rule in ("random", "hardest", "easiest")]
    for ours, published in zip(found, (random, hardest, easiest)):
        assert published is None or abs(ours - published) < 1e-4  # to the digits given


@pytest.mark.parametrize("alpha, degrees, rule, published", ANGLED)
def test_with_an_imperfect_probe(alpha, degrees, rule, published):
    assert abs(pruning_theory(alpha, 0.5, math.radians(degrees), rule) - published) < 2e-3


@pytest.mark.parametrize("alpha, keep", [(4.0, 0.5), (1.5, 0.5), (8.0, 0.2), (32.0, 0.2), (16.0, 0.9)])
def test_keeping_the_hardest_solves_the_equations_of_the_paper(alpha, keep):
    found = perceptron_solution(alpha, keep, 0.0, "hardest")
    r, kappa = found.overlap, found.margin
    gamma, kept, across = norm.isf((1 - keep) / 2), keep * alpha, math.sqrt(1 - found.overlap**2)

    def first(t):
        inside = 1 - math.exp(-gamma * (gamma - 2 * r * t) / (2 * across**2))
        return norm.pdf(t) * math.exp(-(r**2) * t**2 / (2 * across**2)) * inside * (kappa - t)

    def second(t):
        return norm.pdf(t) * (norm.sf(-r * t / across) - norm.sf(-(r * t - gamma) / across)) * (kappa - t) ** 2

    where = {"points": [-2.0, -across, 0.0], "limit": 200, "epsabs": 1e-12}
    overlap = 2 * kept / (keep * math.sqrt(2 * math.pi) * across) * quad(first, -12, kappa, **where)[0]
    assert abs(overlap - r) < 1e-7
    assert abs(2 * kept / keep * quad(second, -12, kappa, **where)[0] - across**2) < 1e-7


def test_the_support_vectors_are_as_many_as_simulation_finds():
    assert round(perceptron_solution(4.0).support, 4) == 0.2338
    for alpha in (0.5, 4.0, 50.0):
        assert perceptron_solution(alpha).support <= 1 / alpha


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 2])
def test_keeping_all_is_the_same_by_every_rule(angle):
    found = {pruning_theory(5.0, 1.0, angle, rule) for rule in ("random", "hardest", "easiest")}
    assert found == {pruning_theory(5.0)}
    near = [pruning_theory(5.0, 1 - 1e-9, angle, rule) for rule in ("hardest", "easiest")]
    assert np.allclose(near, pruning_theory(5.0), atol=1e-6)


def test_a_random_share_is_less_data():
    assert pruning_theory(8.0, 0.5) == pruning_theory(4.0)


@pytest.mark.parametrize("rule", ["hardest", "easiest"])
def test_a_small_angle_is_near_none_and_a_blind_probe_keeps_at_random_at_best(rule):
    assert abs(pruning_theory(4.0, 0.5, 1e-3, rule) - pruning_theory(4.0, 0.5, 0.0, rule)) < 1e-5
    assert pruning_theory(4.0, 0.5, math.pi / 2, rule) > 0.9 * pruning_theory(4.0, 0.5)


def test_few_and_many_samples():
    few = pruning_theory(np.array([1e-3, 1e-2]))
    assert ((few > 0.45) & (few < 0.5)).all()
    many = pruning_theory(np.array([100.0, 300.0, 1000.0]))
    assert np.allclose(many * [100, 300, 1000], 0.5005, atol=1e-3)  # a power law with exponent -1


@settings(max_examples=15, deadline=None)
@given(
    alpha=st.floats(0.05, 200), keep=st.floats(0.05, 1), angle=st.floats(0, math.pi / 2),
    rule=st.sampled_from(["hardest", "easiest", "random"]),
)  # fmt: skip
def test_solutions_are_optima(alpha, keep, angle, rule):
    found = perceptron_solution(alpha, keep, angle, rule)
    assert 0 < found.error <= 0.5
    assert 0 <= found.support <= 1 / (keep * alpha) + 1e-9
    assert abs(found.probe_overlap) <= 1
    # both ways of telling the error agree where the cosine still has digits
    assert found.overlap > 1 - 1e-9 or abs(math.acos(found.overlap) / math.pi - found.error) < 1e-6


def test_the_quadrature_is_fine_enough(monkeypatch):
    cases = [(a, f, t, r) for a in (2.0, 60.0) for f in (0.1, 0.7) for t in (0.05, 0.8) for r in ("hard", "easy")]
    coarse = np.array([pruning_theory(*case) for case in cases])
    monkeypatch.setattr(perceptron_averages, "ORDER_IN_PLANE", 14)
    _solution.cache_clear(), nodes.cache_clear()
    fine = np.array([pruning_theory(*case) for case in cases])
    monkeypatch.undo()
    _solution.cache_clear(), nodes.cache_clear()
    assert np.abs(coarse / fine - 1).max() < 5e-4


def test_averages_have_the_derivatives_they_say():
    where, point = nodes(0.4, 0.5, "hardest"), np.array([1.3, -0.4, 0.8])
    assert abs(where.weights.sum() - 1) < 1e-8
    here = averages(where, point)
    for i in range(3):
        step = np.eye(3)[i] * 1e-5
        up, down = averages(where, point + step), averages(where, point - step)
        assert abs((up.value - down.value) / 2e-5 - here.slope[i]) < 1e-6
        assert np.allclose((up.slope - down.slope) / 2e-5, here.bend[i], atol=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0.0,), "alpha_total=0.0; expected samples per dimension in (0, 1000]"),
        ((math.nan,), "alpha_total=nan; expected"),
        ((1e6,), "alpha_total=1000000.0; expected"),
        (([1.0, 2.0],), "alpha_total=[1.0, 2.0] is a list; expected a number"),
        ((4.0, "half"), "keep='half' is a str; expected a number"),
        ((4.0, 0.5, 0.0, ["hard"]), "rule=['hard']; expected 'hardest', 'easiest' or 'random'"),
        ((4.0, 0.0), "keep=0.0; expected a share in (0, 1]"),
        ((4.0, 1.5), "keep=1.5; expected"),
        ((4.0, 0.5, 20.0), "angle=20.0; expected radians in [0, pi / 2]: 20 degrees are math.radians(20)"),
        ((4.0, 0.5, 0.0, "middle"), "rule='middle'; expected 'hardest', 'easiest' or 'random'"),
    ],
)
def test_what_is_out_of_range_is_named(arguments, message):
    with pytest.raises(ModicumError) as error:
        pruning_theory(*arguments)
    assert message in str(error.value)
