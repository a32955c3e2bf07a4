import pytest
import torch

from modicum.errors import TrainingError
from modicum.losses import VICReg


def draw(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n, d", [(20, 6), (6, 6), (5, 9)])
def test_equals_the_definition(n, d):
    a, b = 0.7 * draw(n, d), 0.9 * draw(n, d, 1)
    near = ((a - b) ** 2).mean()
    spread = sum((1 - (x.var(0) + 1e-4).sqrt()).clamp_min(0).mean() for x in (a, b)) / 2
    apart = 0.0
    for x in (a, b):
        covariance = torch.cov(x.T)
        apart += (covariance - covariance.diag().diag()).square().sum() / d
    loss = VICReg(2.0, 3.0, 5.0)
    for found, expected in zip(loss.parts(a, b), (near, spread, apart), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(loss(a, b), 2 * near + 3 * spread + 5 * apart)


def test_collapsed_embeddings():
    same = torch.full((6, 4), 3.0, dtype=torch.float64)
    near, spread, apart = VICReg().parts(same, same)
    assert float(near) == float(apart) == 0
    assert float(spread) == pytest.approx(0.99, abs=1e-12)


def test_identical_spread_uncorrelated_embeddings_cost_nothing():
    z = torch.linalg.qr(draw(64, 9) - draw(64, 9).mean(0))[0]
    z = 1.5 * (z / z.std(0))
    assert float(VICReg()(z, z)) < 1e-12


def test_invariance_is_the_mean_over_entries():
    a = draw(10, 7)
    assert float(VICReg().parts(a, a + 2)[0]) == pytest.approx(4)


@pytest.mark.parametrize("name", ["invariance", "variance", "covariance"])
def test_a_wrong_coefficient(name):
    with pytest.raises(TrainingError, match=f"{name}=-1; expected a number >= 0"):
        VICReg(**{name: -1})


def test_views_that_do_not_fit():
    with pytest.raises(TrainingError, match=r"shapes \[\(4, 2\), \(4, 3\)\]"):
        VICReg()(torch.ones(4, 2), torch.ones(4, 3))
