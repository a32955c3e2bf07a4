"""The forecast: that it finds a place that is known, and says how sure it is."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from modicum.errors import DataError, ModicumError
from modicum.measurement import CurveTable
from modicum.selection.pruning_forecast import fit_alpha, forecast_pruning
from modicum.selection.pruning_theory import pruning_theory

SHARES = np.array([0.05, 0.1, 0.25, 0.5])


def curve(alpha, classes=2, noise=0.0, floor=0.0, seed=0, runs=3):
    """A learning curve that is the theory's."""
    chance, n = 1 - 1 / classes, 1000
    exact = chance * (floor + (1 - floor) * 2 * pruning_theory(alpha * SHARES))
    errors = exact + noise * np.random.default_rng(seed).normal(size=(runs, len(SHARES)))
    sizes = torch.from_numpy((SHARES * n).astype(np.int64))
    return CurveTable(sizes, n, torch.from_numpy(errors), 2000, classes)


@pytest.mark.parametrize("alpha", [0.5, 6.0, 40.0, 300.0])
@pytest.mark.parametrize("classes", [2, 10])
def test_a_known_place_is_found(alpha, classes):
    table = curve(alpha, classes)
    found = fit_alpha(SHARES, table.means.numpy(), table.deviations.numpy(), classes)
    assert found.alpha == pytest.approx(alpha, rel=0.01)
    assert found.low < alpha < found.high
    assert found.misfit < 0.05
    assert np.allclose((1 - 1 / classes) * found.curve(SHARES), table.means, atol=1e-3)


def test_a_known_floor_is_found():
    table = curve(30.0, 10, floor=0.2)
    found = fit_alpha(SHARES, table.means.numpy(), np.full(4, 0.001), 10, floor=True)
    assert found.alpha == pytest.approx(30, rel=0.05)
    assert found.floor == pytest.approx(0.2, abs=0.01)
    without = fit_alpha(SHARES, table.means.numpy(), np.full(4, 0.001), 10)
    assert without.misfit > 100
    assert without.floor == 0


def test_the_interval_covers_the_truth():
    covered = 0
    for seed in range(30):
        table = curve(12.0, noise=0.03, seed=seed)
        deviations = np.full(4, 0.03 / math.sqrt(3))
        found = fit_alpha(SHARES, np.clip(table.means.numpy(), 0, 1), deviations, seed=seed)
        covered += found.low <= 12.0 <= found.high
    assert covered >= 23  # of 30, at 90 %: fewer happens once in a hundred times


@pytest.mark.parametrize("alpha, rule", [(1.0, "easiest"), (2.0, "easiest"), (40.0, "hardest")])
def test_the_rule_of_the_phase_diagram(alpha, rule):
    found = forecast_pruning(curve(alpha), (0.3, 0.5), angle=0.0)
    assert [row.best for row in found.rows] == [rule, rule]
    assert all(row.clear for row in found.rows)
    assert found.rows[1].hardest == pytest.approx(pruning_theory(alpha, 0.5, 0.0, "hardest"), rel=0.05)
    assert 4 < found.at(0.5).crossing < 8
    assert found.at(0.3).crossing > found.at(0.5).crossing
    assert f"keeping 30 to 50 %, the {rule} are predicted best" in found.sentence


def test_near_the_border_it_is_not_clear():
    found = forecast_pruning(curve(5.05, noise=0.02), (0.5,), angle=0.0)
    assert not found.rows[0].clear
    assert "nothing clearly is predicted best" in found.sentence


def test_predicted_errors_are_those_of_the_task():
    found = forecast_pruning(curve(10.0, classes=10), (0.5,))
    assert found.rows[0].random == pytest.approx(0.9 * 2 * pruning_theory(5.0), rel=0.03)
    assert found.angle == pytest.approx(math.pi * pruning_theory(10.0), rel=0.02)


def test_another_shape_is_told():
    table = curve(10.0)
    flat = replace(table, errors=torch.full_like(table.errors, 0.3))
    found = forecast_pruning(flat, (0.5,))
    assert found.misfit
    assert "another shape than the theory's" in found.sentence


def test_a_narrow_diagram_says_the_same():
    wide, narrow = (forecast_pruning(curve(12.0, noise=0.01), (0.2,), wide=wide) for wide in (True, False))
    assert wide.rows[0].best == narrow.rows[0].best
    assert wide.rows[0].hardest == pytest.approx(narrow.rows[0].hardest, rel=0.1)
    assert len(narrow.alphas) < len(wide.alphas) == len(wide.diagram)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([0.5], [0.1], [0.1]), r"shapes \(1,\), \(1,\), \(1,\); expected three times \(p,\) with p >= 2"),
        (([0.0, 0.5], [0.1, 0.1], [0.1, 0.1]), r"shares\[0\] is 0.0; expected shares in \(0, 1\]"),
        (([0.1, 0.5], [0.1, math.nan], [0.1, 0.1]), r"errors\[1\] is nan; expected errors in \[0, 1\]"),
        (([0.1, 0.5], [0.1, 0.1], [0.0, 0.1]), r"deviations\[0\] is 0.0; expected standard errors > 0"),
        (([0.1, 0.5], [0.1, 0.1], [0.1, 0.1], 1), "classes=1; expected at least 2"),
    ],
)
def test_curves_that_cannot_be_read(arguments, message):
    with pytest.raises(DataError, match=message):
        fit_alpha(*arguments)


def test_shares_out_of_range():
    with pytest.raises(ModicumError, match=r"keeps=\(1.0,\); expected shares in \(0, 1\)"):
        forecast_pruning(curve(5.0), (1.0,))
    with pytest.raises(ModicumError, match=r"keep=0.4 was not forecast; expected one of \[0.5\]"):
        forecast_pruning(curve(5.0), (0.5,), 0.0).at(0.4)
