"""The phase diagram: the published table on a grid, and where the rules change places."""

import math

import numpy as np
import pytest

from modicum.analysis import crossing, phase_diagram, pruning_theory
from modicum.errors import ModicumError


def test_the_best_rule_of_the_published_table():
    half = phase_diagram([1.0, 2.0, 4.0, 8.0, 16.0], [0.5]).best[:, 0].tolist()
    assert half == ["easiest", "easiest", "easiest", "hardest", "hardest"]
    fifth = phase_diagram([4.0, 8.0, 16.0, 32.0], [0.2]).best[:, 0].tolist()
    assert fifth == ["easiest", "easiest", "hardest", "hardest"]


def test_the_grid_holds_the_theory():
    found = phase_diagram([2.0, 8.0], [0.3, 0.6], 0.2)
    assert found.errors.shape == (2, 2, 3)
    assert found.errors[1, 0, 2] == pruning_theory(8.0, 0.3, 0.2, "easiest")
    assert found.errors[0, 1, 0] == pruning_theory(2.0, 0.6)


def test_the_less_is_kept_the_more_samples_hard_ones_need():
    places = [crossing(keep) for keep in (0.5, 0.3, 0.2, 0.1)]
    assert 4 < places[0] < 8
    assert places == sorted(places)
    at = places[0]
    assert abs(pruning_theory(at, 0.5, 0.0, "hard") / pruning_theory(at, 0.5, 0.0, "easy") - 1) < 0.05


def test_where_the_rules_do_not_change_places():
    assert math.isnan(crossing(0.5, low=16.0, high=32.0))


def test_what_is_out_of_range_is_named():
    with pytest.raises(ModicumError, match=r"alphas and keeps have shapes \(0,\) and \(9,\)"):
        phase_diagram([])
    with pytest.raises(ModicumError, match=r"keep=1; expected a share in \(0, 1\)"):
        crossing(1)
    with pytest.raises(ModicumError, match=r"alpha_total=0\.0"):
        phase_diagram(np.array([0.0]), [0.5])
