import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.errors import ModicumError
from modicum.measurement.eigenpairs import arnoldi, largest_eigenvalue
from modicum.measurement.inverse_hessian import solve_cg, solve_exact, solve_lissa

P = 40


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix(low=0.2, high=5.0, seed=0, size=P):
    q = torch.linalg.qr(numbers(size, size, seed=seed))[0]
    return (q * torch.linspace(low, high, size, dtype=torch.float64)) @ q.T


SOLVERS = {
    "exact": lambda h, b, delta: solve_exact(h, b, delta),
    "cg": lambda h, b, delta: solve_cg(lambda v: h @ v, b, delta, rtol=1e-9),
    "preconditioned": lambda h, b, delta: solve_cg(
        lambda v: h @ v, b, delta, rtol=1e-9, half=lambda v: v / h.diagonal().sqrt()[:, None]
    ),
    "lissa": lambda h, b, delta: solve_lissa(lambda v: h @ v, b, delta, rtol=1e-9),
    "arnoldi": lambda h, b, delta: arnoldi(lambda v: h @ v, h[0], iterations=len(h), rank=len(h)).solve(b, delta),
}


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("columns", [None, 1, 7, P + 5])
@pytest.mark.parametrize("delta", [0.0, 0.3])
def test_all_solvers_agree_on_a_quadratic(name, columns, delta):
    h = matrix()
    b = numbers(P, seed=1) if columns is None else numbers(P, columns, seed=1)
    wanted = torch.linalg.solve(h + delta * torch.eye(P, dtype=h.dtype), b)
    found = SOLVERS[name](h, b, delta)
    assert found.shape == b.shape
    assert (found - wanted).abs().max() <= 1e-6


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 1000))
def test_block_cg_equals_the_exact_solve(size, columns, seed):
    h, b = matrix(0.5, 3.0, seed, size), numbers(size, columns, seed=seed)
    torch.testing.assert_close(solve_cg(lambda v: h @ v, b, rtol=1e-10), torch.linalg.solve(h, b))


def test_many_right_hand_sides_take_fewer_products_than_one():
    calls = []

    def product(v):
        calls.append(v.shape[1])
        return matrix() @ v

    solve_cg(product, numbers(P, 1), rtol=1e-8)
    one = len(calls)
    solve_cg(product, numbers(P, 8), rtol=1e-8)
    assert len(calls) - one < one / 2


def test_a_good_preconditioner_takes_fewer_products():
    h = matrix(0.001, 10)
    values, vectors = torch.linalg.eigh(h)
    calls = []

    def product(v):
        calls.append(1)
        return h @ v

    b = numbers(P, 2)
    solve_cg(product, b, rtol=1e-8)
    plain = len(calls)
    half = vectors @ torch.diag((values * (1 + 0.1 * torch.rand(P))) ** -0.5) @ vectors.T
    found = solve_cg(product, b, rtol=1e-8, half=lambda v: half @ v)
    assert len(calls) - plain < plain / 2
    assert ((h @ found - b).norm(dim=0) <= 1e-8 * b.norm(dim=0)).all()


def test_right_hand_sides_that_repeat_or_vanish():
    h, b = matrix(), numbers(P, 3)
    b = torch.cat([b, b[:, :2], torch.zeros(P, 1)], 1)
    torch.testing.assert_close(solve_cg(lambda v: h @ v, b, rtol=1e-10), torch.linalg.solve(h, b))


def test_a_singular_matrix_is_solved_where_it_can_be():
    h = matrix(0.0)
    b = h @ numbers(P, 3)
    for found in (solve_exact(h, b), solve_cg(lambda v: h @ v, b, rtol=1e-9)):
        torch.testing.assert_close(h @ found, b, rtol=1e-6, atol=1e-7)


def test_cg_says_how_far_it_came():
    h = matrix(1e-6, 100.0)
    with pytest.warns(UserWarning, match="stopped after 5 products with a relative residual of .* raise delta"):
        solve_cg(lambda v: h @ v, numbers(P), max_iterations=5)


@pytest.mark.parametrize("name", ["exact", "cg"])
def test_negative_curvature_names_delta(name):
    with pytest.raises(ModicumError, match=r"negative curvature \(-.*\) with delta=0.1; .*raise delta"):
        SOLVERS[name](matrix(-2.0), numbers(P), 0.1)
    assert SOLVERS[name](matrix(-2.0), numbers(P), 3.0).isfinite().all()


