"""Data Banzhaf: what a sample adds to a random half of the others; every model that is trained informs all values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from modicum.errors import DataError
from modicum.methods import Card
from modicum.scores import Scores
from modicum.valuation.game import Estimate, as_game, one_thread
from modicum.valuation.players import as_scores, checked, steps_of

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.utilities import Utilities, Utility
    from modicum.store import Stateful

__all__ = ["DataBanzhaf", "data_banzhaf"]

BATCH = 64  # sets that are asked about at once


def data_banzhaf(
    utility: Any,
    generator: torch.Generator,
    samples: int = 10_000,
    players: int | None = None,
    p: float = 0.5,
) -> Estimate:
    """The Banzhaf value of every player by maximum sample reuse.

    `phi_i = E_S [v(S + i) - v(S)]`, every other player being in S with probability p, which is 1/2 for Banzhaf's value and
    something else for its weighted relatives. Sets with every player in them with probability p are drawn in pairs,
    complements for p = 1/2, and `phi_i = mean(v(S) | i in S) - mean(v(S) | i not in S)`: every set informs all values. The
    values do not sum to `v(all) - v(nobody)`, and nothing is rescaled to make them.

    Args:
        utility: `modicum.measurement.Utility` or whatever has its `players` and `values`; or a function of (b, n)
            booleans that gives the (b,) worth of sets.
        generator: Of the sets.
        samples: Sets to draw, at least 2; rounded up to even. The error falls as 1 / sqrt(samples / n).
        players: How many there are, where the utility is a function.
        p: Probability of each player to be there, in (0, 1).

    Returns:
        Values in the units of the utility, their standard errors over the pairs, how many sets there were, and a note. A
        player who was in all sets or in none has value 0 with an infinite error; the note says how many.

    Raises:
        DataError: An argument is out of range, or a utility is not finite.

    Example:
        >>> game = lambda masks: masks.double() @ torch.tensor([1.0, 2.0], dtype=torch.float64)
        >>> data_banzhaf(game, torch.Generator(), players=2).values.round(1).tolist()
        [1.0, 2.0]

    Reference:
        Wang, Jia, Data Banzhaf: A Robust Data Valuation Framework for Machine Learning, 2022, arXiv 2205.15466; with p:
        Li, Yu, Robust Data Valuation with Weighted Banzhaf Values, 2023.
    """
    game = as_game(utility, players)
    with one_thread(game):
        return _carry_out(_Reuse(game.players, game.values, generator, samples, p), None)


class _Reuse:
    """Sampling of pairs of sets that can stop and go on: for each player the second moments of (1, how many sets of the
    pair have the player, what these are worth, what the others are worth), 16 n numbers in all."""

    def __init__(
        self, players: int, values: Callable[[Tensor], Tensor], generator: torch.Generator, samples: int, p: float
    ) -> None:
        if samples < 2:
            raise DataError(f"samples={samples}; expected at least 2 sets")
        if not 0 < p < 1:
            raise DataError(f"p={p}; expected a probability in (0, 1)")
        self.players, self.values, self.generator, self.p = players, values, generator, p
        self.pairs = math.ceil(samples / 2)
        self.done = 0
        self.origin = 0.0  # of the worths, so that their squares do not cancel
        self.moments = torch.zeros(players, 4, 4, dtype=torch.float64)

    @property
    def steps(self) -> int:
        return math.ceil(2 * self.pairs / BATCH)

    def step(self) -> None:
        b = min(BATCH // 2, self.pairs - self.done)
        drawn = torch.rand(b, self.players, generator=self.generator, dtype=torch.float64)
        masks = torch.stack([drawn < self.p, drawn >= 1 - self.p], 1)  # complements when p = 1/2
        worth = self.values(masks.reshape(2 * b, -1)).reshape(b, 2)
        if not self.done:
            self.origin = float(worth.mean())
        worth = (worth - self.origin)[..., None]
        inside = masks.double()
        row = torch.stack(
            [inside.new_ones(b, self.players), inside.sum(1), (worth * inside).sum(1), (worth * (1 - inside)).sum(1)], 2
        )
        self.moments += torch.einsum("bni,bnj->nij", row, row)
        self.done += b

    def estimate(self) -> Estimate:
        t = self.done
        _, inside, sum_in, sum_out = (self.moments[:, 0] / t).T
        outside = 2 - inside
        seen = (inside > 0) & (outside > 0)
        inside, outside = inside.clamp_min(1 / t), outside.clamp_min(1 / t)
        mean_in, mean_out = sum_in / inside, sum_out / outside
        # how far each pair moves the difference of the two means, which are ratios: linear in its row of four numbers
        line = torch.stack(
            [2 * mean_out / outside, -mean_in / inside - mean_out / outside, 1 / inside, -1 / outside], 1
        )
        spread = torch.einsum("ni,nij,nj->n", line, self.moments, line).clamp_min(0)
        errors = (spread / max(1, t - 1) / t).sqrt() if t > 1 else torch.full_like(inside, torch.inf)
        values = torch.where(seen, mean_in - mean_out, 0.0)
        errors = torch.where(seen, errors, torch.inf)
        told = f"{2 * t:,} sets" if t == self.pairs else f"stopped after {2 * t:,} of {2 * self.pairs:,} sets"
        unseen = int((~seen).sum())
        told += f"; {unseen} samples were in all of them or in none: draw more" if unseen else ""
        return Estimate(values.numpy(), errors.numpy(), 2 * t, 2 * t, told)

    def state_dict(self) -> dict[str, Any]:
        return {
            "done": self.done,
            "origin": self.origin,
            "moments": self.moments,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done, self.origin, self.moments = state["done"], state["origin"], state["moments"].clone()
        self.generator.set_state(state["generator"])


def _carry_out(run: _Reuse, loop: Callable[[int, list[Stateful]], Iterator[int]] | None) -> Estimate:
    for _ in range(run.steps) if loop is None else loop(run.steps, [run]):
        run.step()
    return run.estimate()


def _repeated(utility: Utility, repeats: int) -> Callable[[Tensor], Tensor]:
    """What sets are worth, on average over other seeds of the learner: where it is random, a network."""
    from modicum.measurement.utilities import Utility

    problem, others = utility.problem, []
    if problem.ctx is not None and utility.learner.costly:
        for r in range(1, repeats):
            ctx = problem.ctx.with_(seed=problem.ctx.seed + 1_000_003 * r)  # and the same ledger
            others.append(Utility(replace(problem, ctx=ctx), utility.learner, utility.metric))

    def values(masks: Tensor) -> Tensor:
        return torch.stack([one.values(masks) for one in (utility, *others)]).mean(0)

    return values


@dataclass(frozen=True)
class DataBanzhaf:
    """Data Banzhaf by maximum sample reuse: of all semivalues the one whose ranking noise of the utility disturbs least.

    `samples` trainings of half the data each. Memory: 8 * 80 n bytes for the estimates and a batch of sets, and two
    blocks of at most 2^24 numbers for 64 trainings and their answers.

    Args:
        samples: Sets to train on, at least 2; made even.
        p: Probability of each sample to be in a set: 1/2, or another for weighted Banzhaf values.
        learner: What is trained (see `modicum.measurement.Utilities`).
        encoder: On whose features.
        metric: Of the utility.
        repeats: Trainings of every set from different seeds, averaged, where the learner is random (a network); the paper
            takes 5. For the same number of trainings, more sets serve better, unless the values of one seed differ from
            those of others.
    """

    samples: int = 10_000
    p: float = 0.5
    learner: str = "ridge"
    encoder: str = "inputs"
    metric: str = "auto"
    repeats: int = 1

    card: ClassVar[Card] = Card(
        key="data-banzhaf",
        title="Banzhaf values of a learner by maximum sample reuse",
        paper="Wang, Jia, Data Banzhaf: A Robust Data Valuation Framework for Machine Learning, 2022, arXiv 2205.15466",
        saves=("samples", "labels"),
        tasks=("classification", "regression"),
        growth=1.0,
    )

    def needs(self) -> tuple[Utilities]:
        """The learner's worth on any subset."""
        from modicum.measurement.utilities import Utilities

        return (Utilities(self.learner, self.encoder, self.metric),)  # type: ignore[arg-type]  # checked there

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Values with standard errors; stops at the deadline and goes on from there another time."""
        labels, order = checked(data, measured[0])
        utility: Utility = measured[0]
        if self.repeats < 1:
            raise DataError(f"repeats={self.repeats}; expected at least 1")
        with utility.charged(ctx, self.card.key), one_thread(utility):
            # one name whatever p is: the same seed draws the same numbers
            generator = ctx.generator("subsets")
            run = _Reuse(utility.players, _repeated(utility, self.repeats), generator, self.samples, self.p)
            found = _carry_out(run, steps_of(self, data, ctx, utility))
        return as_scores(self, data, labels, order, found, utility)
