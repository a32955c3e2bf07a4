"""Sets that grow by a sample at a time answer what training anew answers, to 1e-8."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.measurement.learners import LEARNERS, Knn, Lda, Learner, NaiveBayes, Problem, Ridge

GROWING = [
    Ridge(),
    Ridge(l2=0.01),
    Knn(),
    Knn(k=1),
    Knn(k=40),
    Lda(),
    Lda(ridge=0.5),
    NaiveBayes(),
    NaiveBayes(floor=1e-3),
]


def problem(n=30, m=17, d=5, classes=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x, queries = torch.randn(n, d, generator=draw).double(), torch.randn(m, d, generator=draw).double()
    if not classes:
        return Problem(x, torch.randn(n, generator=draw).double(), queries, torch.randn(m, generator=draw).double(), 0)
    targets, wanted = (torch.randint(classes, (size,), generator=draw) for size in (n, m))
    x[torch.arange(n), targets % d] += 2.0
    return Problem(x, targets, queries, wanted, classes)


def orders_of(p, b=4, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(len(p.targets), generator=draw) for _ in range(b)])


def learned(learner, p, masks):
    """Which sets the learner is asked about at all."""
    if not p.classes or learner.any_subset:
        return masks.any(1)
    return torch.tensor([len(p.targets[mask].unique()) > 1 for mask in masks])


def check(learner, p, orders, drop_at=None):
    n, growing = len(p.targets), learner.start(p, orders)
    for j in range(n):
        found = growing.step()
        masks = torch.zeros(len(orders), n, dtype=torch.bool).scatter_(1, orders[:, : j + 1], True)
        at = learned(learner, p, masks)
        torch.testing.assert_close(found[at], learner.outputs(p, masks)[at], rtol=1e-8, atol=1e-8)
        if j == drop_at:
            kept = torch.arange(len(orders)) % 2 == 0
            growing.keep(kept)
            orders = orders[kept]
    assert growing.flops > 0


@pytest.mark.parametrize("learner", GROWING, ids=repr)
@pytest.mark.parametrize("d", [5, 50], ids=["many samples", "few samples"])
def test_every_prefix_of_an_order_equals_training_anew(learner, d):
    p = problem(d=d)
    check(learner, p, orders_of(p), drop_at=11)
    check(learner, p, orders_of(p, b=1))


@pytest.mark.parametrize("learner", [Ridge(), Knn(), Knn(k=40)], ids=repr)
@pytest.mark.parametrize("d", [5, 50])
def test_regression_too(learner, d):
    p = problem(d=d, classes=0)
    check(learner, p, orders_of(p), drop_at=16)


@pytest.mark.parametrize("learner", [Ridge(), Ridge(l2=1e-4), Lda(), NaiveBayes()], ids=repr)
def test_rounding_does_not_build_up(learner):
    p = problem(n=800, m=5, d=20)
    orders, growing = orders_of(p, 2), learner.start(p, orders_of(p, 2))
    for _ in range(800):
        found = growing.step()
    torch.testing.assert_close(found, learner.outputs(p, torch.ones(2, 800, dtype=torch.bool)), rtol=1e-8, atol=1e-8)
    assert orders.shape == (2, 800)


@pytest.mark.parametrize("learner", GROWING, ids=repr)
def test_rows_of_a_batch_do_not_see_each_other(learner):
    p = problem()
    orders = orders_of(p, 6)
    together, alone = learner.start(p, orders), [learner.start(p, row[None]) for row in orders]
    for _ in range(len(p.targets)):
        found = together.step()
        torch.testing.assert_close(found, torch.cat([one.step() for one in alone]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("learner", GROWING, ids=repr)
def test_one_subset_or_many_at_once(learner):
    p = problem(n=25)
    masks = torch.rand(12, 25, generator=torch.Generator().manual_seed(1)) < 0.5
    masks = masks[learned(learner, p, masks)]
    alone = torch.cat([learner.outputs(p, mask[None]) for mask in masks])
    torch.testing.assert_close(learner.outputs(p, masks), alone, rtol=1e-9, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(GROWING),
    st.integers(2, 12),
    st.integers(1, 4),
    st.integers(1, 14),
    st.integers(2, 4),
    st.integers(0, 999),
)
def test_any_shape(learner, n, m, d, classes, seed):
    p = problem(n, m, d, classes, seed)
    check(learner, p, orders_of(p, 2, seed))


@pytest.mark.parametrize("learner", [Lda(), NaiveBayes()], ids=repr)
def test_a_class_that_is_not_there_is_never_the_answer(learner):
    p = problem()
    found = learner.outputs(p, (p.targets != 1)[None])
    assert (found[..., 1] == -torch.inf).all()
    assert found[..., [0, 2]].isfinite().all()


def test_every_learner_says_what_it_is():
    p = problem()
    for kind in LEARNERS.values():
        learner = kind()
        assert isinstance(learner, Learner)
        assert hash(learner) == hash(kind())
        assert learner.gives in ("scores", "logits", "probabilities")
        assert learner.reads in ("features", "inputs")
        assert learner.room(p) >= 0
        assert learner.flops(p, 20.0) >= learner.flops(p, 10.0) >= 0


def test_blocks_change_nothing(monkeypatch):
    from modicum.measurement.learners import knn as knn_module
    from modicum.measurement.learners import problem as module

    masks = torch.rand(20, 30, generator=torch.Generator().manual_seed(1)) < 0.6
    whole = [learner.outputs(problem(), masks) for learner in GROWING]
    for target in (module, knn_module):
        monkeypatch.setattr(target, "BLOCK", 300)
    monkeypatch.setattr(knn_module, "KEPT", 1)
    for learner, expected in zip(GROWING, whole):
        torch.testing.assert_close(learner.outputs(problem(), masks), expected, rtol=1e-9, atol=1e-9)
    assert Knn().start(problem(), orders_of(problem())) is None