def test_exact_refuses_what_is_too_large():
    with pytest.raises(ModicumError, match=r"matrix of 40 rows, more than the limit of 30; use 'cg', 'lissa' or"):
        solve_exact(matrix(), numbers(P), limit=30)


def test_lissa_damping_is_that_of_the_matrix_whatever_sigma_is():
    h, b = matrix(), numbers(P)
    wanted = torch.linalg.solve(h + 0.5 * torch.eye(P, dtype=h.dtype), b)
    for sigma in (5.5, 20.0):
        torch.testing.assert_close(solve_lissa(lambda v: h @ v, b, 0.5, sigma=sigma, rtol=1e-10), wanted)


def test_lissa_converges_within_the_spectrum_and_diverges_outside():
    h, b = matrix(), numbers(P)
    solve_lissa(lambda v: h @ v, b, sigma=2.6)  # 5 / 2.6 < 2
    for sigma, delta in ((2.4, 0.0), (2.6, 0.3)):
        with pytest.raises(ModicumError, match=f"lissa diverges after .* sigma={sigma} and delta={delta:.4g}"):
            solve_lissa(lambda v: h @ v, b, delta, sigma=sigma)
    with pytest.raises(ModicumError, match="raise sigma, or delta if H has negative eigenvalues"):
        solve_lissa(lambda v: matrix(-1.0) @ v, b)
    with pytest.raises(ModicumError, match="sigma=0"):
        solve_lissa(lambda v: h @ v, b, sigma=0.0)


def test_lissa_with_batches_comes_near():
    parts = [matrix(seed=s) for s in range(8)]
    h, b = sum(parts) / 8, numbers(P)
    found = solve_lissa(
        lambda v: h @ v, b, sigma=50.0, depth=2000, repeats=8, batch_product=lambda step, v: parts[step * 5 % 8] @ v
    )
    wanted = torch.linalg.solve(h, b)
    assert (found - wanted).norm() < 0.1 * wanted.norm()


def test_power_iteration_is_never_above():
    size = largest_eigenvalue(lambda v: matrix() @ v, numbers(P))
    assert 4.5 < size <= 5 + 1e-9
    assert largest_eigenvalue(lambda v: 0 * v, numbers(P)) == 0


def test_arnoldi_finds_the_top_eigenpairs():
    h = matrix()
    pairs = arnoldi(lambda v: h @ v, h[0], iterations=P, rank=5)
    torch.testing.assert_close(pairs.values, torch.linalg.eigvalsh(h).flip(0)[:5])
    torch.testing.assert_close(h @ pairs.vectors, pairs.vectors * pairs.values)
    torch.testing.assert_close(pairs.vectors.T @ pairs.vectors, torch.eye(5, dtype=h.dtype))
    b = numbers(P)
    beside = b - pairs.vectors @ (pairs.vectors.T @ b)
    assert pairs.solve(beside).norm() < 1e-9  # what is orthogonal to the pairs is left out


def test_arnoldi_signs_floor_and_early_stop():
    h = matrix(-4.0)
    kept = arnoldi(lambda v: h @ v, h[0], iterations=P, rank=10, keep_negative=True)
    dropped = arnoldi(lambda v: h @ v, h[0], iterations=P, rank=10)
    assert (kept.values < 0).any()
    assert (dropped.values > 0).all()
    assert (arnoldi(lambda v: h @ v, h[0], iterations=P, rank=P, floor=3.0).values > 3).all()
    low = numbers(P, 2, seed=3)
    pairs = arnoldi(lambda v: low @ (low.T @ v), low[:, 0], iterations=P, rank=P)
    assert len(pairs.values) == 2
    with pytest.raises(ModicumError, match=r"no eigenvalue is above floor=9"):
        arnoldi(lambda v: h @ v, h[0], iterations=P, floor=9.0)


def test_float32_reaches_its_tolerance():
    h, b = matrix().float(), numbers(P, 3).float()
    found = solve_cg(lambda v: h @ v, b)
    assert found.dtype == torch.float32
    assert math.isfinite(float(found.sum()))
    assert ((h @ found - b).norm(dim=0) <= 1.1e-4 * b.norm(dim=0)).all()
