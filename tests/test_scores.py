"""Budgets, and what scores keep and drop."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.errors import BudgetError, DataError
from modicum.scores import Budget, Order, Scores, as_budget

ORDERS: tuple[Order, ...] = ("hardest", "easiest", "middle")
few = settings(max_examples=80, deadline=None)

# -- budgets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text,budget,shown",
    [
        ("30%", Budget(keep=0.3), "30%"), ("0.3", Budget(keep=0.3), "30%"), ("100%", Budget(keep=1.0), "100%"),
        ("12.5%", Budget(keep=0.125), "12.5%"), ("500", Budget(keep=500), "500"), ("1", Budget(keep=1), "1"),
        ("1.0", Budget(keep=1.0), "100%"), ("10/class", Budget(per_class=10), "10/class"), ("1e-2", Budget(keep=0.01), "1%"),
    ],
)  # fmt: skip
def test_budgets_are_read_and_shown(text: str, budget: Budget, shown: str) -> None:
    assert Budget.parse(text) == as_budget(text) == as_budget(budget) == budget
    assert str(budget) == shown
    assert Budget.parse(shown) == budget


@pytest.mark.parametrize("text", ["", "x", "3.5/class", "/class", "%", "ten%", "1,5"])
def test_texts_that_are_no_budget(text: str) -> None:
    with pytest.raises(BudgetError, match=r"is not understood; expected 30%, 0\.3, 500 or 10/class"):
        Budget.parse(text)


@pytest.mark.parametrize(
    "arguments,text",
    [
        ({}, "give keep or per_class and not both, got keep=None, per_class=None"),
        ({"keep": 0.1, "per_class": 1}, "not both, got keep=0.1, per_class=1"),
        ({"keep": 0}, r"keep=0 keeps nothing; expected an integer >= 1"),
        ({"keep": -3}, "keep=-3 keeps nothing"),
        ({"keep": 0.0}, r"keep=0.0 is out of range; expected an integer >= 1 or a fraction in \(0, 1\]"),
        ({"keep": 1.5}, "keep=1.5 is out of range"),
        ({"keep": float("nan")}, "keep=nan is out of range"),
        ({"per_class": 0.5}, "per_class=0.5 is out of range; expected an integer >= 1$"),
        ({"per_class": 0}, "per_class=0 keeps nothing"),
        ({"keep": True}, "keep=True is a bool; expected a number"),
        ({"keep": "0.1"}, "keep='0.1' is a str; expected a number"),
    ],
)
def test_budgets_that_make_no_sense(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(BudgetError, match=text):
        Budget(**arguments)


@few
@given(st.integers(1, 10_000), st.floats(1e-6, 1))
def test_a_fraction_is_the_nearest_count_and_at_least_one(n: int, keep: float) -> None:
    k = Budget(keep=keep).count(n)
    assert 1 <= k <= n
    assert k == 1 or abs(k - keep * n) <= 0.5
    assert Budget(keep=1.0).count(n) == n


def test_counts() -> None:
    assert Budget(keep=np.float32(0.5)).count(10) == 5
    assert Budget(keep=np.int64(3)).count(10) == 3
    assert Budget(keep=0.25).count(10) == 3
    assert Budget(per_class=2).fraction(20, classes=5) == 0.5
    with pytest.raises(BudgetError, match="11 asks for 11 samples, but there are 10; keep fewer"):
        Budget(keep=11).count(10)


# -- scores ----------------------------------------------------------------------------------------------------------


def scores(values: Any, ids: Any = None, kind: Any = "difficulty", labels: Any = None, **rest: Any) -> Scores:
    values = np.asarray(values, dtype=float)
    ids = np.arange(len(values)) if ids is None else np.asarray(ids)
    return Scores(values, ids, "test", kind, "points", None if labels is None else np.asarray(labels), **rest)


@st.composite
def any_scores(draw: st.DrawFn, kind: str | None = None) -> Scores:
    n = draw(st.integers(1, 30))
    values = draw(st.lists(st.integers(-3, 3) | st.sampled_from([np.inf, -np.inf]), min_size=n, max_size=n))
    ids = draw(st.permutations(range(100, 100 + n)))
    labels = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    return scores(values, ids, kind or draw(st.sampled_from(["value", "difficulty"])), labels)


def an_order(given_scores: Scores, data: st.DataObject) -> Order | None:
    return None if given_scores.kind == "value" else data.draw(st.sampled_from(ORDERS))


@few
@given(any_scores(), st.data(), st.floats(0, 1))
def test_kept_and_dropped_are_a_partition_of_the_right_size(
    given_scores: Scores, data: st.DataObject, balance: float
) -> None:
    n, order = len(given_scores), an_order(given_scores, data)
    k = data.draw(st.integers(1, n))
    kept = given_scores.kept(k, order, balance)
    dropped = given_scores.dropped(k, order, balance)
    assert len(kept) == k
    assert sorted([*kept, *dropped]) == list(range(n))
    assert list(kept) == sorted(kept)


@few
@given(any_scores(), st.data(), st.floats(0, 1))
def test_another_order_of_the_samples_keeps_the_same_ids(
    given_scores: Scores, data: st.DataObject, balance: float
) -> None:
    n, order = len(given_scores), an_order(given_scores, data)
    turn = np.array(data.draw(st.permutations(range(n))))
    assert given_scores.labels is not None
    turned = scores(given_scores.values[turn], given_scores.ids[turn], given_scores.kind, given_scores.labels[turn])
    k = data.draw(st.integers(1, n))
    assert given_scores.ids[given_scores.ranking(order)].tolist() == turned.ids[turned.ranking(order)].tolist()
    assert sorted(given_scores.ids[given_scores.kept(k, order, balance)]) == sorted(
        turned.ids[turned.kept(k, order, balance)]
    )


@few
@given(any_scores(), st.data(), st.floats(0, 1))
def test_class_floors_hold(given_scores: Scores, data: st.DataObject, balance: float) -> None:
    assert given_scores.labels is not None
    k = data.draw(st.integers(1, len(given_scores)))
    kept = given_scores.kept(k, an_order(given_scores, data), balance)
    classes, counts = np.unique(given_scores.labels, return_counts=True)
    floor = int(balance * k / len(classes))
    for c, size in zip(classes, counts):
        assert (given_scores.labels[kept] == c).sum() >= min(floor, size)


@few
@given(any_scores("difficulty"))
def test_orders(given_scores: Scores) -> None:
    values, n = given_scores.values, len(given_scores)
    assert (
        np.diff(values[given_scores.ranking("hardest")][np.isfinite(values[given_scores.ranking("hardest")])]) <= 0
    ).all()
    easiest = given_scores.ranking("easiest")
    assert values[easiest].tolist() == sorted(values)
    # ties of either order go by id, so the one is the other with each run of equal values turned
    for order in ("hardest", "easiest"):
        ranked = given_scores.ranking(order)  # type: ignore[arg-type]
        for a, b in pairwise(ranked):
            assert values[a] != values[b] or given_scores.ids[a] < given_scores.ids[b]
    below = np.array([(values < v).sum() for v in values])
    equal = np.array([(values == v).sum() for v in values])
    away = np.abs(below + (equal - 1) / 2 - (n - 1) / 2)
    assert away[given_scores.ranking("middle")].tolist() == sorted(away)


@few
@given(any_scores(), st.data())
def test_larger_budgets_keep_all_that_smaller_ones_keep(given_scores: Scores, data: st.DataObject) -> None:
    order = an_order(given_scores, data)
    kept = [set(given_scores.kept(k, order).tolist()) for k in range(1, len(given_scores) + 1)]
    assert all(small < large for small, large in pairwise(kept))


def test_signs() -> None:
    values = [1.0, 5.0, 3.0, 4.0, 2.0]
    assert scores(values, kind="value").kept(2).tolist() == [1, 3]
    assert scores(values).kept(2).tolist() == [1, 3]
    assert scores(values).kept(2, "easiest").tolist() == [0, 4]
    assert scores(values).kept(1, "middle").tolist() == [2]
    assert scores(values, order="easiest").kept(1).tolist() == [0]
    assert scores(values).dropped(0.4).tolist() == [0, 2, 4]


def test_ties_break_by_ties_then_by_id() -> None:
    assert scores([1, 1, 1], ids=[9, 7, 8]).ranking().tolist() == [1, 2, 0]
    assert scores([1, 1, 1], ids=["b", "a", "c"], kind="value").kept(1).tolist() == [1]
    assert scores([1, 1, 1], ids=[9, 7, 8], ties=np.array([0, 2, 2])).ranking().tolist() == [0, 1, 2]


def test_per_class() -> None:
    given_scores = scores([5, 4, 3, 2, 1, 0], labels=[0, 0, 0, 1, 1, 1], kind="value")
    assert given_scores.kept("1/class").tolist() == [0, 3]
    assert given_scores.kept(Budget(per_class=2)).tolist() == [0, 1, 3, 4]
    assert given_scores.kept(2, class_balance=1.0).tolist() == [0, 3]
    assert given_scores.kept(2, class_balance=0.0).tolist() == [0, 1]
    with pytest.raises(BudgetError, match="4/class asks for more than the 3 samples of class 0"):
        given_scores.kept("4/class")


def test_a_rare_class_keeps_all_it_has() -> None:
    given_scores = scores([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], labels=[0] * 9 + [1], kind="value")
    assert 9 in given_scores.kept(6, class_balance=1.0)
    assert len(given_scores.kept(6, class_balance=1.0)) == 6


@pytest.mark.parametrize(
    "make,text",
    [
        (lambda: scores([1.0, float("nan")], ids=[7, 8]), r"values of test are NaN for 1 samples, first \[8\]"),
        (lambda: scores([1.0, 2.0], ids=[7]), "ids has 1 rows but values has 2"),
        (lambda: scores([1.0, 2.0], labels=[7]), "labels has 1 rows"),
        (lambda: scores([1.0, 2.0], ids=[7, 7]), "ids of scores must be unique"),
        (lambda: scores([[1.0], [2.0]]), r"values must have shape \(n,\), got \(2, 1\)"),
        (lambda: scores([1.0], kind="score"), "kind='score'; expected 'value' or 'difficulty'"),
        (lambda: scores([1.0]).ranking("random"), "order='random'; expected 'hardest', 'easiest' or 'middle'"),  # type: ignore[arg-type]
        (
            lambda: scores([1.0], kind="value").kept(1, "hardest"),
            "order='hardest' is for difficulties; test gives values",
        ),
    ],
)
def test_wrong_scores(make: Any, text: str) -> None:
    with pytest.raises(DataError, match=text):
        make()


@pytest.mark.parametrize(
    "use,text",
    [
        (lambda s: s.kept(3), "3 asks for 3 samples, but there are 2; keep fewer"),
        (lambda s: s.kept("1/class"), "a budget per class or a class floor needs labels, but these scores have none"),
        (lambda s: s.kept(1, class_balance=0.5), "needs labels"),
        (lambda s: s.kept(1, class_balance=1.5), r"class_balance=1.5; expected a share in \[0, 1\]"),
        (lambda s: s.kept(0), "keep=0 keeps nothing"),
    ],
)
def test_wrong_budgets_for_scores(use: Any, text: str) -> None:
    with pytest.raises(BudgetError, match=text):
        use(scores([1.0, 2.0]))


def test_infinities_are_allowed_and_inputs_are_left_alone() -> None:
    values = np.array([np.inf, -np.inf, 0.0])
    assert scores(values, kind="value").ranking().tolist() == [0, 2, 1]
    assert values.tolist() == [np.inf, -np.inf, 0.0]


def test_stability_is_the_correlation_of_two_repetitions() -> None:
    draw = np.random.default_rng(0)
    truth, errors = draw.normal(size=20_000), np.full(20_000, 0.5)
    once, twice = (truth + errors * draw.normal(size=20_000) for _ in range(2))
    scores = Scores(once, np.arange(20_000), "x", "value", "points", errors=errors)
    assert scores.stability == pytest.approx(np.corrcoef(once, twice)[0, 1], abs=0.02)
    assert Scores(once, np.arange(20_000), "x", "value", "points").stability is None
    assert Scores(np.ones(3), np.arange(3), "x", "value", "points", errors=np.ones(3)).stability == 0.0


# -- skipping the hardest --------------------------------------------------------------------------------------------


@few
@given(any_scores(), st.floats(0, 0.99), st.data())
def test_what_is_skipped_comes_last_and_the_rest_as_if_alone(
    given_scores: Scores, skip: float, data: st.DataObject
) -> None:
    order, n = an_order(given_scores, data), len(given_scores)
    skipped, ranking = given_scores.skipped(skip), given_scores.ranking(order, skip)
    assert len(skipped) == int(np.floor(skip * n + 0.5))
    assert sorted(ranking) == list(range(n))
    assert ranking[n - len(skipped) :].tolist() == skipped[::-1].tolist()
    rest = np.setdiff1d(np.arange(n), skipped)
    hard = given_scores.difficulties
    assert not len(skipped) or not len(rest) or hard[skipped].min() >= hard[rest].max()
    if len(rest):
        alone = Scores(
            given_scores.values[rest],
            given_scores.ids[rest],
            "test",
            given_scores.kind,
            "points",
            order=given_scores.order,
        )
        assert ranking[: len(rest)].tolist() == rest[alone.ranking(order)].tolist()


def test_skipped_are_kept_where_the_others_do_not_suffice() -> None:
    given_scores = scores([9, 8, 7, 1, 2, 3], labels=[0, 0, 1, 1, 1, 1])
    assert given_scores.kept(2, skip=1 / 3).tolist() == [2, 5]
    assert given_scores.kept(5, skip=1 / 3).tolist() == [1, 2, 3, 4, 5]
    assert given_scores.kept(2, class_balance=1.0, skip=1 / 3).tolist() == [1, 2]
    assert given_scores.kept("2/class", skip=1 / 3).tolist() == [0, 1, 2, 5]
    assert given_scores.dropped(5, skip=1 / 3).tolist() == [0]
    assert scores([9, 8, 7, 1], kind="value").kept(2, skip=0.25).tolist() == [0, 1]
    assert scores([9, 8, 7, 1], kind="value").kept(4, skip=0.25).tolist() == [0, 1, 2, 3]
    for skip in (-0.1, 1.0, float("nan")):
        with pytest.raises(BudgetError, match=r"skip=.*; expected a share of the samples in \[0, 1\)"):
            given_scores.kept(2, skip=skip)
