from typing import Any

import pytest
import torch
from torch import Tensor

from modicum.context import generator
from modicum.distillation import fc_ntk, kernel_weights, kip_loss, kip_predict, label_solve
from modicum.errors import DataError, ModicumError, TrainingError

REG = 1e-6


def problem(m: int = 6, k: int = 40) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A support within its targets: (m, m) and (k, m) kernels, and labels of both."""
    x = torch.randn(k, 5, generator=generator(0, "ridge"), dtype=torch.float64)
    labels = torch.nn.functional.one_hot(torch.arange(k) % 3, 3).double() - 1 / 3
    return fc_ntk(x[:m], x[:m]), fc_ntk(x, x[:m]), labels[:m].clone(), labels


def test_it_is_ridge_regression() -> None:
    kernel_ss, kernel_ts, y_s, y_t = problem()
    ridge = 0.1 * kernel_ss.trace() / 6 * torch.eye(6)
    expected = kernel_ts @ torch.linalg.inv(kernel_ss + ridge) @ y_s
    torch.testing.assert_close(kip_predict(kernel_ss, kernel_ts, y_s, 0.1), expected)
    torch.testing.assert_close(
        kip_loss(kernel_ss, kernel_ts, y_s, y_t, 0.1), (expected - y_t).square().sum() / 2 / (40 * 3)
    )


def test_all_samples_and_no_ridge_leave_no_error() -> None:
    kernel, _, y, _ = problem(m=20)
    assert float(kip_loss(kernel, kernel, y, y, 0.0)) < 1e-20


def test_the_residual_of_solved_labels_is_orthogonal_to_what_labels_can_do() -> None:
    kernel_ss, kernel_ts, _, y_t = problem()
    a = kernel_weights(kernel_ss, kernel_ts.T, REG).T
    residual = a @ label_solve(kernel_ss, kernel_ts, y_t, REG) - y_t
    assert float((a.T @ residual).abs().max()) < 1e-8


def test_solved_labels_are_the_best() -> None:
    kernel_ss, kernel_ts, y_s, y_t = problem()
    best = label_solve(kernel_ss, kernel_ts, y_t, REG)
    least = kip_loss(kernel_ss, kernel_ts, best, y_t, REG)
    assert float(least) < float(kip_loss(kernel_ss, kernel_ts, y_s, y_t, REG))
    for seed in range(5):
        other = best + 0.1 * torch.randn(6, 3, generator=generator(seed, "labels"), dtype=torch.float64)
        assert float(least) < float(kip_loss(kernel_ss, kernel_ts, other, y_t, REG))


def test_of_many_best_labels_the_smallest() -> None:
    """With fewer targets than support samples many labels answer them all."""
    kernel_ss, kernel_ts, _, y_t = problem()
    found = label_solve(kernel_ss, kernel_ts[20:23], y_t[20:23], REG)
    assert float(kip_loss(kernel_ss, kernel_ts[20:23], found, y_t[20:23], REG)) < 1e-16
    a = kernel_weights(kernel_ss, kernel_ts[20:23].T, REG).T
    torch.testing.assert_close(found, a.T @ torch.linalg.solve(a @ a.T, y_t[20:23]), rtol=1e-6, atol=1e-9)


def test_the_order_of_the_support_does_not_matter() -> None:
    kernel_ss, kernel_ts, y_s, y_t = problem()
    order = torch.randperm(6, generator=generator(1))
    permuted = kip_loss(kernel_ss[order][:, order], kernel_ts[:, order], y_s[order], y_t, REG)
    torch.testing.assert_close(permuted, kip_loss(kernel_ss, kernel_ts, y_s, y_t, REG), rtol=1e-9, atol=0)


def test_gradients() -> None:
    kernel_ss, kernel_ts, y_s, y_t = problem(4, 7)
    assert torch.autograd.gradcheck(
        lambda s, t, y: kip_loss((s + s.T) / 2, t, y, y_t, 0.01),
        (kernel_ss.requires_grad_(), kernel_ts.requires_grad_(), y_s.requires_grad_()),
    )


def test_equal_samples_without_a_ridge() -> None:
    x = torch.ones(2, 3, dtype=torch.float64)
    y = torch.eye(2, dtype=torch.float64)
    with pytest.raises(
        TrainingError, match=r"reg=0\.0 is not positive definite; support samples are equal or not finite"
    ):
        kernel_weights(x @ x.T, y, 0.0)
    assert bool(kernel_weights(x @ x.T, y, 1e-3).isfinite().all())


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"kernel_ss": torch.zeros(6, 5)},
            r"kernel_(ss|ts) is \(.*\); expected \(m, m\)|kernel_ts is \(40, 6\) and kernel_ss",
        ),
        (
            {"kernel_ts": torch.zeros(40, 5)},
            r"kernel_ts is \(40, 5\) and kernel_ss \(6, 6\); expected \(k, m\) and \(m, m\)",
        ),
        ({"labels_s": torch.zeros(5, 3)}, r"labels_s is \(5, 3\); expected \(6, c\), one row a support sample"),
        ({"labels_t": torch.zeros(39, 3)}, r"labels_t is \(39, 3\); expected \(40, 3\), one row a target"),
    ],
)
def test_errors_of_shapes(changes: dict[str, Tensor], message: str) -> None:
    given: dict[str, Any] = dict(zip(("kernel_ss", "kernel_ts", "labels_s", "labels_t"), problem(), strict=True))
    with pytest.raises(DataError, match=message):
        kip_loss(**{**given, **changes})


def test_errors_of_the_ridge() -> None:
    kernel, _, y, _ = problem()
    with pytest.raises(ModicumError, match=r"reg=-1.0 with torch.float64; expected a number >= 0"):
        kernel_weights(kernel, y, -1.0)
    with pytest.raises(ModicumError, match=r"reg=1e-09 with torch.float32; expected a number >= 0, in float32 >= 1e-8"):
        kernel_weights(kernel.float(), y.float(), 1e-9)
