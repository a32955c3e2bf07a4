"""Influence functions: what would change if a training sample were left out, predicted without training again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from modicum.errors import DataError
from modicum.measurement.curvature import Loss, MeanLoss
from modicum.measurement.kronecker_scores import kronecker_scores, kronecker_self_scores
from modicum.measurement.solver import Solver

__all__ = [
    "influence_of_groups",
    "influence_on_inputs",
    "influence_on_loss",
    "influence_on_parameters",
    "self_influence",
]

ENTRIES = 1 << 25  # numbers in a block of right-hand sides
STATIONARY = 1e-2  # norm of a gradient that is as good as zero


def influence_on_loss(
    model: nn.Module,
    train_inputs: Tensor,
    train_targets: Tensor,
    valid_inputs: Tensor,
    valid_targets: Tensor,
    *,
    loss: Loss = "cross-entropy",
    l2: float = 0.0,
    solver: str | Solver = "auto",
    pairs: bool = False,
    block: int = 256,
) -> Tensor:
    """The predicted increase of the validation loss when a training sample is left out.

    At the minimum theta of `(1/n) sum_i l_i + (l2/2) ||theta||^2` with curvature H,
    `theta_{-i} - theta ~ (1/n) H^-1 grad l_i`, so that the loss of a query t rises by
    `(1/n) grad l_t^T H^-1 grad l_i`: positive for a sample that helps. The mean over queries takes one solve and then one
    forward-mode derivative, and no gradient of a training sample is formed; pairs take a solve a query.

    Memory is that of the answer, of a block of samples and of the solver: P^2 numbers for `exact`, 4 P k for `cg` with k
    right-hand sides at a time, see `kronecker_factors` for `ek-fac`; never n P or P m.

    Args:
        model: Trained, in evaluation mode.
        train_inputs: (n, *shape) as the model wants them.
        train_targets: (n, ...) as the loss wants them.
        valid_inputs: (m, *shape).
        valid_targets: (m, ...).
        loss: `cross-entropy`, `squared`, or `(outputs, targets) -> (b,)`.
        l2: The penalty it was trained with; weight decay.
        solver: The name of a solver or a `Solver`, how H is inverted.
        pairs: A column for every query instead of their mean.
        block: Samples at a time.

    Returns:
        (n,), or (n, m) for pairs, in the unit of the loss.

    Raises:
        DataError: There are no training or no validation samples, or lengths differ.
        ModicumError: A layer is in training mode or not supported by the solver, the matrix is indefinite, or the loss
            cannot be differentiated.

    Example:
        >>> x, y = torch.ones(3, 1).double(), torch.tensor([[0.0], [0.0], [3.0]]).double()
        >>> mean = nn.Linear(1, 1, bias=False, dtype=torch.float64)
        >>> _ = mean.weight.data.fill_(1.0)
        >>> influence_on_loss(mean, x, y, x[:1], y[:1], loss="squared").round(decimals=4).tolist()
        [0.3333, 0.3333, -0.6667]

    Reference:
        Koh and Liang, Understanding Black-box Predictions via Influence Functions, 2017, arXiv 1703.04730. Grosse et
        al., Studying Large Language Model Generalization with Influence Functions, 2023, arXiv 2308.03296.
    """
    _some(valid_inputs)
    solver, mean = _prepared(model, train_inputs, train_targets, loss, l2, solver, block)
    query = mean.with_(valid_inputs, valid_targets)
    n = len(train_inputs)
    if not pairs:
        solved = solver.inverse(mean)(query.gradient()[:, None])
        return mean.gradient_products(solved)[:, 0] / n
    if solver.factored:
        train, valid = (train_inputs, train_targets), (valid_inputs, valid_targets)
        factors = solver.factors(mean)
        return kronecker_scores(factors, model, train, valid, loss=loss, delta=solver.delta, l2=l2, block=block) / n
    inverse = solver.inverse(mean)
    scores = mean.theta.new_empty(n, len(valid_inputs))
    for part in _parts(len(valid_inputs), mean.size):
        scores[:, part] = mean.gradient_products(inverse(query.gradients(part).T)) / n
    return scores


def influence_on_parameters(
    model: nn.Module,
    train_inputs: Tensor,
    train_targets: Tensor,
    *,
    rows: Tensor | slice = slice(None),
    loss: Loss = "cross-entropy",
    l2: float = 0.0,
    solver: str | Solver = "auto",
    block: int = 256,
) -> Tensor:
    """The predicted change of the parameters when a training sample is left out, `(1/n) H^-1 grad l_i`.

    Args:
        model: Trained, in evaluation mode.
        train_inputs: (n, *shape).
        train_targets: (n, ...).
        rows: Of which samples.
        loss: See `influence_on_loss`.
        l2: See `influence_on_loss`.
        solver: See `influence_on_loss`.
        block: Samples at a time.

    Returns:
        (r, P) changes, one row a sample; parameters in the order of `model.named_parameters()`. Memory is that.

    Raises:
        ModicumError: See `influence_on_loss`.

    Example:
        >>> mean = nn.Linear(1, 1, bias=False, dtype=torch.float64)
        >>> _ = mean.weight.data.fill_(1.0)
        >>> x, y = torch.ones(3, 1).double(), torch.tensor([[0.0], [0.0], [3.0]]).double()
        >>> influence_on_parameters(mean, x, y, loss="squared").round(decimals=4).flatten().tolist()
        [0.3333, 0.3333, -0.6667]

    Reference:
        Koh and Liang, Understanding Black-box Predictions via Influence Functions, 2017, arXiv 1703.04730.
    """
    solver, mean = _prepared(model, train_inputs, train_targets, loss, l2, solver, block)
    chosen = torch.arange(len(train_inputs))[rows]
    inverse = solver.inverse(mean)
    moves = [inverse(mean.gradients(chosen[part]).T).T / len(train_inputs) for part in _parts(len(chosen), mean.size)]
    return torch.cat(moves)


def self_influence(
    model: nn.Module,
    train_inputs: Tensor,
    train_targets: Tensor,
    *,
    loss: Loss = "cross-entropy",
    l2: float = 0.0,
    solver: str | Solver = "auto",
    block: int = 256,
) -> Tensor:
    """The predicted increase of a training sample's own loss when it is left out, `(1/n) grad l_i^T H^-1 grad l_i`.

    It is high for samples that the model knows by heart, wrong labels among them.

    Args:
        model: Trained, in evaluation mode.
        train_inputs: (n, *shape).
        train_targets: (n, ...).
        loss: See `influence_on_loss`.
        l2: See `influence_on_loss`.
        solver: See `influence_on_loss`; `ek-fac` needs no solve, one matrix product a layer.
        block: Samples at a time.

    Returns:
        (n,) in the unit of the loss.

    Raises:
        ModicumError: See `influence_on_loss`.

    Example:
        >>> mean = nn.Linear(1, 1, bias=False, dtype=torch.float64)
        >>> _ = mean.weight.data.fill_(1.0)
        >>> x, y = torch.ones(3, 1).double(), torch.tensor([[0.0], [0.0], [3.0]]).double()
        >>> self_influence(mean, x, y, loss="squared").round(decimals=4).tolist()
        [0.3333, 0.3333, 1.3333]

    Reference:
        Koh and Liang, Understanding Black-box Predictions via Influence Functions, 2017, arXiv 1703.04730.
    """
    solver, mean = _prepared(model, train_inputs, train_targets, loss, l2, solver, block)
    n = len(train_inputs)
    if solver.factored:
        train, factors = (train_inputs, train_targets), solver.factors(mean)
        return kronecker_self_scores(factors, model, train, loss=loss, delta=solver.delta, l2=l2, block=block) / n
    inverse = solver.inverse(mean)
    values = []
    for part in _parts(n, mean.size, block):
        columns = mean.gradients(part).T
        values.append((columns * inverse(columns)).sum(0) / n)
    return torch.cat(values)


def influence_on_inputs(
    model: nn.Module,
    train_inputs: Tensor,
    train_targets: Tensor,
    valid_inputs: Tensor,
    valid_targets: Tensor,
    *,
    loss: Loss = "cross-entropy",
    l2: float = 0.0,
    solver: str | Solver = "auto",
    block: int = 256,
) -> Tensor:
    """The gradient of the mean validation loss in every training input, as if the model were trained again.

    `-(1/n) (d/dx_i) grad l_i(x_i)^T H^-1 g_valid`: moving an input by a small v changes the validation loss by the
    product with v.

    Args:
        model: Trained, in evaluation mode.
        train_inputs: (n, *shape), floating.
        train_targets: (n, ...).
        valid_inputs: (m, *shape).
        valid_targets: (m, ...).
        loss: See `influence_on_loss`.
        l2: See `influence_on_loss`.
        solver: See `influence_on_loss`.
        block: Samples at a time.

    Returns:
        (n, *shape) in the unit of the loss over that of the input.

    Raises:
        ModicumError: See `influence_on_loss`.

    Example:
        >>> mean = nn.Linear(1, 1, bias=False, dtype=torch.float64)
        >>> _ = mean.weight.data.fill_(1.0)
        >>> x, y = torch.ones(3, 1).double(), torch.tensor([[0.0], [0.0], [3.0]]).double()
        >>> influence_on_inputs(mean, x, y, x[:1], y[:1], loss="squared").round(decimals=4).flatten().tolist()
        [-0.6667, -0.6667, 0.3333]

    Reference:
        Koh and Liang, Understanding Black-box Predictions via Influence Functions, 2017, arXiv 1703.04730.
    """
    _some(valid_inputs)
    solver, mean = _prepared(model, train_inputs, train_targets, loss, l2, solver, block)
    solved = solver.inverse(mean)(mean.with_(valid_inputs, valid_targets).gradient()[:, None])[:, 0]
    return mean.input_gradient(solved) / -len(train_inputs)


def influence_of_groups(values: Tensor, groups: Tensor) -> Tensor:
    """The predicted effect of leaving whole groups out: to first order the sum over their members.

    Args:
        values: (n,) or (n, m) influences of samples.
        groups: (n,) index of each sample's group, from 0.

    Returns:
        (g,) or (g, m).

    Raises:
        DataError: Another length, or negative indices.

    Example:
        >>> influence_of_groups(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 0])).tolist()
        [5.0, 2.0]
    """
    if groups.shape != values.shape[:1] or groups.is_floating_point() or not len(groups) or int(groups.min()) < 0:
        raise DataError(
            f"groups has shape {tuple(groups.shape)} and dtype {groups.dtype}; expected {len(values)} indices >= 0, one "
            "a sample"
        )
    return values.new_zeros(int(groups.max()) + 1, *values.shape[1:]).index_add_(0, groups, values)


def _prepared(
    model: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss, l2: float, solver: str | Solver, block: int
) -> tuple[Solver, MeanLoss]:
    solver = Solver(solver) if isinstance(solver, str) else solver
    mean = solver.over(model, inputs, targets, loss, l2, block)
    size = float(mean.gradient().norm())
    if not size <= STATIONARY:
        warnings.warn(
            f"the gradient of the training loss at the model's parameters has norm {size:.3g}, above {STATIONARY}: "
            "influence functions assume a minimum; train longer, or give l2 the weight decay of the training",
            stacklevel=3,
        )
    return solver, mean


def _some(inputs: Tensor) -> None:
    if not len(inputs):
        raise DataError("valid has 0 samples; influence on the loss needs at least one")


def _parts(n: int, size: int, most: int = 1 << 30) -> Iterator[slice]:
    step = max(1, min(most, ENTRIES // size))
    yield from (slice(start, min(start + step, n)) for start in range(0, n, step))
