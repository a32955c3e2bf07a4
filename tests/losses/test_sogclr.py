import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.errors import TrainingError
from modicum.losses import SogCLR


def pair(n=6, d=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(n, d, generator=g, dtype=torch.float64) for _ in range(2))
    return a.requires_grad_(), b.requires_grad_()


def objective(a, b, t):
    """The mean over images of the sum over both views of t log E exp(s / t) - s+."""
    z, n = F.normalize(torch.cat([a, b]), dim=1), len(a)
    total = 0.0
    for i in range(2 * n):
        s = torch.stack([z[i] @ z[j] for j in range(2 * n) if j % n != i % n])
        total = total + t * (s / t).exp().mean().log() - z[i] @ z[(i + n) % (2 * n)]
    return total / n


@settings(max_examples=10, deadline=None)
@given(t=st.floats(0.05, 2.0), seed=st.integers(0, 99))
def test_with_gamma_1_its_gradient_is_that_of_the_objective(t, seed):
    a, b = pair(seed=seed)
    wanted = torch.autograd.grad(objective(a, b, t), (a, b))
    loss = SogCLR(20, t, gamma=1.0)
    for _ in range(2):  # the first visit and a later one
        found = torch.autograd.grad(loss(a, b, torch.arange(6)), (a, b))
        for x, y in zip(found, wanted, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-12)


def test_the_gradient_with_an_exact_estimate_is_that_of_all_data():
    """Over the batches of a data set, the surrogate with the exact expectation has the gradient of the whole."""
    n, t = 8, 0.5
    g = torch.Generator().manual_seed(3)
    z = F.normalize(torch.randn(n, 3, generator=g, dtype=torch.float64), dim=1).requires_grad_()
    whole = objective(z, z, t)  # views without augmentation
    loss = SogCLR(n, t, gamma=1e-12, reduction="none")
    with torch.no_grad():
        s = (z @ z.T / t).exp().masked_fill(torch.eye(n, dtype=torch.bool), 0).sum(1) / (n - 1)
        loss.log_u = s.log()
    total, pairs = torch.zeros(()), 0
    for i in range(n):
        for j in range(i):
            total, pairs = total + loss(z[[i, j]], z[[i, j]], torch.tensor([i, j])).sum(), pairs + 2
    wanted, found = torch.autograd.grad(whole, z)[0], torch.autograd.grad(total / pairs, z)[0]
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


def test_with_constant_embeddings_the_estimate_forgets_its_beginning():
    a, b = (x.detach().float() for x in pair())
    exact, loss = SogCLR(6), SogCLR(6, gamma=0.3)
    exact(a, b, torch.arange(6))
    loss.log_u.fill_(-60.0)  # nearly 0, but seen: no first visit
    for k in range(1, 6):
        loss(a, b, torch.arange(6))
        torch.testing.assert_close(loss.u, exact.u * (1 - 0.7**k), rtol=1e-4, atol=1e-6)


def test_only_the_samples_of_the_batch_change_and_only_while_training():
    a, b = pair()
    loss, where = SogCLR(20), torch.tensor([3, 19, 7, 0, 11, 5])
    loss.eval()(a, b, where)
    assert not loss.u.any()
    loss.train()(a, b, where)
    assert loss.u.nonzero().flatten().tolist() == sorted(where.tolist())
    assert loss.log_u.dtype == torch.float32
    assert list(loss.state_dict()) == ["log_u"]


def test_reduction():
    a, b = pair()
    each = SogCLR(6, reduction="none")(a, b, torch.arange(6))
    assert each.shape == (6,)
    torch.testing.assert_close(each.mean(), SogCLR(6)(a, b, torch.arange(6)))


def test_a_zero_embedding_is_finite():
    a = torch.zeros(3, 4, requires_grad=True)
    loss = SogCLR(3)(a, torch.eye(3, 4), torch.arange(3))
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(a.grad.isfinite().all())


@pytest.mark.parametrize(
    "options, text",
    [
        ({"n": 1}, "n=1; expected the number of samples, at least 2"),
        ({"temperature": 0}, "temperature=0; expected a number > 0"),
        ({"gamma": 0}, r"gamma=0; expected a share in \(0, 1\]"),
        ({"gamma": 1.5}, r"gamma=1.5; expected a share in \(0, 1\]"),
        ({"reduction": "sum"}, "reduction='sum'; expected 'mean' or 'none'"),
    ],
)
def test_wrong_options(options, text):
    with pytest.raises(TrainingError, match=text):
        SogCLR(**{"n": 10, **options})


def test_one_image_has_no_negatives():
    with pytest.raises(TrainingError, match="hold 1 samples; expected at least 2"):
        SogCLR(10)(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([0]))
