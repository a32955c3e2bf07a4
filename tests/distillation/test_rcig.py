from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.context import Context, generator
from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import RCIG, Linearized, implicit_gradient, ridge_predict
from modicum.distillation import rcig as module
from modicum.distillation.rcig import _Run
from modicum.errors import ModicumError
from modicum.models import ConvNet
from modicum.scores import Budget
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="mlp(hidden=8, layers=1)")
FAST = RCIG(iterations=3, pool=2, lifetime=4, batch_real=8, inner_steps=3, solver_steps=4, visit_steps=2)


def table(n: int = 60, d: int = 5) -> Splits:
    x = torch.randn(n, d, generator=generator(0, "table"))
    train = Dataset(x, torch.arange(n) % 2, info=Info(classes=("a", "b")))
    return Splits(train, train[:6], train[:6])


class Double(_Run):
    """In float64."""

    def __init__(self, method: RCIG, recipe: Recipe = RECIPE) -> None:
        super().__init__(method, table().train, Budget(per_class=2), recipe, Context())
        for name in ("inputs", "labels", "scale"):
            self.learned[name] = self.learned[name].detach().double().requires_grad_()

    def real(self, positions: Tensor) -> Tensor:
        return super().real(positions).double()


def linear_of(run: _Run) -> Linearized:
    return Linearized(run.pool.networks[0].double())


