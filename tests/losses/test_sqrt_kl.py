import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.errors import TrainingError
from modicum.losses.sqrt_kl import SqrtKL


def logits(b=4, k=7, seed=0, scale=1.0):
    draw = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(b, k, generator=draw, dtype=torch.float64)).requires_grad_()


def entropy(p):
    return -(p * p.log()).sum(1, keepdim=True)


def gradient(value, of):
    return torch.autograd.grad(value, of, retain_graph=True)[0]


@pytest.mark.parametrize("temperature", [1.0, 0.2])
@pytest.mark.parametrize("detach", [True, False])
def test_the_gradient_is_the_closed_form(temperature, detach):
    s = logits()
    p, u = (s / temperature).softmax(1), (s / temperature / 2).softmax(1)
    expected = p * (p.log() + entropy(p)) / 2 + (0 if detach else (u - p) / 2)
    loss = SqrtKL(temperature, detach, reduction="none")
    torch.testing.assert_close(gradient(loss(s).sum(), s), expected / temperature, atol=1e-10, rtol=0)


def test_the_parts_ascend_and_descend_the_entropy():
    s = logits()
    negentropy, cross = SqrtKL(reduction="none").parts(s)
    p = s.softmax(1)
    whole = p * (p.log() + entropy(p))
    torch.testing.assert_close(gradient(negentropy.sum(), s), whole, atol=1e-12, rtol=0)
    torch.testing.assert_close(gradient(cross.sum(), s), -whole / 2, atol=1e-12, rtol=0)
    torch.testing.assert_close(negentropy, -entropy(p)[:, 0])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), k=st.integers(2, 30), scale=st.floats(0.01, 30))
def test_it_is_half_a_difference_of_entropies_and_never_negative(seed, k, scale):
    s = logits(3, k, seed, scale).detach()
    p = s.softmax(1)
    renyi = 2 * p.sqrt().sum(1).log()
    value = SqrtKL(reduction="none")(s)
    assert bool((value >= -1e-14).all())
    torch.testing.assert_close(value, (renyi + (p * s.log_softmax(1)).sum(1)) / 2, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(SqrtKL(reduction="none")(s + 5.0), value, atol=1e-12, rtol=1e-9)


def test_equal_logits_have_no_loss():
    assert SqrtKL()(torch.full((3, 9), 4.0, dtype=torch.float64)).abs() < 1e-15


def test_small_logits_have_an_eighth_of_their_variance():
    s = logits(1, 5000, scale=1e-2).detach()
    assert float(SqrtKL()(s) / s.var()) == pytest.approx(0.125, abs=1e-3)


def test_extreme_logits_stay_finite():
    s = torch.tensor([[0.0, 1e4, -1e4], [3e4, 3e4, 0.0]], requires_grad=True)
    value = SqrtKL(0.1)(s)
    assert value.isfinite()
    assert gradient(value, s).isfinite().all()


def test_reductions_and_the_order_of_the_batch():
    s = logits().detach()
    each = SqrtKL(reduction="none")(s)
    assert each.shape == (4,)
    torch.testing.assert_close(SqrtKL()(s), each.mean())
    assert torch.equal(SqrtKL(reduction="none")(s.flip(0)), each.flip(0))


@pytest.mark.parametrize(
    "wrong, text",
    [
        (lambda: SqrtKL(0.0), r"temperature=0.0; expected a number > 0"),
        (
            lambda: SqrtKL()(torch.zeros(3)),
            r"logits has shape \(3,\) and type torch.float32; expected a floating tensor",
        ),
        (lambda: SqrtKL()(torch.zeros(3, 2, dtype=torch.int64)), r"logits has shape \(3, 2\) and type torch.int64"),
    ],
)
def test_errors_name_the_argument(wrong, text):
    with pytest.raises(TrainingError, match=text):
        wrong()
