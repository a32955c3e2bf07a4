"""Kernel ridge regression: the closed form that samples and labels are learned through."""

from __future__ import annotations

import torch
from torch import Tensor

from modicum.errors import DataError, ModicumError, TrainingError

__all__ = ["kernel_weights", "kip_loss", "kip_predict", "label_solve"]

SMALLEST = {torch.float64: 0.0, torch.float32: 1e-8}  # relative ridge below which a solution is rounding only


def kernel_weights(kernel_ss: Tensor, labels_s: Tensor, reg: float = 1e-6) -> Tensor:
    """What kernel ridge regression multiplies the kernel with.

    `(K_ss + l I)^-1 Y_s` with `l = reg tr(K_ss) / m`, by the Cholesky factor.

    Args:
        kernel_ss: (m, m) kernel of the support with itself.
        labels_s: (m, c) labels of the support, such as one-hot rows less 1 / c.
        reg: Ridge, relative to the mean of the diagonal.

    Returns:
        (m, c), differentiable.

    Raises:
        DataError: Shapes do not fit.
        ModicumError: The ridge is negative, or too small for the dtype.
        TrainingError: The matrix is not positive definite: samples come twice and the ridge is too small.

    Example:
        >>> kernel_weights(torch.eye(2), torch.tensor([[1.0], [3.0]]), reg=1.0)
        tensor([[0.5000],
                [1.5000]])

    Reference:
        Nguyen, Chen and Lee, Dataset Meta-Learning from Kernel Ridge-Regression, 2021, arXiv 2011.00050.
    """
    if kernel_ss.ndim != 2 or kernel_ss.shape[0] != kernel_ss.shape[1] or not len(kernel_ss):
        raise DataError(f"kernel_ss is {tuple(kernel_ss.shape)}; expected (m, m), the support with itself")
    if labels_s.ndim != 2 or len(labels_s) != len(kernel_ss):
        raise DataError(
            f"labels_s is {tuple(labels_s.shape)}; expected ({len(kernel_ss)}, c), one row a support sample"
        )
    if not 0 <= reg < float("inf") or reg < SMALLEST.get(kernel_ss.dtype, 1e-4):
        raise ModicumError(f"reg={reg!r} with {kernel_ss.dtype}; expected a number >= 0, in float32 >= 1e-8")
    factor, info = torch.linalg.cholesky_ex(_ridged(kernel_ss, reg))
    if int(info):
        raise TrainingError(
            f"kernel_ss with reg={reg!r} is not positive definite; support samples are equal or not finite: "
            "use a larger reg, float64, or other samples"
        )
    return torch.cholesky_solve(labels_s.to(factor), factor)


def kip_predict(kernel_ss: Tensor, kernel_ts: Tensor, labels_s: Tensor, reg: float = 1e-6) -> Tensor:
    """What kernel ridge regression on the support says of targets: `K_ts (K_ss + l I)^-1 Y_s`.

    Args:
        kernel_ss: (m, m) kernel of the support with itself.
        kernel_ts: (k, m) kernel of the targets with the support.
        labels_s: (m, c) labels of the support.
        reg: Ridge, relative to the mean of the diagonal of `kernel_ss`.

    Returns:
        (k, c) predictions in the coding of the labels; the class is the largest.

    Raises:
        DataError: Shapes do not fit.
        ModicumError: The ridge makes no sense.
        TrainingError: The matrix is not positive definite.

    Example:
        >>> kernel = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> kip_predict(kernel, kernel[:1], torch.tensor([[1.0], [3.0]]), reg=0.25)
        tensor([[0.8000]])

    Reference:
        Nguyen, Chen and Lee, Dataset Meta-Learning from Kernel Ridge-Regression, 2021, arXiv 2011.00050.
    """
    _check_targets(kernel_ss, kernel_ts)
    return kernel_ts @ kernel_weights(kernel_ss, labels_s, reg)


