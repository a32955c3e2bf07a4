"""The forecast: that it finds a place that is known, and says how sure it is."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from modicum.errors import DataError, ModicumError
from modicum.measurement import CurveTable
from modicum.selection.pruning_forecast import fit_alpha, forecast_pruning
from modicum.selection.pruning_pilot import PilotTable
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


def test_the_interval_covers_the_truth_on_one_validation_split():
    covered, apart = 0, 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        wrong = draw.random((400, 1)) < 0.9 * 2 * pruning_theory(40.0 * SHARES)  # by all samples in one order
        table = CurveTable(torch.from_numpy(1000 * SHARES).long(), 1000, torch.from_numpy(wrong.mean(0))[None], 400, 10)
        given = (SHARES, table.means.numpy(), table.deviations.numpy(), 10)
        found = fit_alpha(*given, seed=seed, correlation=table.correlation.numpy())
        covered += found.low <= 40.0 <= found.high
        without = fit_alpha(*given, seed=seed)
        apart += without.low <= 40.0 <= without.high
    assert covered >= 48 > apart  # of 60, at 90 %: fewer happens once in a hundred times


def test_guessing_on_classes_of_unequal_size_is_not_learning():
    errors = torch.full((3, 4), 0.05, dtype=torch.float64)  # of 5 % in the rare class, all are missed
    found = forecast_pruning(
        CurveTable(torch.from_numpy(1000 * SHARES).long(), 1000, errors, 2000, 2, guess=0.05), (0.5,)
    )
    assert found.fit.alpha < 0.1
    assert not found.rows[0].clear
    assert found.chance == 0.05
    assert found.rows[0].random <= 0.05


def test_a_curve_at_an_end_of_the_range_is_told():
    for error, words in ((0.0, "at least 1e+03 samples"), (0.9, "at most 0.001 samples")):
        table = replace(curve(10.0, 10), errors=torch.full((3, 4), error, dtype=torch.float64))
        assert words in forecast_pruning(table, (0.5,)).sentence


def tried(hardest=0.0, easiest=0.0, alpha=10.0, **changed):
    """A pilot whose hardest and easiest err by so much more than random samples."""
    random = replace(curve(alpha), valid=100_000)
    others = [replace(random, errors=random.errors + more, **changed) for more in (hardest, easiest)]
    return PilotTable(None, random, *others)


def test_what_the_pilot_measured_stands_beside_what_is_predicted():
    table = tried(hardest=torch.tensor([0.2, 0.1, 0.0, -0.05]), easiest=0.02)
    found = forecast_pruning(table.random, (0.02, 0.25, 0.35, 0.9), 0.0, pilot=table)
    low, at, between, high = found.rows
    assert (low.tried_at, low.choice, low.contradicted) == (0.05, "random", low.best != "random")
    assert (at.tried_hardest, at.tried_random) == (
        pytest.approx(table.random.means[2]),
        pytest.approx(table.random.means[2]),
    )
    part = math.log(0.35 / 0.25) / math.log(2)
    assert between.tried_hardest - between.tried_random == pytest.approx(-0.05 * part)
    assert (high.tried_at, high.proven, high.choice) == (0.5, "hardest", "hardest")
    assert (
        "The pilot trained on the hardest and the easiest 5 to 50 %, too; counting that: keeping 2 " in found.sentence
    )
    alone = forecast_pruning(table.random, (0.9,), 0.0)
    assert not alone.rows[0].tried
    assert not alone.rows[0].contradicted
    assert "The pilot" not in alone.sentence


def test_without_a_pilot_theory_stands_alone():
    rows = forecast_pruning(curve(40.0), (0.5,), 0.0).rows
    assert (rows[0].choice, rows[0].why) == ("hardest", "predicted best")


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


def test_a_correlation_or_an_error_of_guessing_that_cannot_be():
    given = ([0.1, 0.5], [0.1, 0.1], [0.1, 0.1])
    with pytest.raises(DataError, match=r"correlation has shape \(3, 3\); expected \(2, 2\) with finite numbers"):
        fit_alpha(*given, correlation=np.eye(3))
    with pytest.raises(DataError, match=r"chance=0\.0; expected an error of guessing in \(0, 1\)"):
        fit_alpha(*given, chance=0.0)


def test_shares_out_of_range():
    with pytest.raises(ModicumError, match=r"keeps=\(1.0,\); expected shares in \(0, 1\)"):
        forecast_pruning(curve(5.0), (1.0,))
    with pytest.raises(ModicumError, match=r"keep=0.4 was not forecast; expected one of \[0.5\]"):
        forecast_pruning(curve(5.0), (0.5,), 0.0).at(0.4)
