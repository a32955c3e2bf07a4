"""Softmax regression with all its derivatives in closed form: the convex head on an encoder's features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from modicum.errors import DataError, ModicumError, TrainingError
from modicum.measurement.inverse_hessian import solve_cg

__all__ = ["SoftmaxHead", "fit_softmax"]

BLOCK = 1 << 23  # numbers in a block
STEPS = 100


@dataclass(frozen=True, eq=False)
class SoftmaxHead:
    """Softmax regression `p = softmax(W [x, 1])` at weights W, on the samples it is trained on.

    Its loss is `sum_i w_i l_i + (l2/2) ||W||^2` with the cross-entropy l; P = c (d + 1) weights, in rows.

    Args:
        features: (n, d + 1) float64, the last column 1.
        targets: (n,) class indices.
        weights: (c, d + 1) W, float64.
        importance: (n,) w; 1/n each for the mean.
        l2: Coefficient of the penalty, on the intercept too.
    """

    features: Tensor
    targets: Tensor
    weights: Tensor
    importance: Tensor
    l2: float

    @cached_property
    def probabilities(self) -> Tensor:
        """(n, c) of the training samples."""
        return (self.features @ self.weights.T).softmax(1)

    def loss(self) -> float:
        """The loss with its penalty."""
        each = (self.features @ self.weights.T).log_softmax(1).gather(1, self.targets[:, None])[:, 0]
        return float(self.l2 / 2 * self.weights.square().sum() - self.importance @ each)

    def signals(self, features: Tensor, targets: Tensor) -> Tensor:
        """(m, c) `p - e_y` of any samples: the gradient of a sample's loss is the outer product with its features."""
        p = (features @ self.weights.T).softmax(1)
        p[torch.arange(len(p), device=p.device), targets] -= 1
        return p

    def mean_gradient(self, features: Tensor, targets: Tensor) -> Tensor:
        """(P,) the mean gradient of any samples, without the penalty."""
        return (self.signals(features, targets).T @ features).flatten() / len(features)

    def gradient(self) -> Tensor:
        """(P,) of the loss; zero where it was fit."""
        weighted = self.signals(self.features, self.targets) * self.importance[:, None]
        return (weighted.T @ self.features + self.l2 * self.weights).flatten()

    def products(self, vectors: Tensor, signals: Tensor | None = None) -> Tensor:
        """(n, k) products of every training sample's gradient with the columns of (P, k); no gradient is formed.

        Args:
            vectors: (P, k).
            signals: (n, c) in the place of `p - e_y`.
        """
        signals = self.signals(self.features, self.targets) if signals is None else signals
        c, d = self.weights.shape
        columns = vectors.T.reshape(-1, d).T  # (d, k c)
        parts = [
            torch.einsum("nkc,nc->nk", (x @ columns).view(len(x), -1, c), s) for x, s in self._blocks(columns, signals)
        ]
        return torch.cat(parts)

    def hessian_product(self, vectors: Tensor) -> Tensor:
        """`H V` for (P, k), `H = sum_i w_i (diag p - p p^T) x x^T + l2 I`; memory is that of n c numbers."""
        c, d = self.weights.shape
        columns = vectors.T.reshape(-1, d).T
        total = torch.zeros_like(columns)
        weighted = self.probabilities * self.importance[:, None]
        for x, (p, w) in zip(
            self._rows(self.features, columns),
            zip(self._rows(self.probabilities, columns), self._rows(weighted, columns)),
        ):
            moved = (x @ columns).view(len(x), -1, c)
            moved -= torch.einsum("nkc,nc->nk", moved, p)[..., None]
            moved *= w[:, None]
            total += x.T @ moved.flatten(1)
        return total.T.reshape(-1, c * d).T + self.l2 * vectors

    def hessian(self) -> Tensor:
        """(P, P), in n P^2 operations; memory is that of the matrix and of a block."""
        c, d = self.weights.shape
        total = torch.zeros(c * d, c * d, dtype=self.features.dtype, device=self.features.device)
        for x, p, w in zip(
            self._rows(self.features, total), self._rows(self.probabilities, total), self._rows(self.importance, total)
        ):
            spread = (p[:, :, None] * x[:, None]).flatten(1)
            for at in range(0, c * d, d):  # the upper triangle of blocks
                left = (spread[:, at : at + d] * w[:, None]).T
                total[at : at + d, at:] -= left @ spread[:, at:]
                total[at : at + d, at : at + d] += left @ x
        for at in range(0, c * d, d):
            total[at + d :, at : at + d] = total[at : at + d, at + d :].T
        total.diagonal().add_(self.l2)
        return total

    def left_out_signals(self, inverse: Tensor) -> Tensor:
        """(n, c) signals that make the prediction for leaving one sample out a Newton step on the others.

        `(I - w_i (diag p - p p^T) K_i)^-1 (p - e_y)` with the leverage `K_i = (I x x_i)^T H^-1 (I x x_i)`; for ridge
        regression the same step divides by 1 - leverage and is exact.

        Args:
            inverse: (P, P) of the Hessian; time is 2 n P^2.
        """
        c, d = self.weights.shape
        signals = self.signals(self.features, self.targets)
        eye = torch.eye(c, dtype=signals.dtype, device=signals.device)
        columns = inverse.reshape(c, d, c, d).permute(1, 0, 2, 3).reshape(d, -1)
        parts = []
        step = max(1, BLOCK // columns.shape[1])
        for start in range(0, len(signals), step):
            part = slice(start, start + step)
            x, p, w = self.features[part], self.probabilities[part], self.importance[part]
            leverage = torch.einsum("nabd,nd->nab", (x @ columns).view(len(x), c, c, d), x)
            curvature = w[:, None, None] * (torch.diag_embed(p) - p[:, :, None] * p[:, None])
            parts.append(torch.linalg.solve(eye - curvature @ leverage, signals[part]))
        return torch.cat(parts)

    def _blocks(self, columns: Tensor, signals: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(self._rows(self.features, columns), self._rows(signals, columns))

    def _rows(self, tensor: Tensor, columns: Tensor) -> Iterator[Tensor]:
        step = max(1, BLOCK // max(columns.shape[1], 1))
        yield from (tensor[start : start + step] for start in range(0, len(tensor), step))


def fit_softmax(
    features: Tensor,
    targets: Tensor,
    classes: int,
    l2: float = 1e-2,
    *,
    importance: Tensor | None = None,
    start: Tensor | None = None,
    tolerance: float = 1e-9,
) -> tuple[SoftmaxHead, int]:
    """Softmax regression to convergence, by Newton's method with conjugate gradients.

    Args:
        features: (n, d) numbers; the work is done in double precision.
        targets: (n,) class indices.
        classes: c.
        l2: Coefficient of the penalty `(l2/2) ||W||^2`, intercept included, beside the mean loss; above 0, so that the
            minimum exists and is the only one.
        importance: (n,) weights of the samples' losses; 1/n each when None.
        start: (c, d + 1) first weights; zero when None.
        tolerance: Norm of the gradient at which it ends.

    Returns:
        The head at its minimum, and how many products with its Hessian that took.

    Raises:
        DataError: The lengths differ or a target is not below c.
        ModicumError: l2 is not above 0.
        TrainingError: The gradient did not become small.

    Example:
        >>> head, _ = fit_softmax(torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1]), 2)
        >>> float(head.gradient().norm()) < 1e-9
        True
    """
    if len(features) != len(targets) or not len(targets):
        raise DataError(f"features have {len(features)} rows and targets {len(targets)}; expected as many, at least 1")
    if int(targets.max()) >= classes or int(targets.min()) < 0:
        raise DataError(f"targets reach from {int(targets.min())} to {int(targets.max())}; expected 0..{classes - 1}")
    if not l2 > 0:
        raise ModicumError(f"l2={l2!r}; expected a number > 0, without which the weights may grow without end")
    x = torch.ones(len(features), features.shape[1] + 1, dtype=torch.float64, device=features.device)
    x[:, :-1] = features
    w = torch.full_like(x[:, 0], 1 / len(x)) if importance is None else importance.double()
    weights = x.new_zeros(classes, x.shape[1]) if start is None else start.double()
    head, used = SoftmaxHead(x, targets.to(x.device), weights, w, l2), 0
    loss = head.loss()
    for _ in range(STEPS):
        g = head.gradient()
        size = float(g.norm())
        if size <= tolerance:
            return head, used
        calls = 0

        def product(v: Tensor, head: SoftmaxHead = head) -> Tensor:
            nonlocal calls
            calls += 1
            return head.hessian_product(v)

        # as exact as the step deserves: the convergence stays superlinear
        move = solve_cg(product, g, rtol=max(min(0.1, size), tolerance / size / 10, 1e-12)).view_as(weights)
        used, length = used + calls, 1.0
        slope = float(g @ move.flatten())
        while True:
            nearer = SoftmaxHead(x, head.targets, head.weights - length * move, w, l2)
            if (found := nearer.loss()) <= loss - 1e-4 * length * slope + 1e-13 * abs(loss):
                break
            length /= 2
            if length < 1e-8:
                raise TrainingError(
                    f"softmax regression stopped at a gradient of norm {size:.2g}; standardize features"
                )
        head, loss = nearer, found
    raise TrainingError(f"softmax regression has a gradient of norm {size:.2g} after {STEPS} Newton steps; raise l2")