def kip_loss(kernel_ss: Tensor, kernel_ts: Tensor, labels_s: Tensor, labels_t: Tensor, reg: float = 1e-6) -> Tensor:
    """The error of kernel ridge regression on the support at the targets.

    `1/2 mean_{t, c} (K_ts (K_ss + l I)^-1 Y_s - Y_t)^2` with `l = reg tr(K_ss) / m`.

    Args:
        kernel_ss: (m, m) kernel of the support with itself.
        kernel_ts: (k, m) kernel of the targets with the support.
        labels_s: (m, c) labels of the support, such as one-hot rows less 1 / c.
        labels_t: (k, c) labels of the targets in the same coding.
        reg: Ridge, relative to the mean of the diagonal of `kernel_ss`.

    Returns:
        A scalar, differentiable in kernels and labels.

    Raises:
        DataError: Shapes do not fit.
        ModicumError: The ridge makes no sense.
        TrainingError: The matrix is not positive definite.

    Example:
        >>> x, y = torch.eye(2, dtype=torch.float64), torch.tensor([[0.5, -0.5], [-0.5, 0.5]], dtype=torch.float64)
        >>> round(float(kip_loss(x, x, y, y, reg=1.0)), 5)
        0.03125

    Reference:
        Nguyen, Chen and Lee, Dataset Meta-Learning from Kernel Ridge-Regression, 2021, arXiv 2011.00050.
    """
    _check_targets(kernel_ss, kernel_ts)
    _check_labels(kernel_ts, labels_t, labels_s.shape[-1])
    return 0.5 * (kip_predict(kernel_ss, kernel_ts, labels_s, reg) - labels_t).square().mean()


def label_solve(kernel_ss: Tensor, kernel_ts: Tensor, labels_t: Tensor, reg: float = 1e-6) -> Tensor:
    """The labels of the support with which kernel ridge regression has the least error at the targets.

    `Y_s = A^+ Y_t` with `A = K_ts (K_ss + l I)^-1` and its pseudo-inverse: least squares, and the smallest such labels.

    Args:
        kernel_ss: (m, m) kernel of the support with itself.
        kernel_ts: (k, m) kernel of the targets with the support.
        labels_t: (k, c) labels of the targets.
        reg: Ridge, relative to the mean of the diagonal of `kernel_ss`.

    Returns:
        (m, c) labels; memory is three times that of `kernel_ts`.

    Raises:
        DataError: Shapes do not fit.
        ModicumError: The ridge makes no sense.
        TrainingError: The matrix is not positive definite.

    Example:
        >>> kernel = torch.eye(2, dtype=torch.float64)
        >>> label_solve(kernel, kernel, torch.tensor([[1.0], [3.0]], dtype=torch.float64), reg=1.0).round(decimals=6)
        tensor([[2.],
                [6.]], dtype=torch.float64)

    Reference:
        Nguyen, Chen and Lee, Dataset Meta-Learning from Kernel Ridge-Regression, 2021, arXiv 2011.00050.
    """
    _check_targets(kernel_ss, kernel_ts)
    _check_labels(kernel_ts, labels_t, labels_t.shape[-1])
    answers = kernel_weights(kernel_ss, kernel_ts.T, reg).T
    found: Tensor = torch.linalg.pinv(answers) @ labels_t.to(answers)
    return found


def _ridged(kernel_ss: Tensor, reg: float) -> Tensor:
    return kernel_ss + reg * kernel_ss.diagonal().mean() * torch.eye(len(kernel_ss)).to(kernel_ss)


def _check_targets(kernel_ss: Tensor, kernel_ts: Tensor) -> None:
    if kernel_ts.ndim != 2 or kernel_ts.shape[1:] != kernel_ss.shape[-1:]:
        raise DataError(
            f"kernel_ts is {tuple(kernel_ts.shape)} and kernel_ss {tuple(kernel_ss.shape)}; expected (k, m) and (m, m)"
        )


def _check_labels(kernel_ts: Tensor, labels_t: Tensor, classes: int) -> None:
    if labels_t.shape != (len(kernel_ts), classes):
        raise DataError(
            f"labels_t is {tuple(labels_t.shape)}; expected ({len(kernel_ts)}, {classes}), one row a target"
        )
