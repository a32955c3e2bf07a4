from typing import Any

import pytest
import torch
from torch import Tensor

from modicum.context import generator
from modicum.distillation import implicit_gradient, inverse_product
from modicum.errors import ModicumError, TrainingError


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed, shape), dtype=torch.float64)


def definite(p: int = 8) -> Tensor:
    a = draw(p, p)
    return a @ a.T + 0.5 * torch.eye(p, dtype=torch.float64)


def ridge(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return 0.5 * (x @ w - y).square().mean() + 0.05 * w @ w


def minimum(x: Tensor, y: Tensor) -> Tensor:
    m, d = x.shape
    return torch.linalg.solve(x.T @ x / m + 0.1 * torch.eye(d).to(x), x.T @ y / m)


def test_through_ridge_regression_it_is_the_gradient_of_the_closed_form() -> None:
    x, y, t, z = draw(6, 4).requires_grad_(), draw(6).requires_grad_(), draw(9, 4), draw(9)

    def outer(w: Tensor, x: Tensor, y: Tensor) -> Tensor:  # with a direct part
        return 0.5 * (t @ w - z).square().mean() + (x * y[:, None]).sum() * w.sum()

    solution = minimum(x, y)
    exact = torch.autograd.grad(outer(solution, x, y), (x, y))
    loss, found = implicit_gradient(ridge, outer, solution, (x, y))
    torch.testing.assert_close(loss, outer(solution, x, y).detach())
    for ours, theirs in zip(found, exact, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_gradient_steps_come_near_and_conjugate_ones_are_exact() -> None:
    h, v = definite(), draw(8, seed=1)
    exact = torch.linalg.solve(h, v)
    errors = [
        float((inverse_product(lambda u: h @ u, v, solver=solver, steps=8) - exact).norm())
        for solver in ("cg", "gradient")
    ]
    assert errors[0] < 1e-8 < errors[1] < float(exact.norm())
    many = inverse_product(lambda u: h @ u, v, solver="gradient", steps=5000)
    torch.testing.assert_close(many, exact, rtol=0, atol=1e-8)


def test_every_step_lowers_the_quadratic() -> None:
    h, v = definite(), draw(8, seed=1)
    found = [inverse_product(lambda u: h @ u, v, solver="gradient", steps=k) for k in range(1, 12)]
    values = [float(0.5 * u @ h @ u - u @ v) for u in found]
    assert values == sorted(values, reverse=True)


def test_damping_is_added_to_the_eigenvalues() -> None:
    h, v = definite(), draw(8, seed=1)
    damped = inverse_product(lambda u: h @ u, v, damping=2.0, steps=8)
    torch.testing.assert_close(damped, torch.linalg.solve(h + 2 * torch.eye(8).to(h), v), rtol=0, atol=1e-8)


def test_it_stops_when_nothing_is_left() -> None:
    calls: list[int] = []

    def product(u: Tensor) -> Tensor:
        calls.append(1)
        return 3 * u

    torch.testing.assert_close(inverse_product(product, torch.full((4,), 6.0)), torch.full((4,), 2.0))
    assert len(calls) == 1
    assert not bool(inverse_product(product, torch.zeros(4)).any())


def test_what_the_outer_loss_does_not_see_has_a_gradient_through_the_minimum_only() -> None:
    x, y = draw(6, 4), draw(6)
    _, (slope_x, slope_y) = implicit_gradient(ridge, lambda w, *_: w.sum(), minimum(x, y), (x, y))
    assert bool(slope_x.any())
    assert bool(slope_y.any())
    _, (alone,) = implicit_gradient(lambda w, s: w @ w, lambda w, s: w.sum() + s.sum(), torch.zeros(3), [torch.ones(2)])
    assert torch.equal(alone, torch.ones(2))


def test_a_saddle_is_refused() -> None:
    with pytest.raises(
        TrainingError, match=r"curvature -1 along a direction.*linearize the network, or use a larger l2"
    ):
        inverse_product(lambda u: -u, torch.ones(3))
    fine = inverse_product(lambda u: -u, torch.ones(3), damping=2.0)
    torch.testing.assert_close(fine, torch.ones(3))


@pytest.mark.parametrize("options", [{"solver": "lu"}, {"steps": 0}, {"damping": -1.0}])
def test_options(options: dict[str, Any]) -> None:
    with pytest.raises(ModicumError, match="expected 'cg' or 'gradient', at least one step, and a damping >= 0"):
        inverse_product(lambda u: u, torch.ones(3), **options)
