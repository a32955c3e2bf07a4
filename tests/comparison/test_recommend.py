"""The sentence is right by construction of the points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modicum.comparison import Point, difference, lower_bound, recommend
from modicum.comparison.frontier import Frontier, summarize
from modicum.ledger import Charge, Ledger


def points(method: str, budget: str, keep: float, scores: list[float], choose: int = 0) -> list[Point]:
    made = []
    for seed, score in enumerate(scores):
        ledger = Ledger([Charge("train", "fit", samples=int(1000 * keep), forward_flops=int(1e6 * keep), seconds=keep)])
        if choose:
            ledger.add(Charge("choose", "look", forward_flops=choose, seconds=0.1))
        made.append(Point(method, budget, seed, keep, int(100 * keep), score, score - 0.01, ledger, (5, 5)))
    return made


FULL = points("full", "100%", 1.0, [0.95, 0.951, 0.949])


def test_lower_bound_is_students() -> None:
    values = [0.9, 0.92, 0.94]
    assert lower_bound(values) == pytest.approx(0.92 - 2.919986 * 0.02 / np.sqrt(3), abs=1e-6)
    assert lower_bound([0.9]) == -np.inf


def test_seeds_that_agree_exactly_are_not_believed_beyond_one_sample() -> None:
    same = [replace(p, resolution=1 / 30) for p in FULL + points("knn-shapley", "10%", 0.1, [0.95, 0.95])]
    assert recommend(summarize(same)).verdict == "none"
    assert lower_bound([0.9, 0.9], resolution=0.1) == pytest.approx(0.9 - 6.313752 * 0.1 / np.sqrt(2), abs=1e-6)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.floats(-1, 1))
def test_lower_bound_moves_with_the_values_and_is_below_the_mean(values: list[float], shift: float) -> None:
    bound = lower_bound(values)
    assert bound <= np.mean(values) + 1e-12
    assert lower_bound([v + shift for v in values]) == pytest.approx(bound + shift, abs=1e-9)


def test_cheapest_method_that_surely_reaches_wins() -> None:
    rows = summarize(
        FULL
        + points("random", "50%", 0.5, [0.90, 0.91, 0.90])
        + points("short", "80%", 0.8, [0.95, 0.95, 0.951])
        + points("el2n", "30%", 0.3, [0.95, 0.951, 0.95], choose=100_000)
    )
    advice = recommend(rows)
    assert advice.verdict == "method"
    assert advice.row is not None
    assert advice.row.name == "el2n at 30%"
    assert advice.sentence.startswith("Use el2n at 30%: 94.0 % on the test split")
    assert "for 40 % of its FLOPs, choosing included" in advice.sentence
    assert "The cheapest control that does, short at 80%, costs 80 %: the saving over it is 50 %" in advice.detail
    assert "choosing is 25 % of its cost" in advice.detail


def test_a_control_that_is_cheaper_wins_and_the_sentence_says_so() -> None:
    rows = summarize(
        FULL
        + points("short", "30%", 0.3, [0.95, 0.951, 0.95])
        + points("el2n", "30%", 0.3, [0.96, 0.961, 0.96], choose=10)
    )
    advice = recommend(rows)
    assert advice.verdict == "control"
    assert advice.sentence.startswith("Nothing beats a schedule shortened to 30% here")
    assert "The cheapest method that does is el2n at 30%" in advice.detail


def test_the_cost_of_choosing_decides() -> None:
    base = FULL + points("short", "50%", 0.5, [0.95, 0.951, 0.95])
    cheap = summarize(base + points("el2n", "30%", 0.3, [0.95, 0.951, 0.95], choose=100_000))
    dear = summarize(base + points("el2n", "30%", 0.3, [0.95, 0.951, 0.95], choose=300_000))
    assert recommend(cheap).verdict == "method"
    assert recommend(dear).verdict == "control"


def test_a_lucky_mean_with_a_wide_spread_does_not_reach() -> None:
    rows = summarize(FULL + points("el2n", "30%", 0.3, [0.99, 0.90, 0.99]))
    advice = recommend(rows)
    assert advice.verdict == "none"
    assert advice.sentence.startswith("Keep training on the full data")
    assert "The nearest is el2n at 30%" in advice.detail


def test_what_costs_more_than_full_training_is_never_recommended() -> None:
    rows = summarize(FULL + points("forgetting", "50%", 0.5, [0.95, 0.951, 0.95], choose=600_000))
    assert recommend(rows).verdict == "none"


def test_one_seed_says_that_one_seed_is_not_enough() -> None:
    rows = summarize([p for p in FULL + points("short", "30%", 0.3, [0.95]) if p.seed == 0])
    assert "One seed cannot show" in recommend(rows).sentence


def test_without_the_full_run_nothing_is_said() -> None:
    assert "the full run is missing" in recommend(summarize(points("short", "30%", 0.3, [0.9, 0.9]))).sentence


def test_choices_read_the_validation_split_only() -> None:
    """Other test scores never change which row is recommended."""
    base = (
        FULL + points("short", "50%", 0.5, [0.95, 0.951, 0.95]) + points("el2n", "30%", 0.3, [0.95, 0.951, 0.95], 1000)
    )
    generator = np.random.default_rng(0)
    first = recommend(summarize(base)).row
    for _ in range(20):
        other = [replace(p, test=float(generator.random())) for p in base]
        chosen = recommend(summarize(other)).row
        assert chosen is not None
        assert first is not None
        assert (chosen.method, chosen.budget) == (first.method, first.budget)


def test_difference_is_paired_by_seed() -> None:
    ours, theirs = summarize(points("a", "10%", 0.1, [0.5, 0.7, 0.9]) + points("b", "10%", 0.1, [0.4, 0.6, 0.8]))
    mean, low, high, p = difference(ours, theirs)
    assert (mean, low, high) == pytest.approx((0.1, 0.1, 0.1))
    assert p < 1e-6
    shuffled = replace(theirs, seeds=theirs.seeds[::-1], test=theirs.test[::-1])
    assert difference(ours, shuffled) == pytest.approx((mean, low, high, p))


def test_points_and_tables_round_trip() -> None:
    for point in FULL:
        assert Point.from_json(point.to_json()) == point
    table = Frontier(tuple(FULL), "accuracy", recommend(summarize(FULL))).table()
    assert table.num_rows == 3
    assert table["train_forward_flops"].to_pylist() == [1_000_000] * 3
