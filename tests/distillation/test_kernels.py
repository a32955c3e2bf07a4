import pytest
import torch

from modicum.context import generator
from modicum.distillation import fc_ntk, kernel_of, laplace, rbf
from modicum.errors import DataError, ModicumError


def inputs(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, 3, generator=generator(seed, "kernels"), dtype=torch.float64)


@pytest.mark.parametrize("kernel, power, gamma", [(rbf, 2, 1 / 6), (laplace, 1, 6**-0.5)])
def test_they_are_functions_of_the_distance(kernel, power: int, gamma: float) -> None:
    x, y = inputs(4), inputs(3, 1)
    distance = torch.cdist(x.flatten(1), y.flatten(1))
    torch.testing.assert_close(kernel(x, y), torch.exp(-gamma * distance**power))
    torch.testing.assert_close(kernel(x, y, 0.7), torch.exp(-0.7 * distance**power))
    assert torch.equal(kernel(x, x).diagonal(), torch.ones(4, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda a: kernel(a, y), x.requires_grad_())


@pytest.mark.parametrize("kernel", [rbf, laplace])
def test_equal_inputs_have_a_gradient(kernel) -> None:
    x = inputs(3).requires_grad_()
    (slope,) = torch.autograd.grad(kernel(x, x).sum(), x)
    assert bool(slope.isfinite().all())


def test_by_name() -> None:
    x = inputs(3)
    assert torch.equal(kernel_of("fc_ntk(depth=2, b_std=0.5)")(x, x), fc_ntk(x, x, 2, b_std=0.5))
    assert torch.equal(kernel_of("rbf")(x, x), rbf(x, x))


def test_errors() -> None:
    x = inputs(2)
    with pytest.raises(ModicumError, match="kernel 'ntk' is unknown; expected one of fc_ntk, conv_ntk, rbf, laplace"):
        kernel_of("ntk")
    with pytest.raises(ModicumError, match="kernel 'rbf' has no option 'depth'; its options are gamma"):
        kernel_of("rbf(depth=2)")
    with pytest.raises(ModicumError, match=r"gamma=0; expected a number > 0, or None"):
        rbf(x, x, 0)
    with pytest.raises(DataError, match=r"x1 is \(2, 2, 3\) and x2 \(2, 2\)"):
        laplace(x, x[:, :, 0])
