"""Dyn-Unc: how much the confidence in the label varies within a few epochs, over all of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from modicum.arrays import BLOCK, Array, back
from modicum.errors import DataError, ModicumError
from modicum.methods import Card
from modicum.options import check_options
from modicum.reading import by_id, labels_of, recorded
from modicum.scores import Scores
from modicum.valuation.dataset_cartography import probabilities_of_labels
from modicum.valuation.spread import mean_and_error, placed

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.traces import Traces

__all__ = ["DynUnc", "dyn_unc"]


def dyn_unc(probabilities: Array, window: int = 10) -> Array:
    """The mean over a run of how much the probability of the label varies within a window of J epochs.

    `U_t = std(q_t ... q_{t+J-1})`, unbiased (divided by J - 1), and the mean of `U_t` over `t = 0 .. T-J-1`, the
    windows of the paper, which leave out the last; with `T = J` there is one window. Sums over windows are differences
    of cumulative sums, so time is T n operations whatever J; memory is that of a block beside the inputs.

    Args:
        probabilities: (epochs, n) of the label, each time the sample was presented, in [0, 1].
        window: J, epochs that are looked at together, 2..T.

    Returns:
        (n,) difficulties from 0 (nothing changed) to about 1/2 for wide windows, higher = more uncertain.

    Raises:
        DataError: Another shape, something is no probability, or a window outside 2..T.

    Example:
        >>> import numpy as np
        >>> dyn_unc(np.array([[0.0, 0.5], [1.0, 0.5], [0.0, 0.5], [1.0, 0.5]]), window=2).round(4).tolist()
        [0.7071, 0.0]

    Reference:
        He et al., Large-scale Dataset Pruning with Dynamic Uncertainty, 2024, arXiv 2306.05175.
    """
    checked = probabilities_of_labels(probabilities)
    epochs = len(checked)
    if isinstance(window, bool) or not isinstance(window, int) or not 2 <= window <= epochs:
        raise DataError(f"window={window!r}; expected an integer from 2 to the number of epochs, {epochs}")
    return back(_mean_spread(checked, window).cpu().numpy(), probabilities)


def _mean_spread(q: Tensor, window: int) -> Tensor:
    """(n,) mean over windows of the standard deviation within one, in float64 where there is one."""
    exact = torch.float32 if q.device.type == "mps" else torch.float64
    windows = max(1, len(q) - window)
    found = []
    for part in torch.split(q, max(1, BLOCK // len(q)), dim=1):
        away = part.to(exact) - part[0]  # so that what never changes has a spread of just zero
        sums, squares = (_sums(moment, window)[:windows] for moment in (away, away.square()))
        variance = (squares - sums.square() / window) / (window - 1)
        found.append(variance.clamp_(min=0).sqrt().mean(0))
    return torch.cat(found)


def _sums(rows: Tensor, window: int) -> Tensor:
    """(T - J + 1, n) sums of J rows that follow each other."""
    total = torch.cat([torch.zeros_like(rows[:1]), rows.cumsum(0)])
    return total[window:] - total[:-window]


@dataclass(frozen=True)
class DynUnc:
    """Samples of which the model keeps changing its mind; the sure and the hopeless can go.

    Args:
        window: Epochs that are looked at together; half of the run where it has no more than these.
        runs: Training runs that are averaged.
        until: Share of the training run that is looked at.

    Raises:
        ModicumError: A number out of range.
    """

    window: int = 10
    runs: int = 1
    until: float = 1.0

    card: ClassVar[Card] = Card(
        key="dyn-unc",
        title="How much the confidence in the label varies within a few epochs",
        paper="He et al., Large-scale Dataset Pruning with Dynamic Uncertainty, 2024, arXiv 2306.05175",
        saves=("samples",),
    )

    def __post_init__(self) -> None:
        check_options(self, positive=("window", "runs", "until"), shares=("until",))
        if self.window < 2:
            raise ModicumError(f"method 'dyn-unc' option window={self.window}; expected an integer >= 2")

    def needs(self) -> tuple[Traces]:
        """Traces of the training runs."""
        from modicum.measurement.traces import Traces

        return (Traces(self.runs, self.until),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """The mean over runs, with its standard error.

        Raises:
            DataError: A run of fewer than three epochs.
        """
        labels = labels_of("train", data.train, classes=2)
        with ctx.ledger.clock("choose", self.card.key):
            every = recorded("probability", measured[0].probability, data.train, epochs=True)
            epochs = every.shape[1]
            if epochs < 3:
                raise DataError(
                    f"probability was recorded in {epochs} epochs; expected at least 3: train for more epochs, or raise "
                    f"until={self.until:g}"
                )
            window = self.window if self.window < epochs else max(2, epochs // 2)
            order = by_id(data.train)  # sums round by place
            found = torch.stack([_mean_spread(probabilities_of_labels(run[:, order]), window) for run in every])
            means, spread = mean_and_error(found)
            values, errors = placed(means, order), None if spread is None else placed(spread, order)
        note = "" if window == self.window else f"windows of {window} epochs, as the run has {epochs}"
        unit = "standard deviation of the probability"
        return Scores(
            values, data.train.ids, self.card.key, "difficulty", unit, labels.numpy(), errors=errors, note=note
        )
