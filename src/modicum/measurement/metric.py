"""How good answers are: of a whole validation set, and of each query."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from modicum.errors import DataError
from modicum.measurement.learners.problem import Learner, Problem

__all__ = ["METRICS", "Metric", "Outcome", "constant_worth", "empty_worth", "metric_of", "outcome_of"]

Metric = Literal["auto", "accuracy", "probability", "squared-error"]
Outcome = Literal["margin", "correct"]
METRICS = ("auto", "accuracy", "probability", "squared-error")
TIE = 1e-12  # outputs that are equal up to rounding have one winner, the lowest class
LEAST = math.log(1e-12)  # of the logarithms of probabilities


def metric_of(metric: Metric, problem: Problem, learner: Learner) -> Callable[[Tensor], Tensor]:
    """The function from outputs (b, m, c) to (b,) values, NaN where outputs are not numbers.

    Raises:
        DataError: The metric does not suit the targets or the learner.
    """
    if (metric == "squared-error") == bool(problem.classes):
        kind = "classes" if problem.classes else "regression"
        raise DataError(f"metric={metric!r} does not suit targets for {kind}; use 'auto'")
    if metric == "probability" and learner.gives == "scores":
        raise DataError(f"metric='probability' needs a learner that gives probabilities; {learner!r} gives scores")
    wanted, m = problem.wanted, len(problem.wanted)
    if metric == "squared-error":
        return lambda answers: -(answers[..., 0] - wanted).square().mean(1)
    index = wanted[None, None]
    if metric == "probability":

        def probability(answers: Tensor) -> Tensor:
            given = answers.mT.softmax(1) if learner.gives == "logits" else answers.mT
            return given.gather(1, index.expand(len(given), 1, m))[:, 0].mean(1)

        return probability
    step = -TIE * torch.arange(problem.classes, dtype=torch.float64, device=wanted.device)

    def accuracy(answers: Tensor) -> Tensor:
        # the right output against the largest: torch's argmax over a dimension that is not the last is slow
        given = answers.mT + step[:, None]
        best = given.amax(1)
        right = given.gather(1, index.expand(len(given), 1, m))[:, 0] >= best
        found = torch.count_nonzero(right, dim=1).double() / m
        return torch.where(best.sum(1).isfinite(), found, torch.nan)

    return accuracy


def outcome_of(answers: Tensor, kind: Outcome, problem: Problem, learner: Learner) -> Tensor:
    """(b, m) how well each query is answered, see `Utility.outcomes`."""
    wanted = problem.wanted
    if not problem.classes:
        error = (answers[..., 0] - wanted).abs()
        return -error if kind == "margin" else (error < 0.5).double()
    step = -TIE * torch.arange(problem.classes, dtype=torch.float64, device=wanted.device)
    if kind == "correct":
        return ((answers + step).argmax(-1) == wanted).double()
    if learner.gives == "probabilities":
        given = answers.log().clamp_min(LEAST)
    else:  # a class that the set has not is no more likely than that, or no better than the worst class it has
        least = answers.masked_fill(answers.isinf(), torch.inf).amin(-1, keepdim=True)
        given = (
            answers.clamp_min(answers.amax(-1, keepdim=True) + LEAST)
            if learner.gives == "logits"
            else answers.maximum(least)
        )
    at = wanted[None, :, None].expand(len(given), -1, 1)
    return given.gather(2, at)[..., 0] - given.scatter(2, at, -torch.inf).amax(-1)


def constant_worth(problem: Problem, answer: int) -> float:
    """What always answering this class is worth."""
    return float((problem.wanted == answer).double().mean())


def empty_worth(metric: Metric, problem: Problem, learner: Learner) -> float:
    """What nobody is worth."""
    if metric == "squared-error":
        return -float(problem.wanted.double().square().mean())
    if metric == "probability":
        return 0.0 if learner.any_subset else 1 / problem.classes
    return float(problem.wanted.bincount().max()) / len(problem.wanted)
