"""The simulated perceptron: an exact machine, and the theory within its error."""

import math

import numpy as np
import pytest

from modicum.analysis import max_margin, pruning_theory, simulate_pruning
from modicum.errors import DataError, ModicumError


def test_the_machine_fulfills_the_conditions_of_the_optimum():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(120, 20))
    y = np.where(x[:, 0] >= 0, 1.0, -1.0)
    w = max_margin(x, y)
    margins = y * (x @ w)
    assert margins.min() > 1 - 1e-9
    # w is a combination of the support vectors with weights >= 0
    support = np.flatnonzero(margins < 1 + 1e-8)
    weights, *_ = np.linalg.lstsq((x[support] * y[support, None]).T, w, rcond=None)
    assert np.allclose((x[support] * y[support, None]).T @ weights, w)
    assert weights.min() > -1e-8


def test_the_machine_is_that_of_a_support_vector_classifier():
    from sklearn.svm import SVC

    draw = np.random.default_rng(1)
    x = draw.normal(size=(80, 10))
    y = np.where(x[:, 0] >= 0, 1.0, -1.0)
    both = SVC(C=1e5, kernel="linear", tol=1e-9).fit(np.vstack([x, -x]), np.hstack([y, -y]))  # no intercept
    assert np.allclose(max_margin(x, y), both.coef_[0], rtol=1e-4, atol=1e-4)


def test_samples_that_no_plane_separates():
    with pytest.raises(DataError, match=r"no w has y w.x > 0 for all 2 samples"):
        max_margin(np.array([[1.0], [1.0]]), np.array([1.0, -1.0]))
    with pytest.raises(DataError, match=r"y has shape \(2,\); expected \(2,\) with labels -1 and 1"):
        max_margin(np.eye(2), np.array([0.0, 1.0]))


@pytest.mark.parametrize(
    "alpha, keep, angle, rule", [(4.0, 1.0, 0.0, "random"), (4.0, 0.5, 0.0, "easiest"), (1.5, 0.5, 0.5, "hardest")]
)
def test_theory_is_within_the_error_of_the_simulation(alpha, keep, angle, rule):
    errors = simulate_pruning(alpha, keep, angle, rule, dimensions=100, runs=6)
    gap = errors.mean() - pruning_theory(alpha, keep, angle, rule)
    assert abs(gap) < 4 * errors.std(ddof=1) / math.sqrt(6) + 0.01  # what so few dimensions change


def test_same_seed_same_bits():
    assert np.array_equal(simulate_pruning(2.0, dimensions=20), simulate_pruning(2.0, dimensions=20))
    assert not np.array_equal(simulate_pruning(2.0, dimensions=20), simulate_pruning(2.0, dimensions=20, seed=1))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"alpha_total": 0}, "alpha_total=0; expected a number > 0"),
        ({"keep": 2.0}, "keep=2.0; expected a share in"),
        ({"angle": -1.0}, "angle=-1.0; expected radians in"),
        ({"rule": "middle"}, "rule='middle'; expected 'hardest', 'easiest' or 'random'"),
        ({"dimensions": 1}, "dimensions=1; expected an integer >= 2"),
        ({"dimensions": 2.5}, "dimensions=2.5; expected an integer >= 2"),
        ({"runs": 0}, "runs=0; expected an integer >= 1"),
    ],
)
def test_what_is_out_of_range_is_named(arguments, message):
    with pytest.raises(ModicumError, match=message.replace("(", r"\(")):
        simulate_pruning(**{"alpha_total": 1.0, **arguments})
