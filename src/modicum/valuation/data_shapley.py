"""Data Shapley: what a sample adds to a model, averaged over all sets of others that could be there before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from modicum.errors import DataError
from modicum.methods import Card
from modicum.scores import Scores
from modicum.valuation.game import Estimate, as_game, tolerance_of
from modicum.valuation.permutations import PermutationRun, carry_out
from modicum.valuation.players import as_scores, checked, estimate_by_permutations

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.utilities import Utilities

__all__ = ["DataShapley", "tmc_shapley"]


def tmc_shapley(
    utility: Any,
    generator: torch.Generator,
    permutations: int = 1000,
    players: int | None = None,
    truncation: str = "relative",
    tolerance: float = 0.01,
    patience: int = 5,
    antithetic: bool = True,
    stop: str = "change",
    threshold: float | None = None,
) -> Estimate:
    """The Shapley value of every player by truncated Monte Carlo over permutations.

    `phi_i = E over permutations of v(those before i, and i) - v(those before i)`. Without truncation every permutation
    adds up to `v(all) - v(nobody)` exactly, and the estimate is unbiased; truncation gives whoever comes after the worth of
    all is nearly reached nothing.

    Args:
        utility: `modicum.measurement.Utility` or whatever has its `players`, `full` and `prefixes`; or a function of
            (b, n) booleans that gives the (b,) worth of sets.
        generator: Of the permutations.
        permutations: At most so many; rounded up to even when antithetic.
        players: How many there are, where the utility is a function.
        truncation: What is near: within `tolerance` times `|v(all)|` (`relative`), within `tolerance` (`absolute`),
            within the standard deviation of `v(all)` over 100 bootstraps of the validation samples (`bootstrap`), or never
            (`none`).
        tolerance: See `truncation`; >= 0.
        patience: A permutation is cut off after more than so many near values in a row.
        antithetic: Whether every permutation comes with its reverse.
        stop: When to stop earlier, looked at from 100 permutations on. `change`: the values moved by less than 5 % in the
            last 100 permutations, on average (the paper's rule; values near 0 keep it from being met). `error`: the
            largest standard error is below 0.01 of what all players add (loose for many players, whose values are small).
            `gelman-rubin`: below 1.05 over ten chains. `stability`: another sampling like this would correlate by 0.95
            with this one. `budget`: never.
        threshold: Instead of the number of the rule.

    Returns:
        Values in the units of the utility, their standard errors over the permutations (pairs, when antithetic), how many
        there were, and a note.

    Raises:
        DataError: An argument is out of range, or a utility is not finite.

    Example:
        >>> game = lambda masks: masks.double() @ torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        >>> tmc_shapley(game, torch.Generator(), 2, players=3, truncation="none").values.tolist()
        [1.0, 2.0, 3.0]

    Reference:
        Ghorbani, Zou, Data Shapley: Equitable Valuation of Data for Machine Learning, 2019, arXiv 1904.02868; antithetic
        permutations: Mitchell et al., Sampling Permutations for Shapley Value Estimation, 2021, arXiv 2104.12199.
    """
    game = as_game(utility, players)
    near = tolerance_of(game, truncation, tolerance, generator)
    run = PermutationRun(
        game, ["shapley"], generator, permutations, near, patience, antithetic, stop, threshold=threshold
    )
    return carry_out(run)[0]


@dataclass(frozen=True)
class DataShapley:
    """Data Shapley by truncated Monte Carlo (TMC), which trains a learner up to `permutations` times n times.

    So the default learner is ridge regression, which grows by a sample at a time in closed form: 1,000 permutations of a
    thousand samples take seconds where training anew takes hours. With `network` choose few permutations, and a deadline.
    Values of classification are in units of validation accuracy. Memory: 32 permutations are walked through at once, which
    takes at most about 8 * 32 * (4 n + 2 d^2 + 16 (2 d + m) + 6 m c) bytes for ridge regression on n training and m
    validation samples with d < n features and c classes, and fewer at once where that is much.

    Args:
        permutations: At most; in practice about 3 n suffice for the values, fewer for finding wrong labels.
        learner: What is trained (see `modicum.measurement.Utilities`).
        encoder: On whose features.
        metric: Of the utility.
        truncation: See `tmc_shapley`.
        tolerance: See `tmc_shapley`.
        patience: See `tmc_shapley`.
        antithetic: See `tmc_shapley`.
        stop: See `tmc_shapley`.
        threshold: See `tmc_shapley`.
        sources: Whether the sources of a mixture are the players; their values are spread equally over their samples.
    """

    permutations: int = 1000
    learner: str = "ridge"
    encoder: str = "inputs"
    metric: str = "auto"
    truncation: str = "relative"
    tolerance: float = 0.01
    patience: int = 5
    antithetic: bool = True
    stop: str = "change"
    threshold: float | None = None
    sources: bool = False

    card: ClassVar[Card] = Card(
        key="data-shapley",
        title="Shapley values of a learner by truncated Monte Carlo",
        paper="Ghorbani, Zou, Data Shapley: Equitable Valuation of Data for Machine Learning, 2019, arXiv 1904.02868",
        saves=("samples", "labels"),
        tasks=("classification", "regression"),
        growth=2.0,
    )

    def needs(self) -> tuple[Utilities]:
        """The learner's worth on any subset."""
        from modicum.measurement.utilities import Utilities

        return (Utilities(self.learner, self.encoder, self.metric),)  # type: ignore[arg-type]  # checked there

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Values with standard errors; stops at the deadline and goes on from there another time."""
        labels, order = checked(data, measured[0])
        groups = None
        if self.sources:
            if data.train.sources is None:
                raise DataError("sources=True, but train has no sources; use a mixture, or sources=False")
            groups = np.unique(data.train.sources.numpy()[order], return_inverse=True)[1]
        found = estimate_by_permutations(self, "shapley", data, ctx, measured[0], groups)
        if groups is not None:
            size = np.bincount(groups)
            found = found._replace(values=(found.values / size)[groups], errors=(found.errors / size)[groups])
        return as_scores(self, data, labels, order, found, measured[0])
