"""Datamodels: which training samples move the answer to which query, by regression on models of random subsets."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import Array, back, real, to_numpy
from modicum.errors import DataError
from modicum.methods import Card
from modicum.scores import Scores
from modicum.valuation.game import Estimate
from modicum.valuation.lasso import MOST, Columns, Folds, lasso, least_squares
from modicum.valuation.players import as_scores, checked, steps_of

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.utilities import Utilities, Utility

__all__ = ["Datamodel", "Datamodels", "datamodels"]

BLOCK = 1 << 20  # weights at a time
BATCH = 50  # models between two looks at the clock
FOLDS = 5
GROUPS = 10  # of models, left out in turn for standard errors
LEAST = 2 * GROUPS
FEW = 100  # steps of descent from the weights of all models to those without a group
EXACT, CLOSE, ROUGH = 1e-13, 1e-6, 1e-5  # duality gaps, as a share of the variance of a target


class Datamodel(NamedTuple, Generic[Array]):
    """A linear model of what training on a subset does: `f(z; S) = intercept(z) + sum_{i in S} weights[z, i]`, about.

    Args:
        weights: (t, n) of each training sample for each target, or (n,) for a single one.
        intercepts: (t,) what is left without any sample, or ().
        betas: (t,) the penalties that were used, or ().
    """

    weights: Array
    intercepts: Array
    betas: Array


def datamodels(
    masks: Array, outputs: Array, beta: float | None = None, l2: float = 0.0, folds: int = FOLDS
) -> Datamodel[Array]:
    """The weight of every training sample for every target, by LASSO on which samples each model was trained on.

    `theta_z = argmin (1/M) sum_j (f(z; S_j) - theta_0 - 1_{S_j}' theta)^2 + beta ||theta||_1 + l2 ||theta||^2`, the masks
    centered. All targets are descended at once (accelerated proximal gradient, duality gap below 1e-13 of the
    variance). With `beta=0` and every subset once it is the Banzhaf value of each sample.

    Time is O(min(n, 2 M) n t) a step of descent. Memory is 36 M n bytes, with 28 n^2 more where n <= 2 M, that of the outputs
    and the weights, and 200 MB.

    Args:
        masks: (M, n) booleans, or 0 and 1: which samples each of M models was trained on.
        outputs: (M, t), or (M,) for a single target: what each model does there, such as its correct-class margin.
        beta: Penalty on the absolute weights; twice the `alpha` of scikit-learn. 0: least squares, in closed form, the
            shortest of several solutions. None: for each target the one of a falling series that predicts models which
            were left out best.
        l2: Penalty on the squared weights.
        folds: Parts of which each is left out once, in the order of the models, where beta is None.

    Returns:
        Weights in the unit of the outputs, positive = it raises them; intercepts and penalties.

    Raises:
        DataError: Shapes do not fit, a sample is in every subset or in none, numbers are not finite, or a penalty is
            negative.

    Example:
        >>> masks = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=bool)
        >>> found = datamodels(masks, np.array([0.0, 1.0, 3.0, 4.0]), beta=0)
        >>> found.weights.round(6).tolist(), abs(float(found.intercepts.round(6)))
        ([3.0, 1.0], 0.0)

    Reference:
        Ilyas et al., Datamodels: Predicting Predictions from Training Data, 2022, arXiv 2202.00622.
    """
    x, y = _checked(masks, outputs)
    if beta is None and not 2 <= folds <= len(x) // 2:
        raise DataError(f"folds={folds} for {len(x)} models; expected from 2 to {len(x) // 2}, or give beta")
    if beta == 0 and l2 == 0 and len(x) <= x.shape[1]:
        warnings.warn(
            f"masks has {len(x)} models for {x.shape[1]} samples: least squares has many solutions and the shortest is "
            "given; train more models, or give beta or l2",
            stacklevel=2,
        )
    regression = _Regression(x, beta, l2, folds)
    parts = [regression.fit(part, EXACT) for part in torch.split(y, _width(x.shape[1]), dim=1)]
    weights, betas = torch.cat([w for w, _ in parts], dim=1), torch.cat([b for _, b in parts])
    intercepts = y.mean(0) - x.mean(0) @ weights
    answers = [weights.T, intercepts, betas]
    if outputs.ndim == 1:
        answers = [answer[0] for answer in answers]
    return Datamodel(*(back(answer.cpu().numpy(), outputs) for answer in answers))


def _checked(masks: Array, outputs: Array) -> tuple[Tensor, Tensor]:
    """(M, n) float64 masks and (M, t) float64 outputs, on the device of the outputs."""
    wanted = real("outputs", outputs, (1, 2), "(models, targets) or (models,)")
    inside = to_numpy("masks", masks)
    if inside.ndim != 2 or not inside.size or len(inside) != len(wanted):
        raise DataError(f"masks has shape {inside.shape}; expected ({len(wanted)}, n), one row for each of outputs")
    if inside.dtype != np.bool_ and not np.isin(inside, (0, 1)).all():
        raise DataError("masks has entries other than 0 and 1; expected which samples each model was trained on")
    constant = np.flatnonzero((inside == inside[0]).all(0))
    if len(constant):
        where = "every subset" if inside[0, constant[0]] else "no subset"
        raise DataError(
            f"masks: sample {constant[0]} is in {where}, and so are {len(constant) - 1} more like it; its weight cannot "
            "be known: draw more subsets"
        )
    device = outputs.device if isinstance(outputs, Tensor) else torch.device("cpu")
    y = torch.from_numpy(wanted.astype(np.float64).reshape(len(wanted), -1)).to(device)
    return torch.from_numpy(inside.astype(np.float64)).to(device), y


def _width(n: int) -> int:
    return max(1, BLOCK // n)


class _Regression:
    """Of any targets on the same masks; all arguments but the first are those of `datamodels`.

    Args:
        x: (M, n) float64 masks.
    """

    def __init__(self, x: Tensor, beta: float | None, l2: float, folds: int) -> None:
        for name, penalty in (("beta", beta), ("l2", l2)):
            if penalty is not None and not 0 <= penalty < np.inf:
                raise DataError(f"{name}={penalty}; expected a number >= 0")
        self.columns, self.beta, self.l2 = Columns(x), beta, l2
        self.folds = Folds(x, folds) if beta is None else None

    def fit(self, y: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
        """(n, t) weights and (t,) penalties for targets (M, t)."""
        products, variances = self.columns.with_(y)
        if self.folds is None:
            beta = torch.full_like(variances, self.beta or 0.0)
        else:
            beta = self.folds.penalties(y, 2 * products.abs().amax(0), self.l2)
        start = torch.zeros_like(products)
        return self.solve(self.columns, y, beta, start, tolerance), beta

    def solve(
        self, columns: Columns, y: Tensor, beta: Tensor, start: Tensor, tolerance: float, most: int = MOST
    ) -> Tensor:
        """(n, t) weights at known penalties."""
        products, variances = columns.with_(y)
        if self.beta == 0:
            return least_squares(columns, products, self.l2)
        return lasso(columns, products, variances, beta, start, self.l2, tolerance, most)


def _mean_weights(masks: Tensor, outputs: Tensor, beta: float | None, l2: float) -> tuple[Tensor, Tensor]:
    """(n,) mean weights over the targets and (n,) their standard errors.

    The models are what is drawn at random, so the errors are those of leaving out a tenth of the models at a time (the
    delete-a-group jackknife): `sqrt((g - 1) / g sum_k (w_k - mean w)^2)` over g = 10 groups, each fitted from where all
    models ended and with their penalties. The spread over targets would say something else: which samples help with
    which targets.
    """
    x = masks.double()
    regression, groups = _Regression(x, beta, l2, FOLDS), Folds(x, GROUPS)
    total = x.new_zeros(x.shape[1])
    without = x.new_zeros(GROUPS, x.shape[1])
    for y in torch.split(outputs, _width(x.shape[1]), dim=1):
        weights, chosen = regression.fit(y, CLOSE)
        total += weights.sum(1)
        for k, (columns, (rest, _)) in enumerate(zip(groups.columns, groups.parts)):
            target, penalty, start = y[rest].float(), chosen.float(), weights.float()
            without[k] += regression.solve(columns, target, penalty, start, ROUGH, FEW).double().sum(1)
    targets = outputs.shape[1]
    spread = (without / targets - (without / targets).mean(0)).square().sum(0)
    return total / targets, ((GROUPS - 1) / GROUPS * spread).sqrt()


@dataclass(frozen=True)
class Datamodels:
    """How much a sample raises the margins of the validation samples, by regression on models of random subsets.

    The value of a sample is its mean weight over the validation samples, and the standard error says how much it would
    differ with other random subsets. The paper trains 300,000 to 1,500,000 networks on fixed numbers of samples; here each
    sample is in a subset on its own, alpha of the time, so that weights have a sign of their own and not only an order,
    and `ridge` makes 500 trainings take seconds; `network` trains the recipe. With fewer models than samples most weights
    are zero or far too small. Peak memory: `80 models n + 8 models m` bytes,
    with `80 n^2` more where n <= 2 models, and 200 for each of up to 2^20 weights at a time.

    Args:
        models: How many are trained.
        alpha: Probability in (0, 1) that a sample is in a subset; 1/2 gives Banzhaf values, shrunk.
        beta: Penalty on the absolute weights; chosen for each validation sample by models that are left out when None.
        l2: Penalty on the squared weights.
        learner: What is trained (see `modicum.measurement.Utilities`).
        encoder: On whose features (see `modicum.measurement.Features`).
    """

    models: int = 500
    alpha: float = 0.5
    beta: float | None = None
    l2: float = 0.0
    learner: str = "ridge"
    encoder: str = "inputs"

    card: ClassVar[Card] = Card(
        key="datamodels",
        title="Regression of margins on which samples a model was trained on",
        paper="Ilyas et al., Datamodels: Predicting Predictions from Training Data, 2022, arXiv 2202.00622",
        saves=("samples",),
        tasks=("classification", "regression"),
        growth=2.0,
    )

    def needs(self) -> tuple[Utilities]:
        """The oracle of subsets."""
        from modicum.measurement.utilities import Utilities

        return (Utilities(self.learner, self.encoder),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Mean weights in units of the margin; charged for the trainings."""
        if not 0 < self.alpha < 1:
            raise DataError(f"alpha={self.alpha}; expected a probability in (0, 1)")
        if self.models < LEAST:
            raise DataError(f"models={self.models}; expected at least {LEAST}, of which parts can be left out")
        utility: Utility = measured[0]
        labels, order = checked(data, utility)
        parts = torch.arange(self.models).tensor_split(-(-self.models // BATCH))
        with utility.charged(ctx, self.card.key):
            draw = ctx.generator(self.card.key, "subsets")
            masks = torch.cat([_subsets(len(part), utility.players, self.alpha, draw) for part in parts])
            told = _Outputs(self.models, len(utility.problem.wanted))
            for step in steps_of(self, data, ctx, utility)(len(parts), [told]):
                told.add(utility.outcomes(masks[parts[step]]))
            inside, outputs = masks[: told.count], told.rows[: told.count]
            device = utility.problem.features.device
            found, errors = _mean_weights(inside.to(device), outputs.to(device), self.beta, self.l2)
        note = f"{told.count:,} models"
        if told.count < self.models:
            note = f"stopped after {told.count:,} of {self.models:,} models"
        estimate = Estimate(found.cpu().numpy(), errors.cpu().numpy(), told.count, told.count, note)
        unit = "margin" if utility.problem.classes else "negative absolute error"
        return replace(as_scores(self, data, labels, order, estimate), unit=unit)


class _Outputs:
    """What each model that was trained so far does on each query; grows, and can be saved."""

    def __init__(self, models: int, queries: int) -> None:
        self.rows, self.count = torch.zeros(models, queries, dtype=torch.float64), 0

    def add(self, rows: Tensor) -> None:
        self.rows[self.count : self.count + len(rows)] = rows
        self.count += len(rows)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows[: self.count]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = 0
        self.add(state["rows"])


def _subsets(count: int, n: int, alpha: float, draw: torch.Generator) -> Tensor:
    """(count, n) masks: every sample is in a share alpha of them, whichever, and on its own."""
    inside = max(1, min(count - 1, round(alpha * count)))
    return (torch.rand(n, count, generator=draw).argsort(1) < inside).T
