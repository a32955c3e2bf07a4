"""LASSO of many targets on the same columns, all at once."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["MOST", "Columns", "Folds", "lasso", "least_squares"]

MOST = 20_000  # steps of descent; only a tiny penalty on more columns than rows needs as many
TINY = 1e-30
LOOSE = 3e-3  # gap that is enough to compare penalties, as a share of the variance
EVERY = 5  # steps between two looks at the gap
STEPS, DECADES, PATIENCE = 16, 2.0, 2  # of the path of penalties


class Columns:
    """Columns that targets are regressed on, less their means: products with their second moments `X'X / M`.

    The moments themselves (n, n) are kept only where they take less memory and time than the columns do.

    Args:
        x: (M, n) float64.
    """

    def __init__(self, x: Tensor) -> None:
        self.mean = x.mean(0)
        self.x = x - self.mean
        m, n = x.shape
        self.moments = self.x.T @ self.x / m if n <= 2 * m else None
        # a step may be a third longer than this bound allows before the descent with momentum is unstable
        direction = torch.ones(n, dtype=x.dtype, device=x.device) + torch.arange(n, device=x.device) / n
        for _ in range(100):
            direction = self.times(direction / direction.norm().clamp_min(TINY))
        self.largest = 1.02 * float(direction.norm())

    def times(self, weights: Tensor) -> Tensor:
        """(n, t) product of the second moments with weights."""
        if self.moments is not None:
            return self.moments @ weights
        return self.x.T @ (self.x @ weights) / len(self.x)

    def with_(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """(n, t) mean products with targets (M, t), and (t,) their variances."""
        centered = outputs - outputs.mean(0)
        return self.x.T @ centered / len(self.x), centered.square().mean(0)


def lasso(
    columns: Columns,
    products: Tensor,
    variances: Tensor,
    beta: Tensor,
    start: Tensor,
    l2: float,
    tolerance: float,
    most: int = MOST,
) -> Tensor:
    """(n, t) weights that minimize `(1/M) ||y - X w||^2 + beta ||w||_1 + l2 ||w||^2` for each target.

    Accelerated proximal gradient descent with a restart for each target where its momentum points uphill. A target
    leaves once its duality gap is below `tolerance` times its variance.

    Args:
        columns: What the targets are regressed on.
        products: (n, t) see `Columns.with_`.
        variances: (t,) of the targets.
        beta: (t,) penalties on the absolute weights.
        start: (n, t) first guess.
        l2: Penalty on the squared weights.
        tolerance: See above.
        most: Steps after which it ends all the same.
    """
    found, step = start.clone(), 1 / (columns.largest + l2) if columns.largest + l2 > 0 else 0.0
    alive = torch.arange(len(beta), device=beta.device)
    weights = ahead = found
    age = torch.ones_like(beta)
    for count in range(most):
        threshold = step * beta[alive] / 2
        gradient = columns.times(ahead) + l2 * ahead - products[:, alive]
        moved = ahead - step * gradient
        new = moved - moved.clamp(-threshold, threshold)
        change = new - weights
        age = torch.where(((ahead - new) * change).sum(0) > 0, 1.0, age)
        older = (1 + (1 + 4 * age.square()).sqrt()) / 2
        ahead, weights = new + (age - 1) / older * change, new
        age = older
        if count % EVERY == EVERY - 1:
            gap = _gap(columns, weights, products[:, alive], variances[alive], beta[alive], l2)
            going = gap > tolerance * variances[alive]
            if not bool(going.all()):
                found[:, alive] = weights
                alive, weights, ahead, age = alive[going], weights[:, going], ahead[:, going], age[going]
                if not len(alive):
                    return found
    found[:, alive] = weights
    return found


def _gap(columns: Columns, weights: Tensor, products: Tensor, variances: Tensor, beta: Tensor, l2: float) -> Tensor:
    """(t,) by how much half of the objective may still fall at most."""
    moved = columns.times(weights) + l2 * weights
    explained = (weights * products).sum(0)
    residual = (variances - 2 * explained + (weights * moved).sum(0)).clamp_min(0)
    primal = residual / 2 + beta / 2 * weights.abs().sum(0)
    largest = (products - moved).abs().amax(0).clamp_min(TINY)
    scale = (beta / 2 / largest).clamp_max(1)
    dual = scale * (variances - explained) - scale.square() * residual / 2
    return primal - dual


def least_squares(columns: Columns, products: Tensor, l2: float) -> Tensor:
    """(n, t) weights that minimize `(1/M) ||y - X w||^2 + l2 ||w||^2`; the shortest ones where several do.

    Args:
        columns: What the targets are regressed on.
        products: (n, t) see `Columns.with_`.
        l2: Penalty on the squared weights.
    """
    m, n = columns.x.shape
    if n <= m:
        moments = columns.moments if columns.moments is not None else columns.x.T @ columns.x / m
        values, vectors = torch.linalg.eigh(moments)
    else:  # the same eigenvectors from the smaller product of the rows
        values, rows = torch.linalg.eigh(columns.x @ columns.x.T / m)
        vectors = columns.x.T @ (rows / (m * values.clamp_min(TINY)).sqrt())
    known = values > 1e-12 * values[-1]
    vectors, values = vectors[:, known], values[known]
    weights: Tensor = vectors @ ((vectors.T @ products) / (values + l2)[:, None])
    return weights


class Folds:
    """Columns without each part of their rows, in single precision: enough to compare penalties, and twice as fast.

    Args:
        x: (M, n).
        count: Parts, in the order of the rows.
    """

    def __init__(self, x: Tensor, count: int) -> None:
        self.x = x.float()
        parts = torch.arange(len(x), device=x.device).tensor_split(count)
        self.parts = [(torch.cat([p for p in parts if p is not part]), part) for part in parts]
        self.columns = [Columns(self.x[rest]) for rest, _ in self.parts]

    def penalties(self, outputs: Tensor, highest: Tensor, l2: float) -> Tensor:
        """The penalty of each target that predicts rows which were left out best.

        The penalties fall from the highest by two powers of ten in 16 steps; a target stops when two lower ones in a row
        were no better than its best.

        Args:
            outputs: (M, t) targets.
            highest: (t,) least penalty at which all weights of a target are zero.
            l2: Penalty on the squared weights.

        Returns:
            (t,) penalties.
        """
        y, highest = outputs.float(), highest.float()
        least, chosen = torch.full_like(highest, torch.inf), highest.clone()
        worse = torch.zeros_like(highest, dtype=torch.int64)
        known = [columns.with_(y[rest]) for columns, (rest, _) in zip(self.columns, self.parts)]
        weights = [torch.zeros_like(products) for products, _ in known]
        alive = torch.arange(len(highest), device=y.device)
        for step in range(STEPS + 1):
            beta = highest[alive] * 10 ** (-DECADES * step / STEPS)
            error = torch.zeros_like(beta)
            for k, (rest, out) in enumerate(self.parts):
                columns, products, variances = self.columns[k], known[k][0][:, alive], known[k][1][alive]
                found = lasso(columns, products, variances, beta, weights[k][:, alive], l2, LOOSE)
                weights[k][:, alive] = found
                guessed = (self.x[out] - columns.mean) @ found + y[rest][:, alive].mean(0)
                error += (y[out][:, alive] - guessed).square().sum(0)
            better = error < least[alive]
            at = alive[better]
            least[at], chosen[at], worse[at] = error[better], beta[better], 0
            worse[alive[~better]] += 1
            alive = alive[worse[alive] < PATIENCE]
            if not len(alive):
                break
        return chosen.to(outputs.dtype)
