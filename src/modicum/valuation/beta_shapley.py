"""Beta Shapley: like Data Shapley, with more weight on what a sample adds to few others, where it adds most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

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

__all__ = ["BetaShapley", "beta_shapley"]

LEAST = 1000  # permutations before convergence is looked at, as in the paper's code


def beta_shapley(
    utility: Any,
    generator: torch.Generator,
    alpha: float = 16.0,
    beta: float = 1.0,
    permutations: int = 1000,
    players: int | None = None,
    truncation: str = "none",
    tolerance: float = 0.01,
    patience: int = 5,
    antithetic: bool = True,
    stop: str = "gelman-rubin",
    threshold: float | None = 1.0005,
    least: int = LEAST,
) -> Estimate:
    """The Beta(alpha, beta) semivalue of every player, from permutations.

    `phi_i = E over permutations of w_j (v_j - v_{j-1})`, j being the place of player i, with the weights of
    `semivalue_weights(n, ("beta", alpha, beta))`: (1, 1) is the Shapley value, (16, 1) and (4, 1) look at small sets, (1, 4)
    and (1, 16) at large ones and tend to leave-one-out. With the same generator the permutations are those of
    `tmc_shapley`; for several semivalues at once see `semivalues_from_permutations`.

    Args:
        utility: See `tmc_shapley`.
        generator: Of the permutations.
        alpha: > 0.
        beta: > 0.
        permutations: At most so many; rounded up to even when antithetic.
        players: How many there are, where the utility is a function.
        truncation: See `tmc_shapley`; only `none` when alpha < beta, because then the marginals that truncation leaves
            out are those that count.
        tolerance: See `tmc_shapley`.
        patience: See `tmc_shapley`.
        antithetic: See `tmc_shapley`.
        stop: See `tmc_shapley`; by default the paper's: ten chains whose Gelman-Rubin statistic is below 1.0005.
        threshold: Of the rule.
        least: Permutations before the rule is looked at.

    Returns:
        Values in the units of the utility, standard errors, how many permutations there were, and a note.

    Raises:
        DataError: An argument is out of range, late marginals are both weighted and truncated, or a utility is not
            finite.

    Example:
        >>> game = lambda masks: masks.any(1)  # who comes first brings all
        >>> beta_shapley(game, torch.Generator(), 16, 1, 2, players=2).values.round(4).tolist()
        [0.9412, 0.9412]

    Reference:
        Kwon, Zou, Beta Shapley: a Unified and Noise-reduced Data Valuation Framework for Machine Learning, 2021, arXiv
        2110.14049.
    """
    game = as_game(utility, players)
    if game.players < 2:
        raise DataError("the utility has 1 player; expected at least 2, as the values weight the sizes of sets")
    refuse_late_truncation(alpha, beta, truncation)
    near = tolerance_of(game, truncation, tolerance, generator)
    kind = ("beta", alpha, beta)
    run = PermutationRun(
        game, [kind], generator, permutations, near, patience, antithetic, stop, threshold=threshold, least=least
    )
    return carry_out(run)[0]


def refuse_late_truncation(alpha: float, beta: float, truncation: str) -> None:
    """Truncation must not leave out what counts most.

    Raises:
        DataError: It would.
    """
    if alpha < beta and truncation != "none":
        raise DataError(
            f"truncation={truncation!r} leaves out what players add to large sets, which alpha={alpha:g} < beta={beta:g} "
            "weights most; use truncation='none', or alpha >= beta"
        )


@dataclass(frozen=True)
class BetaShapley:
    """Beta Shapley by permutations of a learner that is cheap to train (see `DataShapley`, also for memory).

    With the same seed it draws the permutations of `data-shapley`. 1,000 permutations at most: the paper's rule wants more
    on most data, at a cost that a deadline can bound instead.

    Args:
        alpha: Of the Beta distribution, > 0: the larger, the more small sets count.
        beta: > 0: the larger, the more large sets count.
        permutations: At most.
        learner: What is trained (see `modicum.measurement.Utilities`).
        encoder: On whose features.
        metric: Of the utility.
        truncation: See `beta_shapley`.
        tolerance: See `tmc_shapley`.
        patience: See `tmc_shapley`.
        antithetic: See `tmc_shapley`.
        stop: See `tmc_shapley`; looked at from 1,000 permutations on.
        threshold: Of the rule.
    """

    alpha: float = 16.0
    beta: float = 1.0
    permutations: int = 1000
    learner: str = "ridge"
    encoder: str = "inputs"
    metric: str = "auto"
    truncation: str = "none"
    tolerance: float = 0.01
    patience: int = 5
    antithetic: bool = True
    stop: str = "gelman-rubin"
    threshold: float | None = 1.0005

    card: ClassVar[Card] = Card(
        key="beta-shapley",
        title="Semivalues of a learner that favor what is added to few samples",
        paper="Kwon, Zou, Beta Shapley: a Unified and Noise-reduced Data Valuation Framework for Machine Learning, 2021, "
        "arXiv 2110.14049",
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
        refuse_late_truncation(self.alpha, self.beta, self.truncation)
        kind = ("beta", self.alpha, self.beta)
        found = estimate_by_permutations(self, kind, data, ctx, measured[0], least=LEAST)
        return as_scores(self, data, labels, order, found, measured[0])
