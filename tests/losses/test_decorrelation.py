import pytest
import torch

from modicum.losses.decorrelation import off_diagonal_squares


@pytest.mark.parametrize("n, d", [(3, 8), (8, 8), (9, 4), (1, 5), (5, 1)])
@pytest.mark.parametrize("same", [True, False])
def test_both_routes_give_what_the_definition_gives(n, d, same):
    g = torch.Generator().manual_seed(n * d)
    a = torch.randn(n, d, generator=g, dtype=torch.float64, requires_grad=True)
    b = a if same else torch.randn(n, d, generator=g, dtype=torch.float64)
    product = a.T @ b
    expected = (product - product.diag().diag()).square().sum()
    found = off_diagonal_squares(a, b)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    wanted, got = (torch.autograd.grad(value, a)[0] for value in (expected, found))
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)


def test_of_many_dimensions_single_precision_is_enough():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(32, 512, generator=g), torch.randn(32, 512, generator=g)
    product = a.double().T @ b.double()
    exact = product.square().sum() - product.diag().square().sum()
    assert abs(float(off_diagonal_squares(a, b)) / float(exact) - 1) < 1e-6


def test_no_square_of_the_dimensions_is_made():
    wide = torch.ones(2, 100_000)  # its square would take 40 GB
    assert float(off_diagonal_squares(wide, wide)) == pytest.approx(4 * (1e10 - 1e5), rel=1e-5)