def test_the_linearization_is_the_network_and_its_derivative() -> None:
    network = ConvNet((1, 8, 8), 3, width=4).double()
    x = torch.rand((2, 1, 8, 8), generator=generator(0), dtype=torch.float64)
    linear = Linearized(network)
    u = torch.randn(linear.size, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(linear.at(x, torch.zeros_like(u))[1], network(x))
    torch.testing.assert_close(linear.at(x, torch.zeros_like(u))[0], network.features(x))
    step = 1e-6
    moved = ConvNet((1, 8, 8), 3, width=4).double()
    sides = []
    for sign in (1, -1):
        vector = nn.utils.parameters_to_vector(network.parameters()) + sign * step * u
        nn.utils.vector_to_parameters(vector, moved.parameters())
        sides.append((moved.features(x), moved(x)))
    change = linear.changed(x, u)[1]
    for ours, up, down in zip(change, *sides, strict=True):
        torch.testing.assert_close(ours, (up - down) / (2 * step), rtol=1e-5, atol=1e-6)


def test_the_jacobian_is_that_of_the_products() -> None:
    network = ConvNet((1, 8, 8), 3, width=4).double()
    x = torch.rand((2, 1, 8, 8), generator=generator(0), dtype=torch.float64)
    linear = Linearized(network)
    u = torch.randn(linear.size, generator=generator(1), dtype=torch.float64)
    jacobian = linear.jacobian(x)
    torch.testing.assert_close((jacobian @ u).view(2, 3), linear.changed(x, u)[1][1])
    leaves, _, outputs = linear.graph(x)
    slope = torch.randn((2, 3), generator=generator(2), dtype=torch.float64)
    torch.testing.assert_close(jacobian.T @ slope.flatten(), module.flat_vjp(outputs, leaves, slope))


@pytest.mark.parametrize("solver", ["gradient", "cg"])
@pytest.mark.parametrize("room", [0, 1 << 20])  # by passes, by the Jacobian
def test_the_step_is_the_implicit_gradient(solver: Any, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All by products with the linearized network, against automatic differentiation of the two losses."""
    monkeypatch.setattr(module, "JACOBIAN_BYTES", room)
    run = Double(replace(FAST, solver=solver, l2=0.1, reg=0.01, scale=5.0, lr_inner=0.01))
    linear, positions = linear_of(run), torch.arange(20)
    loss, inner, slopes = run.gradient(linear, positions)
    x, y, raw = (run.learned[name].detach() for name in ("inputs", "labels", "scale"))

    def inner_loss(u: Tensor, x: Tensor, y: Tensor, raw: Tensor) -> Tensor:
        return 0.5 * (linear.at(x, u)[1] - y).square().sum(1).mean() + 0.05 * u @ u

    def outer_loss(u: Tensor, x: Tensor, y: Tensor, raw: Tensor) -> Tensor:
        outputs = ridge_predict(linear.at(x, u)[0], y, linear.at(run.real(positions), u)[0], 0.01)
        return F.cross_entropy(F.softplus(raw) * outputs, run.real_labels[positions])

    u = torch.zeros(linear.size, dtype=torch.float64, requires_grad=True)
    adam, losses = torch.optim.Adam([u], 0.01), []
    for _ in range(3):
        adam.zero_grad()
        value = inner_loss(u, x, y, raw)
        value.backward()
        losses.append(float(value.detach()))
        adam.step()
    found, expected = implicit_gradient(inner_loss, outer_loss, u, (x, y, raw), solver=solver, steps=4)
    assert inner[:3] == pytest.approx(losses, rel=1e-10)
    assert loss == pytest.approx(float(found), rel=1e-10)
    for name, slope in zip(("inputs", "labels", "scale"), expected, strict=True):
        torch.testing.assert_close(slopes[name], slope, rtol=1e-6, atol=1e-9)


def test_at_the_minimum_it_is_the_derivative_of_the_whole_training() -> None:
    """The inner problem solved exactly, as a function of the samples, against differences."""
    run = Double(replace(FAST, inner_steps=1, solver="cg", solver_steps=200, l2=0.5, reg=0.1, scale=5.0))
    linear, positions = linear_of(run), torch.arange(20)
    raw = run.learned["scale"].detach()

    def solved(x: Tensor, y: Tensor) -> Tensor:
        jacobian = linear.jacobian(x) / len(x) ** 0.5
        misfit = (y - linear.at(x, torch.zeros(linear.size).double())[1]).flatten() / len(x) ** 0.5
        kernel = jacobian @ jacobian.T + 0.5 * torch.eye(len(jacobian)).double()
        return jacobian.T @ torch.linalg.solve(kernel, misfit)

    def total(x: Tensor, y: Tensor) -> Tensor:
        u = solved(x, y)
        outputs = ridge_predict(linear.at(x, u)[0], y, linear.at(run.real(positions), u)[0], 0.1)
        return F.cross_entropy(F.softplus(raw) * outputs, run.real_labels[positions])

    x, y = run.inputs.detach(), run.targets.detach()
    u = solved(x, y).detach()
    run.trained = lambda *_: (u, [1.0, 0.5])  # type: ignore[method-assign, assignment]
    _, _, slopes = run.gradient(linear, positions)
    direction = [torch.randn(t.shape, generator=generator(5), dtype=torch.float64) for t in (x, y)]
    ups, downs = ([t + s * 1e-5 * d for t, d in zip((x, y), direction, strict=True)] for s in (1, -1))
    slope = (total(*ups) - total(*downs)) / 2e-5
    ours = sum((slopes[name] * d).sum() for name, d in zip(("inputs", "labels"), direction, strict=True))
    assert ours.item() == pytest.approx(slope.item(), rel=1e-5)


def test_the_inner_rate_falls_where_trainings_rise_and_grows_where_all_fall() -> None:
    run = _Run(replace(FAST, pool=2, lr_inner=1.0), table().train, Budget(per_class=1), RECIPE, Context())
    assert run.adapted([1.0, 2.0]) == 1.0
    assert run.adapted([1.0, 0.5]) == pytest.approx(0.9)  # one of two rose
    run.adapted([3.0, 2.0, 1.0])
    assert run.adapted([3.0, 2.0, 1.0]) == pytest.approx(0.9 * 1.05)
    run.adapted([3.0, 4.0, 1.0])  # not at every step, but it does not rise
    assert run.adapted([3.0, 2.0, 1.0]) == pytest.approx(0.9 * 1.05)
    run.adapted([1.0, float("nan")])
    assert run.adapted([1.0, 0.5]) == pytest.approx(0.9 * 1.05 * 0.9)


def test_the_average_is_given() -> None:
    run = _Run(replace(FAST, ema=0.9), table().train, Budget(per_class=1), RECIPE, Context())
    before = run.inputs.detach().clone()
    run.step(0)
    decay = 1 / 10  # it starts low
    expected = decay * before + (1 - decay) * run.inputs.detach()
    torch.testing.assert_close(run.made()[0].inputs, expected)


def test_mirror_images_and_images() -> None:
    x = torch.rand((30, 3, 4, 4), generator=generator(0))
    data = Splits(*(Dataset(x, torch.arange(30) % 2, info=Info(modality="image", classes=("cat", "dog"))),) * 3)
    made = FAST.distill(data, Budget(per_class=1), Recipe(model="convnet(width=4)"), Context())
    assert made.recipe.loss == "mse"
    assert made.dataset.inputs.shape == (2, 3, 4, 4)
    assert bool(made.dataset.inputs.isfinite().all())


def test_it_learns_what_random_samples_do_not_tell() -> None:
    g = generator(7)
    y = torch.arange(400) % 2
    x = torch.randn((400, 10), generator=g)
    x[:, 0] += 2.0 * y - 1.0
    train = Dataset(x, y, info=Info(classes=("a", "b")))
    method = RCIG(
        iterations=50,
        lr_img=0.1,
        lr_label=0.01,
        pool=2,
        batch_real=400,
        scale=4.0,
        inner_steps=3,
        solver_steps=5,
        ema=0.9,
    )
    made = method.distill(Splits(train, train, train), Budget(per_class=1), Recipe(model="mlp(hidden=32)"), Context())
    losses = made.history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    direction = (made.dataset.inputs[1] - made.dataset.inputs[0]).abs()
    assert int(direction.argmax()) == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [({"l2": 0.0}, "l2=0.0; expected a number > 0"), ({"solver": "lu"}, "solver='lu'; expected 'gradient', 'cg'")],
)
def test_errors(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ModicumError, match=text):
        RCIG(**options)
