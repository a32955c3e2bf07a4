import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.errors import ModicumError
from modicum.losses import NegativeCosine


@settings(max_examples=20, deadline=None)
@given(b=st.integers(1, 6), d=st.integers(1, 6), seed=st.integers(0, 99))
def test_it_is_minus_the_cosine(b, d, seed):
    draw = torch.Generator().manual_seed(seed)
    p, z = (torch.randn(b, d, generator=draw, dtype=torch.float64) for _ in range(2))
    losses = NegativeCosine("none")(p, z)
    torch.testing.assert_close(losses, -F.cosine_similarity(p, z))
    assert bool((losses.abs() <= 1 + 1e-12).all())
    torch.testing.assert_close(NegativeCosine()(p, z), losses.mean())
    torch.testing.assert_close(NegativeCosine("none")(2 * p, 5 * z), losses)


def test_it_is_minus_1_exactly_when_aligned():
    p = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(NegativeCosine("none")(p, 3 * p), -torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(NegativeCosine("none")(p, -p), torch.ones(5, dtype=torch.float64))
    assert float(NegativeCosine()(p, p + torch.tensor([0.1, 0, 0]))) > -1


def test_no_gradient_reaches_the_target():
    p, z = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    NegativeCosine()(p, z).backward()
    assert z.grad is None
    assert float(p.grad.abs().sum()) > 0


def test_an_embedding_of_zeros_and_shapes_that_do_not_fit():
    assert float(NegativeCosine()(torch.zeros(2, 3), torch.ones(2, 3))) == 0
    with pytest.raises(ModicumError, match=r"embeddings have shapes \[\(2, 3\), \(2, 4\)\]"):
        NegativeCosine()(torch.zeros(2, 3), torch.zeros(2, 4))
