import pytest
import torch

from modicum.errors import TrainingError
from modicum.losses import BarlowTwins


def draw(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(a, b, weight):
    a, b = ((x - x.mean(0)) / x.std(0, correction=0) for x in (a, b))
    c = a.T @ b / len(a)
    return sum((1 - c[i, j]) ** 2 if i == j else weight * c[i, j] ** 2 for i in range(len(c)) for j in range(len(c)))


@pytest.mark.parametrize("n, d", [(20, 6), (6, 6), (5, 9)])
def test_equals_the_definition(n, d):
    a, b = draw(n, d), draw(n, d, 1)
    torch.testing.assert_close(BarlowTwins(0.3)(a, b), by_definition(a, b, 0.3), rtol=1e-6, atol=0)


def test_is_0_of_identical_whitened_views():
    white = torch.linalg.qr(draw(64, 9) - draw(64, 9).mean(0))[0] * 8
    assert float(BarlowTwins()(white, white)) < 1e-12


def test_does_not_see_the_scale_and_the_shift_of_a_dimension():
    a, b, scale, shift = draw(30, 4), draw(30, 4, 1), draw(1, 4, 2).exp(), draw(1, 4, 3)
    torch.testing.assert_close(BarlowTwins()(scale * a + shift, b), BarlowTwins()(a, b), rtol=1e-6, atol=0)
    torch.testing.assert_close(BarlowTwins()(a, scale * b + shift), BarlowTwins()(a, b), rtol=1e-6, atol=0)


def test_of_independent_views_is_what_chance_gives():
    n, d = 256, 64
    values = torch.stack([BarlowTwins(0.5)(draw(n, d, 2 * s), draw(n, d, 2 * s + 1)) for s in range(8)])
    expected = d * (1 + 1 / n) + 0.5 * d * (d - 1) / n  # E (1 - c)^2 = 1 + 1/n
    assert float(values.mean()) == pytest.approx(expected, rel=0.01)


def test_a_constant_dimension_gives_finite_numbers():
    a = torch.ones(8, 3).requires_grad_()
    loss = BarlowTwins()(a, torch.ones(8, 3))
    loss.backward()
    assert float(loss.detach()) == 3
    assert bool(a.grad.isfinite().all())


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_a_wrong_weight(weight):
    with pytest.raises(TrainingError, match=f"weight={weight!r}; expected a number >= 0"):
        BarlowTwins(weight)


def test_views_that_do_not_fit():
    with pytest.raises(TrainingError, match=r"shapes \[\(4, 2\), \(3, 2\)\]"):
        BarlowTwins()(torch.ones(4, 2), torch.ones(3, 2))
    with pytest.raises(TrainingError, match="hold 1 samples; expected at least 2"):
        BarlowTwins()(torch.ones(1, 2), torch.ones(1, 2))
