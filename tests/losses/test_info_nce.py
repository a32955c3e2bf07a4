import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.errors import ModicumError
from modicum.losses import InfoNCE


def drawn(b=6, d=5, size=7, seed=0):
    draw = torch.Generator().manual_seed(seed)
    q, k, queue = (torch.randn(n, d, generator=draw, dtype=torch.float64) for n in (b, b, size))
    return q, k, F.normalize(queue, dim=1)


@settings(max_examples=20, deadline=None)
@given(b=st.integers(1, 6), d=st.integers(1, 6), size=st.integers(1, 9), t=st.floats(0.05, 2), seed=st.integers(0, 99))
def test_it_is_cross_entropy_with_the_right_key_in_column_0(b, d, size, t, seed):
    q, k, queue = drawn(b, d, size, seed)
    u, v = F.normalize(q, dim=1), F.normalize(k, dim=1)
    logits = torch.cat([(u * v).sum(1, keepdim=True), u @ queue.T], 1) / t
    expected = F.cross_entropy(logits, torch.zeros(b, dtype=torch.int64), reduction="none")
    torch.testing.assert_close(InfoNCE(t, "none")(q, k, queue), expected)


def test_gradients_are_those_of_cross_entropy():
    q, k, queue = (x.requires_grad_() for x in drawn())
    logits = torch.cat([(F.normalize(q) * F.normalize(k)).sum(1, keepdim=True), F.normalize(q) @ queue.T], 1) / 0.2
    expected = torch.autograd.grad(F.cross_entropy(logits, torch.zeros(6, dtype=torch.int64)), (q, k, queue))
    for ours, theirs in zip(torch.autograd.grad(InfoNCE(0.2)(q, k, queue), (q, k, queue)), expected):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("queue", [None, torch.zeros(0, 5, dtype=torch.float64)])
def test_with_no_queue_it_compares_within_the_batch_in_one_direction(queue):
    q, k, _ = drawn()
    table = (F.normalize(q) @ F.normalize(k).T / 0.2).softmax(1)
    torch.testing.assert_close(InfoNCE(0.2, "none")(q, k, queue), -table.diagonal().log())


def test_closed_forms():
    same = torch.ones(6, 4)
    assert float(InfoNCE(0.3)(same, same)) == pytest.approx(math.log(6), abs=1e-6)
    assert float(InfoNCE(0.3)(same, same, same / 2)) == pytest.approx(math.log(7), abs=1e-6)
    axes = torch.eye(6)
    assert float(InfoNCE(0.5)(axes[:3], axes[:3], axes[3:])) == pytest.approx(math.log1p(3 * math.exp(-2)), abs=1e-6)
    assert float(InfoNCE(0.5)(axes, axes)) == pytest.approx(math.log1p(5 * math.exp(-2)), abs=1e-6)


def test_order_of_the_batch_and_of_the_queue_and_lengths_do_not_matter():
    q, k, queue = drawn()
    order, other = torch.randperm(6), torch.randperm(7)
    losses = InfoNCE(0.2, "none")(q, k, queue)
    torch.testing.assert_close(InfoNCE(0.2, "none")(q[order], k[order], queue[other]), losses[order])
    torch.testing.assert_close(InfoNCE(0.2, "none")(3 * q, 0.1 * k, queue), losses)
    torch.testing.assert_close(InfoNCE(0.2)(q[order], k[order]), InfoNCE(0.2)(q, k))


def test_a_right_key_that_is_all_but_lost_has_a_finite_loss_and_gradient():
    q = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss = InfoNCE(1e-3)(q, torch.tensor([[-1.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2000)
    assert bool(q.grad.isfinite().all())
    assert bool(InfoNCE(0.2)(torch.zeros(3, 2), torch.zeros(3, 2)).isfinite())


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf])
def test_a_temperature_that_makes_no_sense(temperature):
    with pytest.raises(ModicumError, match=rf"temperature={temperature}; expected a number > 0"):
        InfoNCE(temperature)


def test_shapes_that_do_not_fit():
    q, k, queue = drawn()
    with pytest.raises(ModicumError, match=r"embeddings have shapes \[\(6, 5\), \(5, 5\)\]"):
        InfoNCE()(q, k[:-1], queue)
    with pytest.raises(ModicumError, match="embeddings hold 1 samples; expected at least 2"):
        InfoNCE()(q[:1], k[:1])
    with pytest.raises(ModicumError, match=r"queue has shape \(7, 4\); expected \(K, 5\)"):
        InfoNCE()(q, k, queue[:, :4])
