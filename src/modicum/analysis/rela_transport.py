"""How much of one model's representation is a linear function of another's?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.context import generator
from modicum.errors import DataError, ModicumError
from modicum.measurement.softmax import fit_softmax

__all__ = ["Transport", "transport"]

GRID = tuple(10.0**k for k in range(-7, 2))


@dataclass(frozen=True)
class Transport:
    """How well features are predicted from other features, on samples that the map was not fitted to.

    Args:
        r2: Share of the variance that is explained; 0 is no better than the mean, and it may be negative.
        cosine: Mean cosine of predicted and true standardized features.
        accuracy: Of the target's classifier on its own features, where labels or a classifier were given.
        transported: Accuracy of the same classifier on the predicted features.
        alpha: The penalty that was used, for each sample.
    """

    r2: float
    cosine: float
    accuracy: float | None
    transported: float | None
    alpha: float

    @property
    def relative(self) -> float | None:
        """Transported over own accuracy; 1 when nothing is lost."""
        if self.accuracy is None or self.transported is None:
            return None
        return self.transported / self.accuracy if self.accuracy > 0 else math.nan


def transport(
    source: Tensor,
    target: Tensor,
    labels: Tensor | None = None,
    *,
    classifier: Callable[[Tensor], Tensor] | None = None,
    alpha: float | None = 1e-3,
    seed: int = 0,
) -> Transport:
    """Predict one model's features of samples from another's, by ridge regression.

    On a random half of the samples all columns are standardized and `(W, b) = argmin sum_i || A_i W + b - B_i ||^2 + alpha n
    || W ||^2` is fitted; on the other half `R^2 = 1 - sum || B - B' ||^2 / sum || B - mean B ||^2`, the mean cosine of B' and
    B, and the accuracy of a classifier of B on B' are taken. It is not symmetric: ask for both directions. With alpha = 0
    an invertible affine map of the source changes nothing.

    Time is n a (a + b) and that of one decomposition of size a.

    Args:
        source: (n, a) features A.
        target: (n, b) features B of the same samples.
        labels: (n,) class indices, for the accuracies.
        classifier: From target features (m, b), as they were given, to logits (m, c); softmax regression on the first half
            when None.
        alpha: Penalty for each sample; the best by generalized cross-validation when None.
        seed: Of the halves.

    Returns:
        R^2, cosine and accuracies on the second half.

    Raises:
        DataError: The samples differ in number, are too few, or features are not finite or all constant.
        ModicumError: alpha is negative.

    Example:
        >>> a = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        >>> b = a @ torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0])) + 1
        >>> round(transport(a, b, alpha=0.0).r2, 6)
        1.0

    Reference:
        Shi et al., Efficiency for Free: Ideal Data Are Transportable Representations, 2024, arXiv 2405.14669 (the idea;
        the numbers are defined here).
    """
    _check(source, target, labels, alpha)
    if classifier is not None and labels is None:
        raise DataError("a classifier is given without labels; its accuracy needs both")
    n = len(source)
    order = torch.randperm(n, generator=generator(seed, "transport")).to(source.device)
    first, second = order[: n // 2], order[n // 2 :]
    x, *_ = _standardized("source", source, first)
    y, y_mean, y_scale = _standardized("target", target, first)
    if alpha == 0 and len(first) <= source.shape[1]:
        raise DataError(
            f"alpha=0 with {len(first)} samples to fit {source.shape[1]} columns of the source; expected more samples than "
            "columns, or alpha > 0"
        )
    a, b = x[first], y[first]
    if alpha is None:
        alpha = _cross_validated(a, b)
    weights = torch.linalg.lstsq(a, b, driver="gelsd").solution if alpha == 0 else _ridge(a, b, alpha)
    predicted, true = x[second] @ weights, y[second]
    spread = (true - true.mean(0)).square().sum()
    r2 = 1 - float((true - predicted).square().sum() / spread)
    cosine = float(F.cosine_similarity(predicted, true).mean())
    own = moved = None
    if labels is not None:
        if classifier is None:
            head, _ = fit_softmax(b, labels[first], int(labels.max()) + 1, tolerance=1e-6)
            logits = [f @ head.weights[:, :-1].T + head.weights[:, -1] for f in (true, predicted)]
        else:
            logits = [classifier((f * y_scale + y_mean).to(target.dtype)) for f in (true, predicted)]
        own, moved = (float((z.argmax(1) == labels[second]).double().mean()) for z in logits)
    return Transport(r2, cosine, own, moved, alpha)


def _ridge(a: Tensor, b: Tensor, alpha: float) -> Tensor:
    gram = a.T @ a
    gram.diagonal().add_(alpha * len(a))
    return torch.cholesky_solve(a.T @ b, torch.linalg.cholesky(gram))


def _cross_validated(a: Tensor, b: Tensor) -> float:
    """The penalty of the grid with the least n RSS / (n - df)^2."""
    n = len(a)
    u, s, _ = torch.linalg.svd(a, full_matrices=False)
    inside = u.T @ b
    outside = b.square().sum() - inside.square().sum()
    best = (math.inf, GRID[0])
    for alpha in GRID:
        shrunk = s.square() / (s.square() + alpha * n)
        residual = outside + ((1 - shrunk)[:, None] * inside).square().sum()
        free = n - 1 - float(shrunk.sum())
        best = min(best, (float(residual) * n / free**2 if free > 0 else math.inf, alpha))
    return best[1]


def _standardized(name: str, features: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = features.double()
    mean, deviation = x[rows].mean(0), x[rows].std(0, correction=0)
    alive = deviation > 1e-9 * deviation.max()
    if not float(deviation.max()) > 0:
        raise DataError(f"{name} features are constant; expected at least one column that varies")
    scale = torch.where(alive, deviation, 1.0)
    return (x - mean) / scale * alive, mean, scale


def _check(source: Tensor, target: Tensor, labels: Tensor | None, alpha: float | None) -> None:
    for name, features in (("source", source), ("target", target)):
        if features.ndim != 2 or not features.is_floating_point() or not features.shape[1]:
            raise DataError(
                f"{name} features are {features.dtype} of shape {tuple(features.shape)}; expected floating (n, d)"
            )
        if not bool(features.isfinite().all()):
            row = int((~features.isfinite()).any(1).nonzero()[0])
            raise DataError(f"{name} features of row {row} are not finite; expected finite numbers")
    if len(source) != len(target):
        raise DataError(
            f"source has {len(source)} rows and target {len(target)}; expected features of the same samples"
        )
    if len(source) < 4:
        raise DataError(f"there are {len(source)} samples; expected at least 4, half of them to fit and half to test")
    if labels is not None and (labels.shape != source.shape[:1] or labels.is_floating_point()):
        raise DataError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}; expected ({len(source)},) class indices"
        )
    if alpha is not None and not 0 <= alpha < math.inf:
        raise ModicumError(f"alpha={alpha!r}; expected a number >= 0, or None")
