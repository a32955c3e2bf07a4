"""TRAK: what a sample does to the models' margins, by linearizing them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import Array, back, tensor
from modicum.errors import DataError, ModicumError
from modicum.flops import count_flops
from modicum.methods import Card
from modicum.reading import labels_of
from modicum.scores import Scores

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.gradients import Gradients, GradientTable

__all__ = ["Trak", "trak"]


def trak(
    train_features: Array, valid_features: Array, errors: Array, *, l2: float = 1e-2, per_target: bool = False
) -> Array:
    """The effect of each training sample on the margins of the validation samples.

    With the projected gradients `phi_j` of the margin `f = log(p_y / (1 - p_y))` in model j, `Phi_j` those of all
    training samples, and `q_j = 1 - p_y` of each training sample,
    `tau(z) = [mean_j phi_j(z)^T (Phi_j^T Phi_j + lambda_j I)^-1 Phi_j^T] * [mean_j q_j]`: the two means are taken
    separately and then multiplied. `lambda_j` is l2 times the mean of the diagonal of `Phi_j^T Phi_j`.

    Args:
        train_features: (models, n, k) projected gradients of the margins of the training samples.
        valid_features: (models, m, k), with the same projection.
        errors: (models, n) one minus the probability of the label.
        l2: Relative ridge; with 0, k may not exceed n.
        per_target: Whether to give the matrix instead of its mean over the validation samples.

    Returns:
        (n,) values in the unit of the margin, positive = it raises the margins; (m, n) with `per_target`.

    Raises:
        DataError: No models, shapes that do not fit, numbers that are not finite, or a singular matrix.

    Example:
        >>> import numpy as np
        >>> phi = np.array([[[1.0, 0.0], [0.0, 2.0]]])
        >>> trak(phi, phi[:, :1], np.array([[0.5, 0.5]]), l2=0.0).tolist()
        [0.5, 0.0]

    Reference:
        Park, Georgiev, Ilyas, Leclerc and Madry, TRAK: Attributing Model Behavior at Scale, 2023, arXiv 2303.14186.
    """
    g = tensor("train_features", train_features, (3,), "(models, n, k)")
    v = tensor("valid_features", valid_features, (3,), "(models, m, k)").to(g.device)
    q = tensor("errors", errors, (2,), "(models, n)").to(g.device)
    (models, n, k), wanted = g.shape, v.shape
    if (wanted[0], wanted[2]) != (models, k):
        raise DataError(f"valid_features has shape {tuple(wanted)}; expected ({models}, m, {k}), as for training")
    if q.shape != (models, n):
        raise DataError(f"errors has shape {tuple(q.shape)}; expected ({models}, {n})")
    if not 0 <= l2 < math.inf:
        raise DataError(f"l2={l2}; expected a number >= 0")
    if l2 == 0 and k > n:
        raise DataError(f"l2=0 with {k} dimensions and {n} samples is singular; set l2=0.01 or use fewer dimensions")
    if not per_target:
        v = v.mean(1, keepdim=True)
    total = torch.zeros(v.shape[1], n, dtype=torch.float64, device=g.device)
    for phi, target in zip(g.double(), v.double()):
        ridge = l2 * phi.square().sum() / k
        if k > n:  # the same by the smaller matrix
            total += solved(phi @ phi.mT, phi @ target.mT, ridge).mT
        else:
            total += solved(phi.mT @ phi, target.mT, ridge).mT @ phi.mT
    found = total / models * q.double().mean(0)
    return back((found if per_target else found[0]).cpu().numpy(), train_features)


def solved(matrix: Tensor, targets: Tensor, ridge: Tensor) -> Tensor:
    """`(M + ridge I)^-1 targets` in float64.

    Raises:
        DataError: The matrix is singular.
    """
    exact = matrix.double()
    factor, failed = torch.linalg.cholesky_ex(exact + ridge * torch.eye(len(exact)).to(exact))
    if int(failed):
        raise DataError(
            f"the matrix of the projected gradients is singular with a ridge of {float(ridge):.3g}; set l2=0.01"
        )
    return torch.cholesky_solve(targets.double(), factor)


@dataclass(frozen=True)
class Trak:
    """TRAK on models trained on random halves: the mean effect on the margins of the validation samples.

    The projection is made a layer at a time and only its k x k matrix of products is kept; the product of every
    sample's gradient with the solution is then made in forward mode. Memory beyond the weights: k^2 numbers and a block
    of gradients, whatever n.

    Args:
        models: Trained models; the paper shows up to 100, more is better.
        dimensions: Of the projection; at most a quarter of the number of training samples, as with more of them the
            ridge decides, and none at all where there are no more parameters than that.
        share: Of the training samples that each model is trained on.
        l2: Ridge, relative to the mean diagonal; the paper has none, which needs many more samples than dimensions.
        projection: `count-sketch`, `rademacher` or `gaussian`, of the same precision; the first is by far the fastest.
    """

    models: int = 10
    dimensions: int = 2048
    share: float = 0.5
    l2: float = 1e-2
    projection: str = "count-sketch"

    card: ClassVar[Card] = Card(
        key="trak",
        title="Effect on the margins of the validation samples, by linearized models",
        paper="Park et al., TRAK: Attributing Model Behavior at Scale, 2023, arXiv 2303.14186",
        saves=("samples", "compute", "memory"),
    )

    def __post_init__(self) -> None:
        from modicum.measurement.projection import KINDS

        if self.projection not in KINDS:
            raise ModicumError(f"projection={self.projection!r}; expected one of {KINDS}")
        if isinstance(self.dimensions, bool) or not isinstance(self.dimensions, int) or self.dimensions < 1:
            raise ModicumError(f"dimensions={self.dimensions!r}; expected an integer >= 1")
        if not 0 <= self.l2 < math.inf:
            raise ModicumError(f"l2={self.l2!r}; expected a number >= 0")

    def needs(self) -> tuple[Gradients]:
        """Models trained on random subsets, at the end of the run."""
        from modicum.measurement.gradients import Gradients

        return (Gradients((1.0,), self.models, self.share),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Values in units of the margin, with standard errors over the models; charged for the passes."""
        labels = labels_of("train", data.train, classes=2)
        labels_of("valid", data.valid)
        table: GradientTable = measured[0]
        order = table.positions(data.train)
        with ctx.ledger.clock("choose", self.card.key) as counts:
            with count_flops() as counter:
                pairs = [self._model(table, 0, ctx.seed)]
            pairs += [self._model(table, run, ctx.seed + run) for run in range(1, table.runs)]
            effects, errors = (torch.stack(column).numpy() for column in zip(*pairs))
            values, deviations = np.empty(len(order)), None
            values[order] = effects.mean(0) * errors.mean(0)
            if table.runs > 1:
                change = effects * errors.mean(0) + effects.mean(0) * errors  # of the product, to first order
                deviations = np.empty(len(order))
                deviations[order] = change.std(0, ddof=1) / math.sqrt(table.runs)
            samples = (3 * len(data.train) + len(data.valid)) * table.runs
            counts.update(samples=samples, extra_flops=counter.flops * table.runs, uncounted=counter.uncounted)
        return Scores(
            values, data.train.ids, self.card.key, "value", "validation margin", labels.numpy(), errors=deviations
        )

    def _model(self, table: GradientTable, run: int, seed: int) -> tuple[Tensor, Tensor]:
        """(n,) effect of one model before the errors, and (n,) its errors, in the order of the ids."""
        from modicum.measurement.per_sample import log_odds
        from modicum.measurement.projection import project, project_back

        kind: Any = self.projection
        target = table.mean("valid", run, function=log_odds)
        p, n = len(target), len(table.train)
        k = max(1, min(self.dimensions, n // 4))
        whole = k >= p  # nothing is gained by projecting
        k = p if whole else k
        gram = torch.zeros(k, k, dtype=torch.float64)
        options: dict[str, Any] = {"dimensions": 0 if whole else k, "kind": kind, "seed": seed}
        for _, phi in table.blocks("train", run, function=log_odds, **options):
            gram += (phi.mT @ phi).cpu().double()
        goal = target if whole else project(target[None], k, kind, seed)[0]
        ridge = self.l2 * gram.diagonal().mean()
        solution = solved(gram, goal.cpu().double()[:, None], ridge)[:, 0].to(target)
        direction = solution if whole else project_back(solution, p, kind, seed)
        effect = table.products("train", direction, run, function=log_odds)
        return effect.cpu().double(), -torch.expm1(-table.values("train", run)).cpu().double()
