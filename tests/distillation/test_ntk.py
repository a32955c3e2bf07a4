import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.func import jacrev

from modicum.context import generator
from modicum.distillation import fc_ntk, fc_ntk_diagonal
from modicum.distillation.ntk import relu_layer
from modicum.errors import DataError, ModicumError


def inputs(n: int, d: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=generator(seed, "inputs"), dtype=torch.float64)


def waves() -> tuple[Tensor, Tensor]:
    """Two inputs that anybody can write down."""
    x = (torch.arange(144, dtype=torch.float64).square() / 7).sin().reshape(2, 72)
    return x[:1], x[1:]


def test_one_hidden_layer_of_an_input_with_itself() -> None:
    """With weights of variance 2 and biases of 0.01, the kernel is 2 p + 0.01 with p = 2 |x|^2 / d + 0.01."""
    x = inputs(5)
    p = 2 * x.square().sum(1) / 6 + 0.01
    torch.testing.assert_close(fc_ntk(x, x, 1).diagonal(), 2 * p + 0.01, rtol=0, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_diagonal_is_that_of_the_kernel(depth: int) -> None:
    x = inputs(7)
    torch.testing.assert_close(
        fc_ntk_diagonal(x, depth, b_std=0.3), fc_ntk(x, x, depth, b_std=0.3).diagonal(), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("depth, expected", [(1, 0.32644697878792645), (3, 1.1092622196332402)])
def test_numbers_of_another_library(depth: int, expected: float) -> None:
    """What neural-tangents 0.6.5 says in double precision of ReLU networks of weights sqrt 2 and biases 0.1."""
    assert float(fc_ntk(*waves(), depth)) == pytest.approx(expected, rel=1e-13)


def test_the_recursion_written_out() -> None:
    """One pair, by numerical integration of the Gaussian expectations."""
    a, b = inputs(2, seed=3)
    s, shift = 2.0, 0.01
    p, q, r = (float(s * (u @ v) / 6 + shift) for u, v in ((a, a), (b, b), (a, b)))
    grid = torch.linspace(-7, 7, 1201, dtype=torch.float64)
    u, w = grid[:, None], grid[None]
    density = torch.exp(-(u**2 + w**2) / 2) / (2 * math.pi) * (grid[1] - grid[0]) ** 2
    left, right = math.sqrt(p) * u, r / math.sqrt(p) * u + math.sqrt(q - r * r / p) * w
    both = (density * left.clamp(min=0) * right.clamp(min=0)).sum()
    on = (density * (left > 0) * (right > 0)).sum()
    expected = s * both + shift + s * on * r
    assert float(fc_ntk(a[None], b[None])) == pytest.approx(float(expected), abs=0.01)


@pytest.mark.parametrize("depth, width, draws, tolerance", [(1, 8192, 8, 0.02), (2, 384, 24, 0.06)])
def test_wide_networks_come_to_it(depth: int, width: int, draws: int, tolerance: float) -> None:
    """The products of gradients of finite networks, by automatic differentiation."""
    x, total = inputs(3, 16), torch.zeros(3, 3, dtype=torch.float64)

    def outputs(parameters: list[tuple[Tensor, Tensor]]) -> Tensor:
        h = x
        for k, (weight, bias) in enumerate(parameters):
            h = 2**0.5 * (h.relu() if k else h) @ weight.T / h.shape[1] ** 0.5 + 0.1 * bias
        return h[:, 0]

    for draw in range(draws):
        g, sizes = generator(draw, "wide"), [16, *[width] * depth, 1]
        parameters = [
            (
                torch.randn(m, n, generator=g, dtype=torch.float64),
                torch.randn(m, generator=g, dtype=torch.float64),
            )
            for n, m in pairwise(sizes)
        ]
        slopes = torch.cat([t.flatten(1) for pair in jacrev(outputs)(parameters) for t in pair], 1)
        total += slopes @ slopes.T / draws
    expected = fc_ntk(x, x, depth)
    assert float((total - expected).abs().max() / expected.abs().max()) < tolerance


def test_gradients_of_two_orders() -> None:
    x, y = inputs(3).requires_grad_(), inputs(4, seed=1)
    assert torch.autograd.gradcheck(lambda a: fc_ntk(a, y, 2), x)
    assert torch.autograd.gradgradcheck(lambda a: fc_ntk(a, y, 2), x)


def test_equal_inputs_have_the_gradient_of_the_diagonal() -> None:
    x = inputs(4).requires_grad_()
    (one,) = torch.autograd.grad(fc_ntk(x, x, 3).diagonal().sum(), x)
    (two,) = torch.autograd.grad(fc_ntk_diagonal(x, 3).sum(), x)
    torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)
    twice = torch.cat([x, x])
    assert bool(torch.autograd.grad(fc_ntk(twice, twice, 2).sum(), x)[0].isfinite().all())


def test_zero_inputs_without_biases_have_no_kernel() -> None:
    x = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    kernel = fc_ntk(x, x, 2, b_std=0.0)
    assert float(kernel.detach().abs().max()) < 1e-100
    assert bool(torch.autograd.grad(kernel.sum(), x)[0].isfinite().all())


def test_covariances_of_relu_outputs() -> None:
    one = torch.ones((), dtype=torch.float64)
    for covariance, both, on in ((1.0, 0.5, 0.5), (0.0, 1 / (2 * math.pi), 0.25), (-1.0, 0.0, 0.0)):
        found = relu_layer(one * covariance, one, one)
        assert [float(v) for v in found] == pytest.approx([both, on], abs=1e-14)


def test_single_precision() -> None:
    x, y = inputs(5), inputs(4, seed=1)
    found = fc_ntk(x.float(), y.float(), 3)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, fc_ntk(x, y, 3).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"depth": 0}, "depth=0; expected an integer >= 1"),
        ({"depth": 1.5}, "depth=1.5; expected an integer >= 1"),
        ({"w_std": 0.0}, "w_std=0.0, b_std=0.1; expected w_std > 0"),
        ({"b_std": -1.0}, "b_std=-1.0; expected w_std > 0 and b_std >= 0"),
    ],
)
def test_errors_of_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ModicumError, match=message):
        fc_ntk(inputs(2), inputs(2), **options)  # type: ignore[arg-type]


def test_errors_of_inputs() -> None:
    with pytest.raises(DataError, match=r"x1 is \(2, 6\) and x2 \(2, 5\); expected"):
        fc_ntk(inputs(2), inputs(2, 5))
    with pytest.raises(DataError, match=r"x1 is torch.float64 and x2 torch.float32; expected one floating dtype"):
        fc_ntk(inputs(2), inputs(2).float())
