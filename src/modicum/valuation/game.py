"""Games: players, what any set of them is worth, and what a sampling of their values comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import NumPy
from modicum.errors import DataError

__all__ = ["Estimate", "Game", "Players", "as_game", "one_thread", "tolerance_of"]

TRUNCATIONS = ("relative", "absolute", "bootstrap", "none")
BOOTSTRAPS = 100
LIGHT = 1 << 16  # numbers that a learner keeps for each set


class Estimate(NamedTuple):
    """Values that were sampled.

    Args:
        values: (n,) float64.
        errors: (n,) standard errors; infinite where there were too few samples to tell.
        samples: Permutations, or sets, that were drawn.
        utilities: How many sets were asked about.
        note: How far the sampling came.
    """

    values: NumPy
    errors: NumPy
    samples: int
    utilities: int
    note: str


class Players(Protocol):
    """What is asked what sets of players are worth: `modicum.measurement.Utility`, or a `Game`."""

    @property
    def players(self) -> int: ...

    def prefixes(self, orders: Tensor, tolerance: float | None = None, patience: int = 5) -> tuple[Tensor, Tensor]: ...


class Game:
    """Any function of sets as a utility.

    Args:
        function: (b, players) booleans -> (b,) finite numbers: what each set is worth; tensors in, tensor or array out.
        players: How many there are.

    Raises:
        DataError: There are no players.

    Example:
        >>> game = Game(lambda masks: masks.sum(1) ** 2, 3)
        >>> game.empty, game.full, game.prefixes(torch.tensor([[2, 0, 1]]))[0].tolist()
        (0.0, 9.0, [[0.0, 1.0, 4.0, 9.0]])
    """

    def __init__(self, function: Callable[[Tensor], Any], players: int) -> None:
        if isinstance(players, bool) or not isinstance(players, int) or players < 1:
            raise DataError(f"players={players!r}; expected how many there are, an integer >= 1")
        self.function, self.players = function, players
        self.empty, self.full = self.values(torch.tensor([[False] * players, [True] * players])).tolist()

    def values(self, masks: Tensor) -> Tensor:
        """What each set is worth.

        Raises:
            DataError: A value is not finite; its set is named.
        """
        given = self.function(masks)
        found = torch.as_tensor(given.detach().cpu() if isinstance(given, Tensor) else np.asarray(given)).double()
        if found.shape != (len(masks),):
            raise DataError(f"the utility gave {tuple(found.shape)} for {len(masks)} sets; expected one number a set")
        bad = ~found.isfinite()
        if bad.any():
            who = masks[bad][0].nonzero()[:, 0].tolist()
            raise DataError(f"the utility of the players {who[:20]} is {float(found[bad][0])}; expected finite numbers")
        return found

    def prefixes(self, orders: Tensor, tolerance: float | None = None, patience: int = 5) -> tuple[Tensor, Tensor]:
        """What the players are worth as they join one by one (see `modicum.measurement.utilities.Utility.prefixes`)."""
        b, n = orders.shape
        values = torch.full((b, n + 1), self.empty, dtype=torch.float64)
        length = torch.full((b,), n)
        alive, hits, mask = torch.arange(b), torch.zeros(b, dtype=torch.int64), torch.zeros(b, n, dtype=torch.bool)
        for j in range(n):
            mask[alive, orders[alive, j]] = True
            found = self.values(mask[alive])
            values[alive, j + 1] = found
            if tolerance is None:
                continue
            hits[alive] = torch.where((found - self.full).abs() <= tolerance, hits[alive] + 1, 0)
            cut = hits[alive] > patience
            values[alive[cut], j + 2 :] = found[cut, None]
            length[alive[cut]] = j + 1
            alive = alive[~cut]
            if not len(alive):
                break
        return values, length


def as_game(utility: Any, players: int | None) -> Any:
    """A utility as it is, or a function of masks made one.

    Raises:
        DataError: It is neither, or a function without a number of players.
    """
    if hasattr(utility, "prefixes") and hasattr(utility, "players"):
        if players not in (None, utility.players):
            raise DataError(f"players={players}, but the utility has {utility.players}; leave it out")
        return utility
    if not callable(utility):
        raise DataError(f"utility is a {type(utility).__name__}; expected a utility or a function of (b, n) masks")
    if players is None:
        raise DataError("players is missing; say how many players the function of masks has")
    return Game(utility, players)


def tolerance_of(game: Any, truncation: str, tolerance: float, generator: torch.Generator) -> float | None:
    """How near to the worth of all is near enough: see `tmc_shapley`; None for never.

    Args:
        game: A utility; `bootstrap` needs one with `outcomes`, for the accuracy.
        truncation: See `tmc_shapley`.
        tolerance: See `tmc_shapley`.
        generator: Of the bootstraps.

    Raises:
        DataError: The truncation is unknown or does not suit the utility, or the tolerance is negative.
    """
    if truncation not in TRUNCATIONS:
        raise DataError(f"truncation={truncation!r}; expected one of {', '.join(TRUNCATIONS)}")
    if not tolerance >= 0:
        raise DataError(f"tolerance={tolerance}; expected a number >= 0")
    if truncation == "none":
        return None
    if truncation == "absolute":
        return tolerance
    if truncation == "relative":
        return float(tolerance * abs(game.full))
    if getattr(game, "metric", None) != "accuracy":
        raise DataError("truncation='bootstrap' needs a utility that is an accuracy; use 'relative' or 'absolute'")
    right = game.outcomes(torch.ones(1, game.players, dtype=torch.bool), "correct")[0]
    drawn = torch.randint(len(right), (BOOTSTRAPS, len(right)), generator=generator)
    return float(right[drawn].mean(1).std())


@contextmanager
def one_thread(game: Any) -> Iterator[None]:
    """Inside, utilities of small matrices are made by one thread: as fast, and not many times slower on shared processors.

    Args:
        game: A utility; of another kind than the library's own, it is left alone unless it says that it is `light`.
    """
    threads = torch.get_num_threads()
    learner, light = getattr(game, "learner", None), bool(getattr(game, "light", False))
    if learner is not None and not learner.costly:
        problem = game.problem
        light = learner.room(problem) + len(problem.wanted) * problem.columns <= LIGHT
    try:
        if light and threads > 1:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)
