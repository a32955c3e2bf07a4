"""Relevance and allocation: the exact numbers, and the identities behind them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.analysis import active_tasks, allocate_samples, shared_representation, source_relevance, spread_risk
from modicum.errors import BudgetError, DataError, ModicumError

HEADS, TARGET = np.array([[1, 0, 0.6], [0, 1, 0.8]]), np.array([0.6, 0.8])


def test_the_example_with_three_sources():
    one, two = (source_relevance(HEADS, TARGET, q) for q in (1, 2))
    assert one.values == pytest.approx([0, 0, 1], abs=1e-12)
    assert two.values == pytest.approx([0.3, 0.4, 0.5], abs=1e-12)
    assert max(one.residual, two.residual) < 1e-12
    n = 3_000_000
    for nu, strategy, expected in ((one, "l1", 1), (two, "l2", 1.5), (two, "l1", 1.44), (two, "uniform", 1.5)):
        assert n * spread_risk(nu.values, allocate_samples(nu.values, n, strategy=strategy)) == pytest.approx(
            expected, rel=1e-5
        )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 30))
def test_the_program_opens_few_sources_and_is_the_limit_of_the_lasso(seed, k, more):
    draw = np.random.default_rng(seed)
    heads, target = draw.normal(size=(k, k + more)), draw.normal(size=k)
    exact = source_relevance(heads, target)
    assert exact.residual < 1e-8
    assert (np.abs(exact.values) > 1e-9).sum() <= k
    assert np.abs(exact.values).sum() <= np.abs(source_relevance(heads, target, 2).values).sum() + 1e-9
    close = source_relevance(heads, target, penalty=1e-7 * np.abs(heads.T @ target).max())
    assert close.penalty > 0
    assert np.abs(close.values).sum() == pytest.approx(np.abs(exact.values).sum(), rel=1e-4)
    assert np.linalg.norm(heads @ close.values - target) < 1e-4 * np.linalg.norm(target)


def test_the_lasso_keeps_its_optimality_conditions():
    draw = np.random.default_rng(0)
    heads, target = draw.normal(size=(12, 30)), draw.normal(size=12)
    penalty = 0.2 * np.abs(heads.T @ target).max()
    nu = source_relevance(heads, target, penalty=penalty).values
    pull = heads.T @ (target - heads @ nu)
    assert np.abs(pull).max() == pytest.approx(penalty, rel=1e-5)
    assert pull[nu != 0] == pytest.approx(penalty * np.sign(nu[nu != 0]), rel=1e-5)
    doubled = source_relevance(np.hstack([heads, heads]), target, penalty=penalty).values  # equal columns
    assert doubled[:30] + doubled[30:] == pytest.approx(nu, abs=1e-5)


def test_a_target_outside_the_span_gets_the_lasso_and_its_residual():
    found = source_relevance(np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([1.0, 1.0]))
    assert found.penalty == pytest.approx(1e-3 * 2)
    assert found.residual == pytest.approx(np.sqrt(0.5), rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12))
def test_no_allocation_is_better_than_in_proportion(seed, m):
    draw = np.random.default_rng(seed)
    nu = draw.normal(size=m)
    best = np.abs(nu).sum() ** 2
    others = draw.dirichlet(np.ones(m), 10_000)
    assert (nu**2 / others).sum(1).min() >= best * (1 - 1e-9)
    assert spread_risk(nu, np.abs(nu) / np.abs(nu).sum()) == pytest.approx(best)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 10), st.integers(0, 20), st.sampled_from(["l1", "l2", "uniform"]))
def test_an_allocation_adds_up_and_keeps_its_bounds(seed, m, minimum, strategy):
    draw = np.random.default_rng(seed)
    nu, sizes = draw.normal(size=m) * (draw.random(m) < 0.7), draw.integers(1, 100, m)
    least = int(np.minimum(minimum, sizes).sum())
    budget = int(draw.integers(max(1, least), sizes.sum() + 1))
    counts = allocate_samples(nu, budget, minimum, strategy, sizes)
    assert counts.sum() == budget
    assert (counts <= sizes).all()
    assert (counts >= np.minimum(minimum, sizes)).all()


def test_least_squares_by_turns_finds_the_representation_and_never_climbs():
    draw = np.random.default_rng(1)
    x = [draw.normal(size=(25, 10)) for _ in range(15)]
    truth = draw.normal(size=(10, 3)) @ draw.normal(size=(3, 15))
    y = [a @ b + 0.3 * draw.normal(size=25) for a, b in zip(x, truth.T)]
    errors = []
    for rounds in (1, 2, 5, 50):
        body, heads = shared_representation(x, y, 3, rounds, tolerance=0)
        assert body.T @ body == pytest.approx(np.eye(3), abs=1e-9)
        errors.append(sum(((a @ body @ w - b) ** 2).sum() for a, b, w in zip(x, y, heads.T)))
    assert errors == sorted(errors, reverse=True)
    alone = [np.linalg.lstsq(a, b, rcond=None)[0] for a, b in zip(x, y)]
    assert ((body @ heads - truth) ** 2).sum() < 0.6 * ((np.array(alone).T - truth) ** 2).sum()


def test_conjugate_gradients_agree_with_the_direct_solution(monkeypatch):
    draw = np.random.default_rng(2)
    x = [draw.normal(size=(30, 6)) for _ in range(9)]
    y = [draw.normal(size=30) for _ in range(9)]
    body, heads = shared_representation(x, y, 2, 300, 1e-9)
    monkeypatch.setattr("modicum.analysis.multitask.DIRECT", 0)
    other, weights = shared_representation(x, y, 2, 300, 1e-9)
    assert other @ weights == pytest.approx(body @ heads, abs=1e-3)


def model(seed, d=30, k=4, m=20):
    draw = np.random.default_rng(seed)
    body, heads = np.linalg.qr(draw.normal(size=(d, k)))[0], draw.normal(size=(k, m))
    target = body @ (heads[:, 0] + 0.1 * draw.normal(size=k))

    def sample(weight, n):
        x = draw.normal(size=(n, d))
        return x, x @ weight + draw.normal(size=n)

    return body, heads, target, sample


def test_active_tasks_beat_the_target_alone_and_draw_what_they_say():
    found, alone = [], []
    for seed in range(4):
        body, heads, target, sample = model(seed)
        drawn = np.zeros(20, int)

        def draw(source, count, drawn=drawn, body=body, heads=heads, sample=sample):
            drawn[source] += count
            return sample(body @ heads[:, source], count)

        own = sample(target, 200)
        done = active_tasks(draw, 20, own, 4, 2000)
        assert done.counts.tolist() == drawn.tolist()
        assert drawn.sum() == 2000
        assert (drawn > drawn.min()).sum() <= 6  # few sources are opened wide
        found.append(((done.body @ done.head - target) ** 2).sum())
        alone.append(((np.linalg.lstsq(*own, rcond=None)[0] - target) ** 2).sum())
    assert np.mean(found) < 0.6 * np.mean(alone)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: source_relevance(HEADS, np.zeros(2)), DataError, "target is all zero"),
        (lambda: source_relevance(HEADS, np.ones(3)), DataError, "target has 3 entries; expected 2"),
        (lambda: source_relevance(HEADS * np.nan, TARGET), DataError, r"heads\[0, 0\] is nan"),
        (lambda: source_relevance(np.empty((2, 0)), TARGET), DataError, r"heads has shape \(2, 0\)"),
        (lambda: source_relevance(HEADS, TARGET, 3), ModicumError, "norm=3; expected 1 or 2"),
        (lambda: source_relevance(HEADS, TARGET, 2, 0.1), ModicumError, r"penalty=0.1 with norm=2"),
        (
            lambda: allocate_samples(np.ones(3), 5, 2),
            BudgetError,
            r"budget=5 samples of 3 sources; expected 6 \(minimum=2",
        ),
        (lambda: allocate_samples(np.ones(2), 9, sizes=np.array([3, 4])), BudgetError, r"to 7 \(what there is\)"),
        (lambda: allocate_samples(np.ones(2), 9, strategy="l3"), ModicumError, "strategy='l3'; expected 'l1', 'l2'"),
        (lambda: spread_risk(np.ones(2), np.ones(3)), DataError, "expected 2 numbers >= 0"),
        (lambda: shared_representation([], [], 1), DataError, "expected as many, at least one"),
        (
            lambda: shared_representation([np.ones((3, 2))], [np.ones(3)], 5),
            ModicumError,
            "rank=5; expected an integer from 1 to the 2",
        ),
        (
            lambda: shared_representation([np.ones((3, 2))], [np.ones(4)], 1),
            DataError,
            r"inputs\[0\] has shape \(3, 2\); expected \(4, 2\)",
        ),
    ],
)
def test_what_is_wrong_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_a_budget_that_is_no_number_of_samples_is_refused():
    with pytest.raises(BudgetError, match=r"budget=10\.5 and minimum=0; expected whole numbers of samples"):
        allocate_samples(np.ones(2), 10.5)


def test_a_wrong_request_is_refused_before_anything_is_drawn():
    def draw(source, count):
        raise AssertionError("drawn")

    good = np.eye(4), np.ones(4)
    with pytest.raises(ModicumError, match="strategy='l3'"):
        active_tasks(draw, 3, good, 2, 100, strategy="l3")
    with pytest.raises(DataError, match=r"target\[0\]\[0, 0\] is nan"):
        active_tasks(draw, 3, (np.full((4, 4), np.nan), np.ones(4)), 2, 100)


def test_a_penalty_of_zero_is_refused():
    random = np.random.default_rng(0)

    def draw(source, count):
        x = random.normal(size=(count, 4))
        return x, x[:, source]

    with pytest.raises(ModicumError, match=r"penalty=0\.0 with norm=1; expected a number > 0"):
        active_tasks(draw, 3, draw(0, 30), 2, 100, penalty=0.0)
