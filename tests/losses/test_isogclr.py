import math

import pytest
import torch
import torch.nn.functional as F

from modicum.errors import TrainingError
from modicum.losses import ISogCLR, SogCLR

WHERE = torch.arange(6)


def pair(seed=0):
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(6, 4, generator=g, dtype=torch.float64) for _ in range(2))


def test_the_derivative_is_rho_minus_the_divergence_from_the_uniform():
    a, b = pair()
    loss = ISogCLR(6, temperature=0.5, gamma=1.0, rho=0.7, beta=1.0, eta=0.01)
    loss(a, b, WHERE)
    z = F.normalize(torch.cat([a, b]), dim=1)
    divergences = []
    for i in range(12):
        p = torch.stack([z[i] @ z[j] / 0.5 for j in range(12) if j % 6 != i % 6]).softmax(0)
        divergences.append((p * (p * 10).log()).sum())
    expected = 0.7 - torch.stack(divergences).reshape(2, 6).mean(0)
    torch.testing.assert_close(loss.v.double(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(loss.tau, 0.5 - 0.01 * loss.v)


def test_temperatures_follow_the_average_of_the_derivative():
    a, b = pair()
    loss = ISogCLR(6, temperature=0.5, gamma=1.0, eta=0.01, beta=0.25)
    v, tau = torch.zeros(6), torch.full((6,), 0.5)
    for _ in range(3):
        one = ISogCLR(6, temperature=0.5, gamma=1.0, eta=0, beta=1.0)
        one.tau.copy_(tau)
        one(a, b, WHERE)
        v, tau = 0.75 * v + 0.25 * one.v, tau - 0.01 * (0.75 * v + 0.25 * one.v)
        loss(a, b, WHERE)
        torch.testing.assert_close(loss.v, v)
        torch.testing.assert_close(loss.tau, tau)


@pytest.mark.parametrize("rho, limit", [(50.0, 0.05), (0.0, 1.0)])
def test_the_limits_of_rho(rho, limit):
    a, b = pair()
    loss = ISogCLR(6, gamma=1.0, rho=rho)
    for _ in range(1000 if rho == 0 else 20):
        loss(a, b, WHERE)
    assert loss.tau.tolist() == pytest.approx([limit] * 6, abs=1e-6)


def test_a_sharp_image_gets_a_higher_temperature():
    ring = torch.linspace(0, 2 * math.pi, 7)[:6]
    far = torch.stack([ring.cos(), ring.sin()], 1)
    near = far.clone()
    near[1] = near[0] + 1e-3  # image 0 has a twin
    loss = ISogCLR(6, temperature=0.5, rho=1.1)
    loss(near, near, WHERE)
    assert float(loss.tau[0]) > float(loss.tau[3])


def test_derivatives_are_clipped():
    a, b = pair()
    loss = ISogCLR(6, rho=100.0, beta=1.0)
    loss(a, b, WHERE)
    assert loss.v.tolist() == [3.0] * 6


def test_with_frozen_temperatures_it_is_sogclr_to_the_bit():
    frozen, plain = ISogCLR(6, eta=0), SogCLR(6)
    for seed in range(4):
        a, b = (x.float().requires_grad_() for x in pair(seed))
        values = [loss(a, b, WHERE) for loss in (frozen, plain)]
        assert torch.equal(*values)
        assert all(
            torch.equal(x, y) for x, y in zip(*(torch.autograd.grad(value, (a, b)) for value in values), strict=True)
        )
    assert torch.equal(frozen.log_u, plain.log_u)


def test_its_state_is_three_numbers_a_sample_and_only_the_batch_changes():
    a, b = pair()
    loss = ISogCLR(20)
    loss.eval()(a, b, WHERE + 3)
    assert loss.tau.unique().numel() == 1
    loss.train()(a, b, WHERE + 3)
    assert {name: tuple(x.shape) for name, x in loss.state_dict().items()} == dict.fromkeys(
        ("log_u", "tau", "v"), (20,)
    )
    changed = (loss.v != 0).nonzero().flatten()
    assert changed.tolist() == (WHERE + 3).tolist()


@pytest.mark.parametrize(
    "options, text",
    [
        ({"lowest": 0}, "lowest=0; expected a temperature > 0"),
        ({"lowest": 0.5, "highest": 0.2}, "highest=0.2; expected a temperature >= lowest=0.5"),
        ({"temperature": 2.0}, "temperature=2.0; expected one from 0.05 to 1.0"),
        ({"rho": -1}, "rho=-1; expected a number >= 0"),
        ({"eta": -1}, "eta=-1; expected a number >= 0"),
        ({"beta": 0}, r"beta=0; expected a share in \(0, 1\]"),
        ({"gamma": 0}, r"gamma=0; expected a share in \(0, 1\]"),
    ],
)
def test_wrong_options(options, text):
    with pytest.raises(TrainingError, match=text):
        ISogCLR(10, **options)


def test_repeated_indices():
    a, b = pair()
    with pytest.raises(TrainingError, match="indices hold 2 more than once"):
        ISogCLR(10)(a, b, torch.tensor([0, 1, 2, 2, 3, 4]))
