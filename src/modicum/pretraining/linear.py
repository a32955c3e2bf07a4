"""Softmax regression on frozen features in seconds, for features that many classes and samples share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.context import generator
from modicum.errors import DataError, ModicumError

__all__ = ["LinearReader", "choose_l2", "fit_reader"]

GRID = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)
WIDEST = 4096  # features up to which the curvature bound is factored
STEPS = 100


@dataclass(frozen=True, eq=False)
class LinearReader:
    """A linear classifier of features standardized as those that it was fit on.

    Args:
        mean: (d,) of the features it was fit on.
        scale: (d,) one over their standard deviation, 0 where they do not vary.
        weights: (c, d) of the standardized features.
        bias: (c,).
        l2: Coefficient of its penalty.
        loss: Mean cross-entropy in nats and penalty where it was fit.
    """

    mean: Tensor
    scale: Tensor
    weights: Tensor
    bias: Tensor
    l2: float
    loss: float

    def predict(self, features: Tensor) -> Tensor:
        """(m,) the most probable classes of features (m, d)."""
        weights = self.weights * self.scale
        logits = features.to(weights) @ weights.T + (self.bias - weights @ self.mean)
        return logits.argmax(1)


def fit_reader(
    features: Tensor,
    labels: Tensor,
    classes: int,
    l2: float,
    start: LinearReader | None = None,
    standardize: bool = True,
) -> LinearReader:
    """Softmax regression on standardized features, intercept unpenalized, by L-BFGS in well-conditioned coordinates.

    The loss is `mean_i -log softmax(W x_i + b)[y_i] + (l2/2) ||W||^2`. Its Hessian is at most
    `(I/2) x (X^T X / n) + l2 I`; in the coordinates `V = W L` with the Cholesky factor `L L^T = X^T X / 2n + l2 I` the
    curvature is at most 1, so that tens of steps are enough where thousands are needed otherwise.

    Args:
        features: (n, d) numbers; the work is done in float32 on their device.
        labels: (n,) class indices.
        classes: c.
        l2: Coefficient of the penalty, above 0.
        start: A reader of the same features to start from.
        standardize: Whether features are brought to mean 0 and variance 1 first, or taken as they are.

    Returns:
        The reader.

    Raises:
        DataError: The lengths differ or a label is not below c.
        ModicumError: l2 is not above 0.

    Example:
        >>> reader = fit_reader(torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1]), 2, l2=0.01)
        >>> reader.predict(torch.tensor([[3.0], [-2.0]])).tolist()
        [1, 0]

    Reference:
        Böhning, Multinomial logistic regression algorithm, Annals of the Institute of Statistical Mathematics 44, 1992
        (the bound on the curvature).
    """
    if len(features) != len(labels) or not len(labels):
        raise DataError(f"features have {len(features)} rows and labels {len(labels)}; expected as many, at least 1")
    if int(labels.max()) >= classes or int(labels.min()) < 0:
        raise DataError(f"labels reach from {int(labels.min())} to {int(labels.max())}; expected 0..{classes - 1}")
    if not l2 > 0:
        raise ModicumError(f"l2={l2!r}; expected a number > 0, without which the weights may grow without end")
    mean, scale = standardizer(features)
    if not standardize:
        mean, scale = torch.zeros_like(mean), torch.ones_like(scale)
    x = (features.float() - mean) * scale
    found = _descend(x, labels.to(x.device).long(), classes, l2, start)
    return LinearReader(mean, scale, found[0], found[1], l2, found[2])


def standardizer(features: Tensor) -> tuple[Tensor, Tensor]:
    """(d,) mean and (d,) one over the standard deviation, 0 for what does not vary; float32."""
    rows = features.double()
    mean, std = rows.mean(0), rows.std(0, correction=0)
    floor = 1e-6 * std.max().clamp_min(1e-30)
    return mean.float(), torch.where(std > floor, 1 / std.clamp_min(floor), 0.0).float()


def _descend(
    x: Tensor, labels: Tensor, classes: int, l2: float, start: LinearReader | None, gram: Tensor | None = None
) -> tuple[Tensor, Tensor, float]:
    """Weights (c, d), bias (c,) and loss at the minimum, for features that are standardized already."""
    if len(x) < x.shape[1]:  # weights at the minimum are combinations of the samples
        basis, _ = torch.linalg.qr(x.T)
        few, bias, least = _descend(x @ basis, labels, classes, l2, None)
        return few @ basis.T, bias, least
    factor, z = None, x
    if x.shape[1] <= WIDEST:
        gram = x.T @ x / (2 * len(x)) if gram is None else gram
        factor = torch.linalg.cholesky(gram + l2 * torch.eye(len(gram), dtype=x.dtype, device=x.device))
        z = torch.linalg.solve_triangular(factor, x.T, upper=False).T.contiguous()

    def weights(v: Tensor) -> Tensor:
        return v if factor is None else torch.linalg.solve_triangular(factor, v, upper=False, left=False)

    v, b = x.new_zeros(classes, x.shape[1]), x.new_zeros(classes)
    if start is not None:
        v, b = start.weights.clone() if factor is None else start.weights @ factor, start.bias.clone()
    v.requires_grad_()
    b.requires_grad_()
    steps = torch.optim.LBFGS(
        [v, b],
        max_iter=STEPS,
        tolerance_grad=1e-4,
        tolerance_change=1e-9,
        history_size=10,
        line_search_fn="strong_wolfe",
    )
    loss = x.new_zeros(())

    def descend() -> Tensor:
        nonlocal loss
        steps.zero_grad()
        with torch.enable_grad():
            loss = F.cross_entropy(z @ v.T + b, labels) + l2 / 2 * weights(v).square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
        return loss

    steps.step(descend)  # type: ignore[no-untyped-call]
    return weights(v.detach()), b.detach(), float(loss.detach())


def choose_l2(features: Tensor, labels: Tensor, classes: int, seed: int = 0) -> LinearReader:
    """A reader of all samples, with the penalty that is best when a fifth of them is held out.

    The penalty goes from 10 down to 1e-4 in factors of ten, and no further once the accuracy on what is held out has
    fallen twice in a row; a tie goes to the larger penalty.

    Args:
        features: (n, d) numbers.
        labels: (n,) class indices.
        classes: c.
        seed: Of the draw of the fifth.

    Returns:
        The reader.

    Raises:
        DataError: The lengths differ or a label is not below c.

    Example:
        >>> x = torch.cat([torch.randn(20, 2, generator=generator(0)) + 3 * i for i in range(2)])
        >>> reader = choose_l2(x, torch.arange(2).repeat_interleave(20), 2)
        >>> reader.predict(torch.tensor([[0.0, 0.0], [3.0, 3.0]])).tolist()
        [0, 1]
    """
    n = len(features)
    if n < 5:
        return fit_reader(features, labels, classes, 1e-2)
    places = torch.randperm(n, generator=generator(seed, "hold out")).to(features.device)
    labels = labels.to(features.device).long()
    out, rest = places[: n // 5], places[n // 5 :]
    mean, scale = standardizer(features[rest])
    x = (features[rest].float() - mean) * scale
    gram = x.T @ x / (2 * len(x)) if x.shape[1] <= min(WIDEST, len(x)) else None
    reader, best, fallen = None, (-1, GRID[0]), 0
    for l2 in GRID:
        weights, bias, loss = _descend(x, labels[rest], classes, l2, reader, gram)
        reader = LinearReader(mean, scale, weights, bias, l2, loss)
        right = int((reader.predict(features[out]) == labels[out]).sum())
        best, fallen = ((right, l2), 0) if right > best[0] else (best, fallen + 1)
        if fallen == 2:
            break
    return fit_reader(features, labels, classes, best[1])
