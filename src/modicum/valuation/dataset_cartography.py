"""Data maps: how sure a model is of each label while it trains, and how much that varies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from modicum.arrays import BLOCK, Array, back, tensor, to_numpy
from modicum.errors import DataError
from modicum.methods import Card
from modicum.options import check_options
from modicum.reading import by_id, labels_of, recorded
from modicum.scores import Order, Scores
from modicum.valuation.spread import mean_and_error, placed

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.traces import Traces

__all__ = ["DatasetCartography", "cartography"]

REGIONS = ("ambiguous", "hard", "easy")


def cartography(probabilities: Array, correct: Array, corrected: bool = False) -> tuple[Array, Array, Array]:
    """The three coordinates of every sample on a data map.

    With `q_e` the probability of the label in epoch e of E: confidence `mean_e q_e`, variability `std_e q_e` (of the
    population, so at most `sqrt(c (1 - c)) <= 1/2` where the confidence is c) and correctness, the number of epochs in
    which the label was the most probable class. Time is E n operations, memory that of a block beside the inputs.

    Args:
        probabilities: (epochs, n) of the label, each time the sample was presented, in [0, 1].
        correct: (epochs, n) whether the prediction was right.
        corrected: Add what the variance is estimated too low by, `sqrt(v + v^2 / (E - 1))` with the variance v.

    Returns:
        (n,) confidence in [0, 1], (n,) variability in [0, 1/2] (one epoch has none), (n,) correctness in 0..E.

    Raises:
        DataError: Shapes differ, something is no probability, `correct` is no truth, or one epoch is to be corrected.

    Example:
        >>> import numpy as np
        >>> sure, varies, right = cartography(np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([[0, 1], [1, 1]], bool))
        >>> sure.tolist(), varies.tolist(), right.tolist()
        ([0.5, 1.0], [0.5, 0.0], [1.0, 2.0])

    Reference:
        Swayamdipta et al., Dataset Cartography: Mapping and Diagnosing Datasets with Training Dynamics, 2020,
        arXiv 2009.10795.
    """
    checked = probabilities_of_labels(probabilities)
    right = to_numpy("correct", correct)
    if right.shape != tuple(checked.shape):
        raise DataError(f"correct has shape {right.shape}; expected {tuple(checked.shape)}, that of probabilities")
    truth = torch.from_numpy(right.astype(bool)).to(checked.device)
    if right.dtype != bool and not (right == right.astype(bool)).all():
        raise DataError(f"correct has entries from {right.min()} to {right.max()}; expected true and false, or 0 and 1")
    if corrected and len(checked) < 2:
        raise DataError("probabilities has 1 epoch; corrected=True needs at least two")
    confidence, variability = _moments(checked, corrected)
    correctness = truth.sum(0, dtype=torch.float64)
    like = checked if isinstance(probabilities, Tensor) else probabilities
    a, b, c = (back(found.cpu().numpy(), like) for found in (confidence, variability, correctness))
    return a, b, c


def probabilities_of_labels(probabilities: Any) -> Tensor:
    """(epochs, n) checked probabilities of the labels.

    Raises:
        DataError: Another shape, empty, not finite, or outside [0, 1].
    """
    checked = tensor("probabilities", probabilities, (2,), "(epochs, n)")
    off = (checked < -1e-6) | (checked > 1 + 1e-6)
    if bool(off.any()):
        epoch, sample = off.nonzero()[0].tolist()
        raise DataError(
            f"probabilities[{epoch}, {sample}] is {float(checked[epoch, sample]):.4g}; expected a number in [0, 1]"
        )
    return checked.clamp(0, 1)


def _moments(q: Tensor, corrected: bool) -> tuple[Tensor, Tensor]:
    """(n,) mean and spread over epochs, in float64 where there is one, a block of samples at a time."""
    exact = torch.float32 if q.device.type == "mps" else torch.float64
    means, spreads = [], []
    for part in torch.split(q, max(1, BLOCK // len(q)), dim=1):
        variance, mean = torch.var_mean(part.to(exact), 0, correction=0)
        if corrected:
            variance = variance + variance.square() / (len(q) - 1)
        means.append(mean)
        spreads.append(variance.sqrt())
    return torch.cat(means), torch.cat(spreads)


@dataclass(frozen=True)
class DatasetCartography:
    """Samples that the model is now sure of and now not teach most; those it is never sure of are often labeled wrong.

    Args:
        region: What is kept first: `ambiguous` (the highest variability), `hard` (the lowest confidence) or `easy` (the
            highest confidence).
        runs: Training runs that are averaged.
        until: Share of the training run that is looked at.
        corrected: See `cartography`.

    Raises:
        ModicumError: An unknown region, or a number out of range.
    """

    region: str = "ambiguous"
    runs: int = 1
    until: float = 1.0
    corrected: bool = False

    card: ClassVar[Card] = Card(
        key="dataset-cartography",
        title="How much the confidence in the label varies while training",
        paper="Swayamdipta et al., Dataset Cartography: Mapping and Diagnosing Datasets with Training Dynamics, 2020, "
        "arXiv 2009.10795",
        saves=("samples",),
    )

    def __post_init__(self) -> None:
        check_options(self, positive=("runs", "until"), shares=("until",), choices={"region": REGIONS})

    def needs(self) -> tuple[Traces]:
        """Traces of the training runs."""
        from modicum.measurement.traces import Traces

        return (Traces(self.runs, self.until),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Variability, or one less the confidence: the mean over runs, with its standard error.

        Raises:
            DataError: A run of one epoch has no variability.
        """
        labels = labels_of("train", data.train, classes=2)
        with ctx.ledger.clock("choose", self.card.key):
            every = recorded("probability", measured[0].probability, data.train, epochs=True)
            order = by_id(data.train)  # sums round by place
            if every.shape[1] < 2 and self.region == "ambiguous":
                raise DataError(
                    "probability was recorded in 1 epoch; variability needs at least 2: train for more epochs, raise "
                    f"until={self.until:g}, or use region='hard'"
                )
            moments = [
                _moments(probabilities_of_labels(run[:, order]), self.corrected and len(run) > 1) for run in every
            ]
            found = torch.stack([varies if self.region == "ambiguous" else 1 - sure for sure, varies in moments])
            right = recorded("correct", measured[0].correct, data.train, epochs=True)[..., order].double().mean((0, 1))
            columns = {
                "confidence": placed(torch.stack([sure for sure, _ in moments]).mean(0).numpy(), order),
                "variability": placed(torch.stack([varies for _, varies in moments]).mean(0).numpy(), order),
                "correctness": placed(right.numpy(), order),
            }
            means, spread = mean_and_error(found)
            values, errors = placed(means, order), None if spread is None else placed(spread, order)
        first: Order = "easiest" if self.region == "easy" else "hardest"
        unit = "standard deviation of the probability" if self.region == "ambiguous" else "probability"
        return Scores(
            values, data.train.ids, self.card.key, "difficulty", unit, labels.numpy(), first, errors, columns=columns
        )
