"""Multinomial logistic regression, many subsets at once, each started from the solution of all samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from modicum.errors import DataError, TrainingError
from modicum.measurement.learners.problem import Outputs, Problem, counts_of, in_blocks

__all__ = ["Logistic"]

MEMORY = 10  # pairs of the quasi-Newton method


@dataclass(frozen=True)
class Logistic:
    """Minimizes `mean_i -log p_{y_i}(x_i) + l2 / 2 ||W||^2`, softmax over the classes of the subset, the bias free.

    L-BFGS starts every subset from the solution of all samples, with the inverse of each class's curvature there in place
    of the identity. It stops when no entry of the gradient exceeds the tolerance; the objective is strictly convex, so the
    start changes the probabilities by no more than that allows.
    scikit-learn's `LogisticRegression(C=1 / (l2 n))` is the same for three classes or more; for two it has half the penalty.
    Memory is O((n + d) c) for each subset and c d^2 for all.

    Args:
        l2: Penalty > 0 on the squared weights.
        loss: `mean`: the penalty stands beside the mean loss, whatever the size of the subset; `sum`: beside the sum.
        tolerance: > 0, largest entry of the gradient of the mean form at the end.
        iterations: After which a subset that has not converged is an error.

    Raises:
        DataError: A number makes no sense.
    """

    l2: float = 1e-2
    loss: Literal["mean", "sum"] = "mean"
    tolerance: float = 1e-6
    iterations: int = 500

    gives: ClassVar[Outputs] = "logits"
    reads: ClassVar[Literal["features", "inputs"]] = "features"
    costly: ClassVar[bool] = True
    any_subset: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("l2", "tolerance"):
            if not 0 < getattr(self, name) < float("inf"):
                raise DataError(f"{name}={getattr(self, name)}; expected a number > 0")
        if self.loss not in ("mean", "sum"):
            raise DataError(f"loss={self.loss!r}; expected 'mean' or 'sum'")
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 1:
            raise DataError(f"iterations={self.iterations!r}; expected an integer >= 1")

    def outputs(self, problem: Problem, masks: Tensor) -> Tensor:
        """Logits of each subset's solution."""
        if not problem.classes:
            raise DataError("the learner logistic is for classes, but the targets are for regression; use ridge or knn")
        x, queries = problem.centered()
        x, queries = _with_bias(x), _with_bias(queries)
        start = problem.once(f"{self!r} weights", lambda: self._everybody(problem, x))
        inverse = problem.once(f"{self!r} inverse", lambda: self._inverse(problem, x, (x @ start).softmax(-1)))

        def answer(part: Tensor) -> Tensor:
            weights = self._solve(problem, x, part, start.expand(len(part), -1, -1), inverse, self.tolerance)
            return queries @ weights + _absent(problem, part)

        return in_blocks(masks, self.room(problem), answer)

    def _everybody(self, problem: Problem, x: Tensor) -> Tensor:
        """The solution of all samples, roughly with a bound of the curvature and then with the curvature there."""
        everybody = torch.ones(1, len(x), dtype=torch.bool, device=x.device)
        weights = x.new_zeros(1, x.shape[1], problem.classes)
        even = x.new_full((len(x), problem.classes), 0.5)
        for spread, tolerance in ((even, max(1e-2, self.tolerance)), (None, self.tolerance)):
            given = (x @ weights[0]).softmax(-1) if spread is None else spread
            inverse = self._inverse(problem, x, given)
            weights = self._solve(problem, x, everybody, weights, inverse, tolerance)
        return weights[0]

    def _inverse(self, problem: Problem, x: Tensor, given: Tensor) -> Tensor:
        """(c, d + 1, d + 1) inverse of the curvature `sum_i p_i (1 - p_i) x_i x_i' / n + l2` of each class."""
        made = x.new_empty(problem.classes, x.shape[1], x.shape[1])
        for k, p in enumerate(given.T):
            curvature = x.T @ (x * (p * (1 - p) / len(x))[:, None])
            curvature.diagonal()[:-1] += self.l2 / (len(x) if self.loss == "sum" else 1)
            curvature.diagonal().add_(1e-4 * curvature.diagonal().mean() + torch.finfo(x.dtype).tiny)
            made[k] = torch.linalg.inv(curvature)
        return made

    def _solve(
        self, problem: Problem, x: Tensor, masks: Tensor, start: Tensor, inverse: Tensor, tolerance: float
    ) -> Tensor:
        """(b, d + 1, c) weights."""
        solver = _Solver(problem, x, masks, self.l2, self.loss, inverse)
        weights = start.masked_fill(solver.absent.isinf(), 0.0)
        made, active = weights.clone(), torch.arange(len(masks), device=x.device)
        for _ in range(self.iterations):
            worst = solver.begin(weights)
            busy = worst > tolerance
            made[active[~busy]] = weights[~busy]
            if not bool(busy.any()):
                break
            if not bool(busy.all()):
                solver.keep(busy)
                active, weights = active[busy], weights[busy]
            weights = solver.improve(weights)
        else:
            raise TrainingError(
                f"logistic regression has not converged on {len(active)} subsets after {self.iterations} iterations: the "
                f"gradient is {float(worst.max()):.2g}, expected {tolerance}; scale the features, or raise l2 or tolerance"
            )
        problem.charge("logistic regression", solver.passes * 4 * x.numel() * problem.classes)
        return made

    def start(self, problem: Problem, orders: Tensor) -> None:
        """It is trained anew for each subset."""

    def room(self, problem: Problem) -> int:
        """Of the probabilities, the pairs and the curvature."""
        n, d, c = *problem.features.shape, problem.classes
        return 4 * n * c + (2 * MEMORY + 6) * (d + 1) * c + len(problem.queries) * c

    def flops(self, problem: Problem, size: float) -> float:
        """Those of the iterations are counted as they happen; the rest is the answers."""
        d, c = problem.features.shape[1], problem.classes
        return 2 * len(problem.queries) * (d + 1) * c


