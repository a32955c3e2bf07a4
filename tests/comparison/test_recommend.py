"""The sentence is right by construction of the points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modicum.comparison import Point, gap, recommend
from modicum.comparison.frontier import Frontier, pack_bits, summarize
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


def judged(method: str, budget: str, keep: float, right: np.ndarray, choose: int = 0) -> list[Point]:
    """Points with what was right of each validation and test sample, (seeds, m)."""
    made = points(method, budget, keep, right.mean(1).tolist(), choose)
    return [
        replace(p, test=p.valid, valid_right=pack_bits(row), test_right=pack_bits(row))
        for p, row in zip(made, right, strict=True)
    ]


def answers(rate: float, m: int, seed: int, seeds: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).random((seeds, m)) < rate


def test_the_bound_of_seeds_alone_is_students() -> None:
    (row,) = summarize(points("a", "10%", 0.1, [0.9, 0.92, 0.94]))
    found = gap(row, 0.0)
    assert found.lower == pytest.approx(0.92 - 2.919986 * 0.02 / np.sqrt(3), abs=1e-6)
    assert found.freedom == pytest.approx(2)
    assert gap(summarize(points("a", "10%", 0.1, [0.9]))[0], 0.0).lower == -np.inf


def test_the_error_of_samples_alone_is_that_of_a_share() -> None:
    """Seeds that answer alike leave the sampling error of the split, and the floor of one sample."""
    one = answers(0.8, 1000, 0, seeds=1)
    (row,) = summarize(judged("a", "10%", 0.1, np.repeat(one, 4, axis=0)))
    found, p = gap(row, 0.0), one.mean()
    assert found.error**2 == pytest.approx(p * (1 - p) / 999 + 1e-6 / 4, rel=1e-9)


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Of two rows that are equally good, 5 % or fewer are called surely better, split after split."""
    wrong = 0
    for trial in range(200):
        shared = answers(0.5, 300, 3 * trial, seeds=1)  # samples that are hard for everybody
        a, b = (np.where(shared, answers(0.97, 300, 3 * trial + k), answers(0.9, 300, 3 * trial + k)) for k in (1, 2))
        ours, theirs = summarize(judged("a", "10%", 0.1, a) + judged("b", "10%", 0.1, b))
        wrong += gap(ours, theirs).lower > 0
    assert wrong <= 16  # 10 expected; conservative, because both terms hold the noise of single answers


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.floats(-1, 1))
def test_the_bound_moves_with_the_values_and_is_below_the_mean(values: list[float], shift: float) -> None:
    plain, moved = (gap(summarize(points("a", "10%", 0.1, [v + s for v in values]))[0], 0.0) for s in (0.0, shift))
    assert plain.lower <= plain.mean + 1e-12
    assert moved.lower == pytest.approx(plain.lower + shift, abs=1e-9)


def test_seeds_that_agree_exactly_are_not_believed_beyond_one_sample() -> None:
    right = np.repeat(answers(0.9, 30, 0, seeds=1), 2, axis=0)
    ours, theirs = summarize(judged("knn-shapley", "10%", 0.1, right) + judged("full", "100%", 1.0, right))
    assert gap(ours, theirs).error == pytest.approx(1 / 30 / np.sqrt(2))


def test_a_method_that_is_not_surely_better_than_a_cheaper_control_gives_way_to_it() -> None:
    """On few validation samples a lucky method is a cheaper control's equal."""
    rate = answers(0.95, 200, 0)
    lucky = rate.copy()
    lucky[:, :1] = True
    short = rate.copy()
    short[:, :2] = False
    rows = summarize(
        judged("full", "100%", 1.0, rate)
        + judged("short", "50%", 0.5, short)
        + judged("ssp", "50%", 0.5, lucky, 50_000)
    )
    advice = recommend(rows)
    assert advice.verdict == "control"
    assert advice.sentence.startswith("Nothing surely beats a schedule shortened to 50% here")
    assert "Ssp at 50%, at 55 % with choosing paid for, is not surely better" in advice.detail


def test_likely_is_said_where_sure_is_not() -> None:
    rate = answers(0.95, 200, 0)
    rows = summarize(judged("full", "100%", 1.0, rate) + judged("el2n", "30%", 0.3, answers(0.96, 200, 1), 1000))
    advice = recommend(rows)
    assert advice.sentence.startswith("Probably use el2n at 30%")
    assert "5 seeds and 200 validation samples cannot make sure of it" in advice.detail
    assert advice.sure == frozenset()


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
    assert "Choosing is 25 % of its cost" in advice.detail


def test_a_control_that_is_cheaper_wins_and_the_sentence_says_so() -> None:
    rows = summarize(
        FULL
        + points("short", "30%", 0.3, [0.95, 0.951, 0.95])
        + points("el2n", "30%", 0.3, [0.96, 0.961, 0.96], choose=10)
    )
    advice = recommend(rows)
    assert advice.verdict == "control"
    assert advice.sentence.startswith("Nothing beats a schedule shortened to 30% here")
    assert "The cheapest method that does, el2n at 30%, costs 30 %" in advice.detail


def test_the_cost_of_choosing_decides() -> None:
    base = FULL + points("short", "50%", 0.5, [0.95, 0.951, 0.95])
    cheap = summarize(base + points("el2n", "30%", 0.3, [0.95, 0.951, 0.95], choose=100_000))
    dear = summarize(base + points("el2n", "30%", 0.3, [0.95, 0.951, 0.95], choose=300_000))
    assert recommend(cheap).verdict == "method"
    assert recommend(dear).verdict == "control"


def test_a_lucky_mean_with_a_wide_spread_does_not_reach() -> None:
    rows = summarize(FULL + points("el2n", "30%", 0.3, [0.99, 0.90, 0.99]))
    advice = recommend(rows)
    assert advice.sentence.startswith("Probably use el2n at 30%")
    assert "it may be" in advice.detail
    assert advice.sure == frozenset()


def test_what_does_not_reach_the_target_is_not_recommended() -> None:
    rows = summarize(
        FULL + points("el2n", "30%", 0.3, [0.9, 0.9, 0.91]) + points("short", "30%", 0.3, [0.92, 0.9, 0.91])
    )
    advice = recommend(rows)
    assert advice.verdict == "none"
    assert advice.sentence.startswith("Keep training on the full data")
    assert "The nearest is short at 30% with 91.0 % there" in advice.detail


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


def test_the_gap_is_paired_by_seed() -> None:
    ours, theirs = summarize(points("a", "10%", 0.1, [0.5, 0.7, 0.9]) + points("b", "10%", 0.1, [0.4, 0.6, 0.81]))
    found = gap(ours, theirs, "test")
    assert found.mean == pytest.approx(0.29 / 3)
    assert found.error == pytest.approx(np.std([0.1, 0.1, 0.09], ddof=1) / np.sqrt(3))
    shuffled = replace(theirs, seeds=theirs.seeds[::-1], test=theirs.test[::-1])
    assert gap(ours, shuffled, "test").error == pytest.approx(found.error)
    assert 0 < found.p < 0.01
    assert found.interval == pytest.approx((found.mean - 4.302653 * found.error, found.mean + 4.302653 * found.error))


def test_points_and_tables_round_trip() -> None:
    for point in FULL:
        assert Point.from_json(point.to_json()) == point
    table = Frontier(tuple(FULL), "accuracy", recommend(summarize(FULL))).table()
    assert table.num_rows == 3
    assert table["train_forward_flops"].to_pylist() == [1_000_000] * 3
