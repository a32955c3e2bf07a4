"""Memorization: how much better a model does on a sample when it was trained on it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import Array, NumPy, back, real, to_numpy
from modicum.errors import DataError
from modicum.methods import Card
from modicum.reading import labels_of
from modicum.scores import Scores
from modicum.valuation.game import Estimate
from modicum.valuation.players import as_scores, checked, steps_of

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.utilities import Utilities, Utility

__all__ = ["Memorization", "influence_of_subsets", "memorization"]

LEAST = 10  # models
BATCH = 20  # models between two looks at the clock


def memorization(masks: Array, correct: Array) -> tuple[Array, Array]:
    """How much likelier a sample is answered rightly when it was trained on.

    `mem_i = mean_{t: i in S_t} 1[h_t(x_i) = y_i] - mean_{t: i not in S_t} 1[h_t(x_i) = y_i]` over models h_t of random
    subsets S_t, with standard error `sqrt(p1 (1 - p1) / n1 + p0 (1 - p0) / n0)`. Memory is a few times that of the masks.

    Args:
        masks: (T, n) booleans, or 0 and 1: which samples each model was trained on; T >= 10.
        correct: (T, n) booleans, or numbers in [0, 1]: whether each model is right on each of these samples.

    Returns:
        (n,) differences in [-1, 1], high = memorized, and (n,) standard errors; NaN, with a warning, for samples that every
        model or no model was trained on.

    Raises:
        DataError: Shapes do not fit, too few models, or entries out of range.

    Example:
        >>> masks = np.arange(20)[:, None] % 2 == np.array([[0, 1]])
        >>> values, errors = memorization(masks, masks | [[True, False]])
        >>> values.tolist(), errors.tolist()
        ([0.0, 1.0], [0.0, 0.0])

    Reference:
        Feldman, Zhang, What Neural Networks Memorize and Why, 2020, arXiv 2008.03703.
    """
    inside, right = _checked(masks, correct)
    if right.shape != inside.shape:
        raise DataError(f"correct has shape {right.shape}; expected {inside.shape}, that of masks")
    count = inside.sum(0)
    _warn(count, len(inside))
    within, total = np.einsum("ti,ti->i", inside, right), right.sum(0)
    values, errors = _difference(within, total - within, count, len(inside) - count)
    return back(values, correct), back(errors, correct)


def influence_of_subsets(masks: Array, correct: Array) -> tuple[Array, Array]:
    """How much likelier each query is answered rightly when a sample was trained on.

    `infl(i, j) = mean_{t: i in S_t} 1[h_t(x_j) = y_j] - mean_{t: i not in S_t} 1[h_t(x_j) = y_j]`, as one product of the
    masks with the answers, and its standard error as in `memorization`. The paper calls a pair of high influence from 0.15
    on, where the memorization of the sample is at least 0.25.

    Args:
        masks: (T, n) booleans, or 0 and 1: which samples each model was trained on; T >= 10.
        correct: (T, m) booleans, or numbers in [0, 1]: whether each model is right on each query.

    Returns:
        (m, n) differences in [-1, 1], and (m, n) standard errors; NaN, with a warning, for samples that every model or no
        model was trained on.

    Raises:
        DataError: Shapes do not fit, too few models, or entries out of range.

    Example:
        >>> masks = np.arange(20)[:, None] % 2 == np.array([[0, 1]])
        >>> influence_of_subsets(masks, masks[:, 1])[0].tolist()
        [[-1.0, 1.0]]

    Reference:
        Feldman, Zhang, What Neural Networks Memorize and Why, 2020, arXiv 2008.03703.
    """
    inside, right = _checked(masks, correct)
    right = right.reshape(len(right), -1)
    count = inside.sum(0)
    _warn(count, len(inside))
    within = right.T @ inside
    values, errors = _difference(within, right.sum(0)[:, None] - within, count, len(inside) - count)
    return back(values, correct), back(errors, correct)


def _checked(masks: Array, correct: Array) -> tuple[NumPy, NumPy]:
    inside, right = to_numpy("masks", masks), real("correct", correct, (1, 2), "(models, queries)").astype(np.float64)
    if inside.ndim != 2 or not inside.size or len(inside) != len(right):
        raise DataError(f"masks has shape {inside.shape}; expected ({len(right)}, n), one row for each of correct")
    if inside.dtype != np.bool_ and not np.isin(inside, (0, 1)).all():
        raise DataError("masks has entries other than 0 and 1; expected which samples each model was trained on")
    if len(inside) < LEAST:
        raise DataError(
            f"masks has {len(inside)} models; expected at least {LEAST}, as the answer is a difference of means"
        )
    if right.min() < 0 or right.max() > 1:
        raise DataError(
            f"correct reaches from {right.min():.4g} to {right.max():.4g}; expected 0 for wrong and 1 for right"
        )
    return inside.astype(np.float64), right


def _warn(count: NumPy, models: int) -> None:
    unknown = np.flatnonzero((count == 0) | (count == models))
    if len(unknown):
        where = "every subset" if count[unknown[0]] else "no subset"
        warnings.warn(
            f"masks: sample {unknown[0]} is in {where}; the values of {len(unknown)} such samples are NaN: use more models",
            stacklevel=3,
        )


def _difference(within: NumPy, without: NumPy, count: NumPy, others: NumPy) -> tuple[NumPy, NumPy]:
    """Difference of two shares and its standard error, from sums and counts; NaN where a count is 0."""
    count, others = np.where(count > 0, count, np.nan), np.where(others > 0, others, np.nan)
    # rounding of sums of shares may leave a share a little outside [0, 1]
    inside, outside = np.clip(within / count, 0, 1), np.clip(without / others, 0, 1)
    return inside - outside, np.sqrt(inside * (1 - inside) / count + outside * (1 - outside) / others)


@dataclass(frozen=True)
class Memorization:
    """Samples that a model gets right only when it was trained on them: atypical ones, and wrong labels.

    Models of random subsets of the training samples, evaluated on all training samples; no validation samples are used.
    The paper trains 4,000 models for CIFAR-100 and 2,000 for ImageNet; 40 tell wrong labels and typical samples apart, with
    standard errors of at most 0.17. Memory: a byte for each of models x n, 16 c
    bytes for each of 20 n answers in c classes, and what the learner needs.

    Args:
        models: How many are trained, at least 10.
        share: Of the samples, in (0, 1), that each model is trained on.
        learner: What is trained (see `modicum.measurement.Utilities`); `network` is the recipe.
        encoder: On whose features, for learners other than networks.
    """

    models: int = 40
    share: float = 0.7
    learner: str = "network"
    encoder: str = "inputs"

    card: ClassVar[Card] = Card(
        key="memorization",
        title="Accuracy on a sample with and without training on it",
        paper="Feldman, Zhang, What Neural Networks Memorize and Why, 2020, arXiv 2008.03703",
        saves=("samples",),
    )

    def needs(self) -> tuple[Utilities]:
        """The learner on any subset."""
        from modicum.measurement.utilities import Utilities

        return (Utilities(self.learner, self.encoder),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Differences of accuracy with their standard errors; stops at the deadline and goes on another time."""
        if not 0 < self.share < 1:
            raise DataError(f"share={self.share}; expected a share in (0, 1)")
        if self.models < LEAST:
            raise DataError(f"models={self.models}; expected at least {LEAST}, as the answer is a difference of means")
        labels, order = checked(data, measured[0])
        if labels is None:
            labels = labels_of("train", data.train).numpy()  # which says that there are none
        utility = _on_train(measured[0])
        size = max(1, min(len(order) - 1, round(self.share * len(order))))
        with utility.charged(ctx, self.card.key):
            masks = _subsets(self.models, len(order), size, ctx.generator(self.card.key, "subsets"))
            parts = torch.arange(self.models).tensor_split(-(-self.models // BATCH))
            told = _Sums(len(order))
            for step in steps_of(self, data, ctx, utility)(len(parts), [told]):
                inside = masks[parts[step]]
                told.add(inside, utility.outcomes(inside, "correct"))
            found = told.estimate(self.models)
        return replace(as_scores(self, data, labels, order, found), kind="difficulty", unit="accuracy")


def _on_train(utility: Utility) -> Utility:
    """The same learner, asked about the training samples."""
    from modicum.measurement.utilities import Utility

    problem = utility.problem
    own = replace(problem, queries=problem.features, wanted=problem.targets, asked=problem.train)
    return Utility(own, utility.learner)


class _Sums:
    """Right answers with and without each sample, over the models so far."""

    def __init__(self, n: int) -> None:
        self.models = 0
        self.count = torch.zeros(n, dtype=torch.int64)
        self.within, self.total = torch.zeros(2, n, dtype=torch.float64)

    def add(self, masks: Tensor, correct: Tensor) -> None:
        self.models += len(masks)
        self.count += masks.sum(0)
        self.within += (correct * masks).sum(0)
        self.total += correct.sum(0)

    def estimate(self, models: int) -> Estimate:
        done = self.models
        sums = (self.within, self.total - self.within, self.count, done - self.count)
        values, errors = _difference(*(part.numpy() for part in sums))
        values, errors = np.where(np.isnan(values), 0.0, values), np.where(np.isnan(errors), np.inf, errors)
        note = f"{done:,} models" if done == models else f"stopped after {done:,} of {models:,} models"
        if unknown := int(np.isinf(errors).sum()):
            note += f"; {unknown} samples were in every subset or in none: use more models"
        return Estimate(values, errors, done, done, note)

    def state_dict(self) -> dict[str, Any]:
        return {"models": self.models, "count": self.count, "within": self.within, "total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.models = state["models"]
        self.count, self.within, self.total = state["count"].clone(), state["within"].clone(), state["total"].clone()


def _subsets(count: int, n: int, size: int, draw: torch.Generator) -> Tensor:
    """(count, n) masks of subsets of the same size.

    What each subset leaves out is dealt from shuffled decks of all samples, one after another, so that every sample is left
    out as often as any other, give or take one: none is always in and none never, as soon as there are a few subsets.
    """
    masks = torch.ones(count, n, dtype=torch.bool)
    deck = torch.randperm(n, generator=draw)
    for mask in masks:
        hand = deck[: n - size]
        deck = deck[n - size :]
        if len(hand) < n - size:
            fresh = torch.randperm(n, generator=draw)
            again = torch.isin(fresh, hand)
            fresh = torch.cat([fresh[~again], fresh[again]])  # nobody twice in one hand
            missing = n - size - len(hand)
            hand, deck = torch.cat([hand, fresh[:missing]]), fresh[missing:]
        mask[hand] = False
    return masks
