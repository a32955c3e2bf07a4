"""LAVA: what a sample adds to the distance between the training and the validation samples, without a learner."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import Array, NumPy, back, center_of, class_indices, features
from modicum.errors import DataError
from modicum.methods import Card
from modicum.reading import by_id, labels_of, rows_of
from modicum.scores import Scores
from modicum.valuation.sinkhorn import Cost, Transport, annealed, self_transport, transport

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import Features

__all__ = ["Lava", "class_distances", "class_wise_transport", "lava"]

LABELS = ("exact", "gaussian")
SOLVERS = ("converged", "annealed")
FAILED = 1e-3  # marginal violation above which there is no answer


def lava(
    train_features: Array,
    train_targets: Array,
    valid_features: Array,
    valid_targets: Array,
    eps: float = 0.1,
    label_distance: str = "exact",
    feature_weight: float = 1.0,
    label_weight: float = 1.0,
    debiased: bool = True,
    solver: str = "converged",
) -> Array:
    """How the class-wise Wasserstein distance to the validation samples falls when a sample gets more weight.

    The cost of moving (x, y) to (x', y') is `w_x ||x - x'||^2 + w_y W(y, y')`, where W is the squared 2-Wasserstein
    distance between the training samples of label y and the validation samples of label y'. With f the potential of the
    training samples in the entropic transport (its divergence from the product of the marginals penalized by eps), less
    that of the transport to themselves when debiased, the calibrated gradient is
    `g_i = f_i - sum_{j != i} f_j / (n - 1)`: the change of the distance when mass moves to i from all others. The value
    is -g: low for samples that keep the two sets apart.

    Potentials are those of the converged problem (see `modicum.valuation.sinkhorn`). Where n = m and eps is far below the
    cost, the distance has a kink there: its one-sided derivatives differ, and f lies between them. Common
    transport software takes one step a scale instead, `solver="annealed"`: its potentials are no derivative of the
    distance, but on the digits of the evidence they find wrong labels much better.

    Time is about 80 passes over the n m costs, 15 of them with n m min(n, m) operations, and 35 over the n^2; annealed, 20
    passes over n m and 10 over n^2. Memory is that of the features in double precision, min(n, m)^2 numbers up to 128 MB,
    the n m costs up to 34 MB, and about 100 MB of blocks.

    Args:
        train_features: (n, d) finite numbers, n >= 2.
        train_targets: (n,) class indices.
        valid_features: (m, d).
        valid_targets: (m,) class indices. A class that has training samples only is compared by features alone, with a
            warning.
        eps: Entropic regularization > 0, in units of the cost.
        label_distance: `exact`: W by the debiased entropic transport between the samples, with the same eps;
            `gaussian`: by their means and covariances (Bures), for many classes or samples; at least two samples a class.
        feature_weight: w_x > 0.
        label_weight: w_y >= 0.
        debiased: Whether the transport of the training samples to themselves is taken off.
        solver: `converged`, or `annealed`.

    Returns:
        (n,) values in units of squared distance, higher = more worth keeping; they sum to 0.

    Raises:
        DataError: Shapes do not fit, entries are not finite, an option is out of range, or the potentials do not converge.

    Example:
        >>> x, y = np.array([[0.0], [0.1], [5.0], [5.1]]), np.array([0, 0, 1, 0])
        >>> int(lava(x, y, x[:3], y[:3]).argmin())  # the last has the wrong label
        3

    Reference:
        Just et al., LAVA: Data Valuation without Pre-Specified Learning Algorithms, 2023, arXiv 2305.00054.
    """
    found = class_wise_transport(
        train_features,
        train_targets,
        valid_features,
        valid_targets,
        eps,
        label_distance,
        feature_weight,
        label_weight,
        debiased,
        solver,
    )
    return back(_values(found).cpu().numpy(), train_features)


def class_wise_transport(
    train_features: Array,
    train_targets: Array,
    valid_features: Array,
    valid_targets: Array,
    eps: float = 0.1,
    label_distance: str = "exact",
    feature_weight: float = 1.0,
    label_weight: float = 1.0,
    debiased: bool = True,
    solver: str = "converged",
) -> Transport:
    """The transport behind `lava`: its potentials, its cost, and how far it is from converged.

    Args:
        train_features: See `lava`, and all that follow.
        train_targets: (n,) class indices.
        valid_features: (m, d).
        valid_targets: (m,) class indices.
        eps: Entropic regularization.
        label_distance: `exact` or `gaussian`.
        feature_weight: Of the squared distance of features.
        label_weight: Of the distance of labels.
        debiased: Whether the transport of the training samples to themselves is taken off the row potentials.
        solver: `converged` or `annealed`.

    Returns:
        The transport, with potentials (n,) of the training and (m,) of the validation samples.

    Raises:
        DataError: See `lava`.

    Example:
        >>> x, y = np.array([[0.0], [1.0], [5.0], [6.0]]), np.array([0, 0, 1, 1])
        >>> class_wise_transport(x, y, x, y).violation < 1e-6
        True
    """
    train, valid = features("train_features", train_features), features("valid_features", valid_features)
    labels = class_indices("train_targets", train_targets, len(train))
    wanted = class_indices("valid_targets", valid_targets, len(valid))
    _check(train, valid, eps, label_distance, feature_weight, label_weight)
    if solver not in SOLVERS:
        raise DataError(f"solver={solver!r}; expected 'converged' or 'annealed'")
    unseen = np.setdiff1d(labels, wanted)
    if len(unseen):
        warnings.warn(
            f"train_targets has class {int(unseen[0])}, which valid_targets has not: it is compared by features alone",
            stacklevel=3,
        )
    device = train_features.device if isinstance(train_features, Tensor) else torch.device("cpu")
    device = torch.device("cpu") if device.type == "mps" else device  # which has no float64
    center = center_of(train)
    x, z = (torch.from_numpy(rows.astype(np.float64) - center).to(device) for rows in (train, valid))
    own, y = (torch.from_numpy(part).to(device) for part in np.unique(labels, return_inverse=True))
    theirs, t = (torch.from_numpy(part).to(device) for part in np.unique(wanted, return_inverse=True))
    c = len(own)
    table = None
    flops = 0
    if label_weight > 0:
        groups = [x[y == i] for i in range(c)] + [z[t == i] for i in range(len(theirs))]
        table, flops = _distances(groups, c, eps, label_distance, debiased)
        table = label_weight * table
    across_cost = Cost(x, z, feature_weight, y, t, None if table is None else table[:c, c:])
    across = transport(across_cost, eps) if solver == "converged" else annealed(across_cost, eps)
    if debiased:
        inside_cost = Cost(x, x, feature_weight, y, y, None if table is None else table[:c, :c])
        alone = self_transport(inside_cost, eps) if solver == "converged" else annealed(inside_cost, eps, itself=True)
        across = Transport(
            across.rows - alone.rows,
            across.columns,
            across.cost - alone.cost / 2,
            max(across.violation, alone.violation),
            across.passes + alone.passes,
            across.flops + alone.flops,
        )
    if solver == "converged" and not across.violation <= FAILED:
        raise DataError(
            f"eps={eps} does not converge: the marginals are off by {across.violation:.2g} after {across.passes} passes; "
            "expected at most 0.001: use a larger eps"
        )
    return Transport(across.rows, across.columns, across.cost, across.violation, across.passes, across.flops + flops)


def class_distances(groups: list[Tensor], eps: float = 0.1, label_distance: str = "exact") -> Tensor:
    """Squared 2-Wasserstein distances between groups of samples.

    `exact`: the entropic transport less half of that of each group to itself; `gaussian`:
    `||m - m'||^2 + tr(S + S' - 2 (S^1/2 S' S^1/2)^1/2)`, whose last term is twice the nuclear norm of
    `X X'^T / sqrt(n n')` for centered X, X'.

    Args:
        groups: c tensors (n_c, d), float64.
        eps: Of the transport.
        label_distance: `exact` or `gaussian`.

    Returns:
        (c, c) distances in units of squared features, at least 0.

    Raises:
        DataError: A group has fewer than two samples and the distance is `gaussian`.

    Example:
        >>> near = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        >>> class_distances([near, near + 3], label_distance="gaussian").tolist()
        [[0.0, 9.0], [9.0, 0.0]]
    """
    return _distances(groups, 0, eps, label_distance, True)[0]


def _distances(groups: list[Tensor], first: int, eps: float, kind: str, inside: bool) -> tuple[Tensor, int]:
    """All distances but those among the groups after the first, and those among the first too unless `inside`."""
    table = torch.zeros(len(groups), len(groups), dtype=torch.float64, device=groups[0].device)
    flops = 0
    if kind == "gaussian":
        for i, group in enumerate(groups):
            if len(group) < 2:
                raise DataError(
                    f"a class (number {i if i < first else i - first}) has {len(group)} samples; "
                    "label_distance='gaussian' needs at least 2 of each, 'exact' needs 1"
                )
        means = [group.mean(0) for group in groups]
        roots = [torch.linalg.qr((group - mean) / len(group) ** 0.5, mode="r")[1] for group, mean in zip(groups, means)]
    else:
        alone = [self_transport(Cost(group, group), eps) for group in groups]
        flops += sum(part.flops for part in alone)
    for i in range(len(groups)):
        for j in range(i):
            if first and (j >= first or (i < first and not inside)):
                continue
            if kind == "gaussian":
                cross = torch.linalg.svdvals(roots[i] @ roots[j].T).sum()
                spread = roots[i].square().sum() + roots[j].square().sum()
                distance = float((means[i] - means[j]).square().sum() + spread - 2 * cross)
                flops += 2 * roots[i].shape[1] * len(roots[i]) * len(roots[j])
            else:
                # the cost is stationary at the potentials: its error is of second order in theirs
                found = transport(Cost(groups[i], groups[j]), eps, tolerance=1e-4)
                distance = found.cost - (alone[i].cost + alone[j].cost) / 2
                flops += found.flops
            table[i, j] = table[j, i] = max(0.0, distance)
    return table, flops


def _values(found: Transport) -> Tensor:
    f, n = found.rows, len(found.rows)
    centered = f - f.mean()
    return -centered * (n / (n - 1))


def _check(train: NumPy, valid: NumPy, eps: float, kind: str, feature_weight: float, label_weight: float) -> None:
    if train.shape[1] != valid.shape[1]:
        raise DataError(f"valid_features have {valid.shape[1]} columns but train_features have {train.shape[1]}")
    if len(train) < 2:
        raise DataError("train_features has 1 sample; expected at least 2, as mass moves between them")
    if not (np.isfinite(eps) and eps > 0):
        raise DataError(f"eps={eps!r}; expected a number > 0, in units of the cost")
    if kind not in LABELS:
        raise DataError(f"label_distance={kind!r}; expected 'exact' or 'gaussian'")
    if not (np.isfinite(feature_weight) and feature_weight > 0):
        raise DataError(f"feature_weight={feature_weight!r}; expected a number > 0")
    if not (np.isfinite(label_weight) and label_weight >= 0):
        raise DataError(f"label_weight={label_weight!r}; expected a number >= 0")


@dataclass(frozen=True)
class Lava:
    """Low values hold the training samples apart from the validation samples: wrong labels, outliers, foreign samples.

    Args:
        eps: Entropic regularization, in units of squared distance between standardized features.
        label_distance: `exact`, or `gaussian` for many classes.
        feature_weight: Of the squared distance of features in the cost.
        label_weight: Of the distance of labels.
        debiased: Whether the transport of the training samples to themselves is taken off.
        solver: `annealed`: one step a scale, as in the software that the paper used, which takes a tenth of the time
            and found wrong labels better in the evidence; or `converged`, the derivative of the distance itself.
        encoder: Whose features (see `modicum.measurement.Features`); the paper trains one on the validation samples.
    """

    eps: float = 0.1
    label_distance: str = "exact"
    feature_weight: float = 1.0
    label_weight: float = 1.0
    debiased: bool = True
    solver: str = "annealed"
    encoder: str = "inputs"

    card: ClassVar[Card] = Card(
        key="lava",
        title="Gradient of the class-wise Wasserstein distance to the validation samples",
        paper="Just et al., LAVA: Data Valuation without Pre-Specified Learning Algorithms, 2023, arXiv 2305.00054",
        saves=("samples", "compute"),
        growth=2.0,
    )

    def needs(self) -> tuple[Features]:
        """Features of the training and the validation samples."""
        from modicum.measurement.features import Features

        return (Features(self.encoder),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Values in units of squared distance; the note says how far the marginals are from exact."""
        labels = labels_of("train", data.train, classes=2)
        wanted = labels_of("valid", data.valid)
        near = rows_of("train features", measured[0].train, data.train)
        query = rows_of("valid features", measured[0].valid, data.valid)
        order = by_id(data.train)
        with ctx.ledger.clock("choose", self.card.key) as counts:
            found = class_wise_transport(
                near.to(ctx.device)[order],
                labels[order],
                query.to(ctx.device),
                wanted,
                self.eps,
                self.label_distance,
                self.feature_weight,
                self.label_weight,
                self.debiased,
                self.solver,
            )
            counts["extra_flops"] = found.flops
            values = np.empty(len(near))
            values[order] = _values(found).cpu().numpy()
        note = f"marginal violation {found.violation:.1g} after {found.passes} passes ({self.solver})"
        return Scores(
            values, data.train.ids, self.card.key, "value", "squared distance", labels=labels.numpy(), note=note
        )
