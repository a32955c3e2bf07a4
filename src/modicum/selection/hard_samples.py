"""Hard samples: train again and again on the mini-batches with the largest losses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from modicum.errors import DataError, TrainingError
from modicum.methods import Card
from modicum.options import check_options
from modicum.training.observed import Observed, of_all
from modicum.training.order import permutation

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.training.recipe import Recipe

__all__ = ["HardBatchSampler", "HardSamples"]


class HardBatchSampler(torch.utils.data.Sampler[list[int]]):
    """Mini-batches to visit in each round, from their losses when they were last visited.

    The n samples are cut once into `b = floor(n / batch_size)` batches that stay as they are. Round 0 visits all of them,
    every later round the `k = floor(delta b)` batches with the largest mean loss at their last visit, in the order of
    the partition (ties: the earlier batch). The loss of a batch that is not visited stays what it was, so it comes back
    when the others have fallen below it. The budget is in updates: `epochs * b` in all, the last round may be cut short.
    With `delta=1` this is plain training with a fixed order of fixed batches. A round costs delta of an epoch.

    In a loop of your own::

        sampler = HardBatchSampler(len(data), batch_size=64, epochs=20)
        loader = DataLoader(data_with_indices, batch_sampler=sampler)
        for number in range(sampler.rounds):
            sampler.set_epoch(number)
            for inputs, targets, indices in loader:
                losses = cross_entropy(model(inputs), targets, reduction="none")
                sampler.update(indices, losses).backward()

    With several processes (`torch.distributed`), `update` gathers the losses of all, so that all choose alike; every
    process must call it. Process r of D is given the samples r, r + D, ... of every batch.

    Memory is about 24 n bytes.

    Args:
        n: Number of samples.
        batch_size: Samples a batch.
        epochs: Budget, in updates of so many passes over all batches; None for one that has no end.
        delta: Share of the batches that a round visits, in (0, 1].
        seed: Of the partition.
        shuffle: Whether the partition is drawn at random, or follows the order of the data, as in the released code.
        drop_last: Whether the n mod batch_size samples at the end of the partition are left out for good, as in the
            paper, or make a smaller batch.
        rank: Number of this process, from 0; for iteration only.
        world: Number of processes that share a batch.

    Raises:
        DataError: A number is out of range, delta is less than one batch, or a batch has fewer samples than there are
            processes.

    Example:
        >>> sampler = HardBatchSampler(8, batch_size=2, epochs=2, shuffle=False)
        >>> list(sampler)
        [[0, 1], [2, 3], [4, 5], [6, 7]]
        >>> sampler.observe(torch.arange(8), torch.tensor([4.0, 4, 1, 1, 3, 3, 2, 2]))
        >>> sampler.set_epoch(1)
        >>> list(sampler), sampler.rounds
        ([[0, 1], [4, 5]], 3)

    Reference:
        Sahayam, Zakkam and Jayaraman, Can we learn better with hard samples?, 2023, arXiv 2304.03486.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        epochs: float | None = None,
        delta: float = 0.5,
        seed: int = 0,
        *,
        shuffle: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        for name, value, right, expected in (
            ("n", n, n >= 1, "an integer >= 1"),
            ("batch_size", batch_size, 1 <= batch_size <= n, f"an integer from 1 to the {n} samples"),
            ("epochs", epochs, epochs is None or epochs > 0, "a number > 0, or None"),
            ("delta", delta, 0 < delta <= 1, "a share in (0, 1]"),
            ("rank", rank, 0 <= rank < world, f"0 to {world - 1}, the processes of world={world}"),
        ):
            if not right:
                raise DataError(f"{name}={value!r}; expected {expected}")
        self.n, self.batch_size, self.delta, self.seed, self.drop_last = n, batch_size, delta, seed, drop_last
        self._rank, self._world = rank, world
        partition = permutation(n, seed, 0) if shuffle else torch.arange(n)
        whole = partition[: n // batch_size * batch_size] if drop_last else partition
        self.batches = list(torch.split(whole, batch_size))
        self.each_round = math.floor(delta * len(self.batches) + 1e-9)
        if self.each_round < 1:
            raise DataError(
                f"delta={delta!r} of {len(self.batches)} batches is less than one batch; expected at least "
                f"{1 / len(self.batches):.3g}, or a smaller batch_size than {batch_size}"
            )
        if len(self.batches[-1]) < world:
            raise DataError(
                f"world={world} processes for a batch of {len(self.batches[-1])} samples; expected at least one sample "
                "for each: take a larger batch_size or drop_last=True"
            )
        self.updates = None if epochs is None else max(1, round(epochs * len(self.batches)))
        self.batch_of = torch.full((n,), -1)
        for number, batch in enumerate(self.batches):
            self.batch_of[batch] = number
        self._table = torch.full((len(self.batches),), torch.inf, dtype=torch.float64)
        self._sums, self._counts = torch.zeros_like(self._table), torch.zeros_like(self._table)
        self._observed = Observed(n)
        self._chosen = torch.arange(len(self.batches))
        self._started, self._round = -1, 0

    @property
    def rounds(self) -> int:
        """How many rounds the budget is for.

        Raises:
            DataError: The sampler was made without a budget.
        """
        if self.updates is None:
            raise DataError("epochs=None: this sampler has no end; say how many epochs of updates there are")
        return 1 + max(0, math.ceil((self.updates - len(self.batches)) / self.each_round))

    @property
    def table(self) -> Tensor:
        """(b,) mean loss of every batch at its last visit; infinite for one that was never visited."""
        self._gather()
        seen = self._counts > 0
        return torch.where(seen, self._sums / self._counts.clamp(min=1), self._table)

    def order(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        """Positions of a round, batch after batch: a function of (seed, losses seen before it began); no weights."""
        chosen = [self.batches[b] for b in self._batches(epoch)]
        return torch.cat(chosen) if chosen else self.batches[0][:0], None

    def _batches(self, number: int) -> list[int]:
        """The batches of a round, chosen when it is first asked for."""
        if number != self._started:
            self._table = self.table
            if bool(self._table.isnan().any()):
                at = int(self._table.isnan().nonzero()[0])
                raise TrainingError(
                    f"the loss of batch {at} is nan before round {number}, so that batches cannot be ranked; try a "
                    "lower learning rate, or look for extreme inputs"
                )
            self._sums, self._counts = torch.zeros_like(self._table), torch.zeros_like(self._table)
            hardest = self._table.argsort(descending=True, stable=True)[: self.each_round]
            self._chosen = hardest.sort().values if number else torch.arange(len(self.batches))
            self._started = number
        chosen: list[int] = self._chosen.tolist()
        if self.updates is None:
            return chosen
        before = 0 if number == 0 else len(self.batches) + (number - 1) * self.each_round
        return chosen[: max(0, self.updates - before)]

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """Remember losses for the rounds to come; a batch may come in parts.

        Args:
            indices: (b,) positions.
            losses: (b,) their losses before the update, not averaged.

        Raises:
            DataError: One loss for the whole batch, or shapes that do not fit; when the next round begins, a position
                that no sample has.
        """
        self._observed.add(indices, losses)

    def _gather(self) -> None:
        new = self._observed.take()
        if new is None:
            return
        at, losses = self.batch_of[new[0]], new[1].double()
        inside = at >= 0
        self._sums.index_add_(0, at[inside], losses[inside])
        self._counts.index_add_(0, at[inside], torch.ones_like(losses[inside]))

    def state_dict(self) -> dict[str, Any]:
        """Everything the rest of the run depends on."""
        self._gather()
        tensors = {"table": self._table, "sums": self._sums, "counts": self._counts, "chosen": self._chosen}
        return {name: t.clone() for name, t in tensors.items()} | {"started": self._started, "round": self._round}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """The inverse of `state_dict`."""
        if len(state["table"]) != len(self.batches):
            raise DataError(f"the saved state is for {len(state['table'])} batches; expected {len(self.batches)}")
        self._table, self._sums = state["table"].clone(), state["sums"].clone()
        self._counts, self._chosen = state["counts"].clone(), state["chosen"].clone()
        self._started, self._round, self._observed = int(state["started"]), int(state["round"]), Observed(self.n)

    def set_epoch(self, epoch: int) -> None:
        """Say which round the next iteration is for."""
        self._round = epoch

    def __iter__(self) -> Iterator[list[int]]:
        for number in self._batches(self._round):
            yield self.batches[number][self._rank :: self._world].tolist()

    def __len__(self) -> int:
        return len(self._batches(self._round))

    def update(self, indices: Tensor, losses: Tensor) -> Tensor:
        """Remember the losses (b,) of a batch and give the loss to train on, their mean.

        With several processes it is the losses of all that are remembered, and b is the mean of their sizes.
        """
        every, values, share = of_all(indices, losses.detach(), self.n)
        self.observe(every, values)
        return losses.sum() * share


@dataclass(frozen=True)
class HardSamples:
    """After one epoch on all batches, epochs on the hardest share of them only.

    An epoch of the recipe is a round: it costs delta of an epoch on all data, and that is what is saved. The paper holds
    the number of updates equal instead and claims a better model: `epochs = 1 + (E - 1) / delta` do the updates of E
    plain epochs where delta of the batches is a whole number, and slightly fewer elsewhere.

    Args:
        delta: Share of the batches that an epoch after the first visits.
        drop_last: Whether the samples that fill no batch are never visited, as in the paper, or make a smaller one.
    """

    delta: float = 0.5
    drop_last: bool = True

    card: ClassVar[Card] = Card(
        key="hard-samples",
        title="Train on the mini-batches with the largest losses",
        paper="Sahayam, Zakkam and Jayaraman, Can we learn better with hard samples?, 2023, arXiv 2304.03486",
        saves=("compute",),
        tasks=("classification", "regression"),
    )

    def __post_init__(self) -> None:
        check_options(self, positive=("delta",), shares=("delta",))

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def sampler(self, data: Splits, recipe: Recipe, ctx: Context) -> HardBatchSampler:
        """The rounds of a training run by this recipe; of one batch at least, where delta of them is less."""
        n = len(data.train)
        if n < 1:
            raise DataError("train has 0 samples; expected at least one")
        size = min(recipe.batch_size, n)
        share = max(self.delta, 1 / (n // size if self.drop_last else -(-n // size)))
        return HardBatchSampler(n, size, None, share, ctx.seed, shuffle=recipe.shuffle, drop_last=self.drop_last)