class _Solver:
    """L-BFGS on many problems of the same shape, each with its own steps."""

    def __init__(self, problem: Problem, x: Tensor, masks: Tensor, l2: float, loss: str, inverse: Tensor) -> None:
        self.x, self.inverse = x, inverse
        size = masks.sum(1).double()
        self.share = masks.double() / size[:, None]
        self.target = problem.targets[:, None, None]
        self.absent = _absent(problem, masks)
        self.l2 = l2 / (size if loss == "sum" else torch.ones_like(size))[:, None, None]
        self.penalized = torch.ones(x.shape[1], 1, dtype=x.dtype, device=x.device)
        self.penalized[-1] = 0
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.value, self.gradient, self.passes = x.new_empty(0), x.new_empty(0), 0

    def begin(self, weights: Tensor) -> Tensor:
        """(b,) largest entry of the gradient here."""
        if not len(self.value):
            self.value, self.gradient = self._at(weights)
        return self.gradient.flatten(1).abs().amax(1)

    def _at(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Values (b,) and gradients."""
        b, d, c = weights.shape
        logits = (self.x @ weights.transpose(0, 1).reshape(d, -1)).reshape(-1, b, c) + self.absent[:, 0]
        share, at = self.share.T, self.target.expand(-1, b, 1)
        total = logits.logsumexp(-1)
        # samples of classes that are absent are no members and have the share 0, but an infinite loss
        losses = torch.where(share > 0, total - logits.gather(2, at)[..., 0], 0.0)
        rest = logits.sub_(total[..., None]).exp_().mul_(share[..., None])
        rest.scatter_add_(2, at, -share[..., None])
        gradient = (self.x.T @ rest.reshape(len(rest), -1)).reshape(d, b, c).transpose(0, 1)
        pull = self.l2 * self.penalized * weights
        self.passes += b
        return (losses * share).sum(0) + (pull * weights).sum((1, 2)) / 2, gradient + pull

    def improve(self, weights: Tensor) -> Tensor:
        """One step of each."""
        direction, steps = -self.gradient, []
        for s, y, scale in reversed(self.pairs):
            a = scale * (s * direction).sum((1, 2), keepdim=True)
            direction = direction - a * y
            steps.append(a)
        direction = (self.inverse @ direction.permute(2, 1, 0)).permute(2, 1, 0)
        for (s, y, scale), a in zip(self.pairs, reversed(steps)):
            direction = direction + s * (a - scale * (y * direction).sum((1, 2), keepdim=True))
        slope = (direction * self.gradient).sum((1, 2))
        length = torch.ones_like(slope)
        allowed = 1e-13 * (1 + self.value.abs())  # rounding of the values
        for _ in range(40):
            found = weights + length[:, None, None] * direction
            value, gradient = self._at(found)
            high = ~(value <= self.value + 1e-4 * length * slope + allowed)
            if not bool(high.any()):
                break
            length = torch.where(high, length / 2, length)
        s, y = found - weights, gradient - self.gradient
        product = (s * y).sum((1, 2), keepdim=True)
        scale = torch.where(product > 0, 1 / product, 0.0)
        self.pairs = [*self.pairs[-MEMORY + 1 :], (s, y, scale)]
        self.value, self.gradient = value, gradient
        return found

    def keep(self, which: Tensor) -> None:
        """Go on with these only."""
        for name in ("share", "absent", "l2", "value", "gradient"):
            setattr(self, name, getattr(self, name)[which])
        self.pairs = [(s[which], y[which], scale[which]) for s, y, scale in self.pairs]


def _absent(problem: Problem, masks: Tensor) -> Tensor:
    """(b, 1, c) zero, or -inf for classes that the subset has not."""
    return torch.where(counts_of(problem, masks) > 0, 0.0, -torch.inf).double()[:, None]


def _with_bias(rows: Tensor) -> Tensor:
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
