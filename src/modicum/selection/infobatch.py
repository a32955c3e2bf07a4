"""InfoBatch: skip well-learned samples at random while training, and weight the others so that gradients stay right."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from modicum.context import generator
from modicum.errors import DataError
from modicum.methods import Card
from modicum.training.observed import Observed, of_all
from modicum.training.order import permutation

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.training.recipe import Recipe

__all__ = ["InfoBatch", "InfoBatchSampler"]


class InfoBatchSampler(torch.utils.data.Sampler[int]):
    """Positions to visit in each epoch, from the losses last seen.

    Samples whose last loss is below the mean are well learned. Of these L, each epoch keeps `(1 - r) |L|` at random
    (rounded at random, so that it is right in expectation) with weight `1 / (1 - r)`; all others have weight 1. The
    expected weighted gradient is the gradient on all data. A sample never seen is never skipped, and from epoch
    `floor(delta epochs)` on, everything is visited. The order is that of plain training with the skipped samples left
    out: with `ratio=0` it is plain training to the bit.

    In a loop of your own::

        sampler = InfoBatchSampler(len(data), epochs=60)
        loader = DataLoader(data_with_indices, batch_size=64, sampler=sampler)
        for epoch in range(60):
            sampler.set_epoch(epoch)
            for inputs, targets, indices in loader:
                losses = cross_entropy(model(inputs), targets, reduction="none")
                sampler.update(indices, losses).backward()

    With several processes (`torch.distributed`), `update` gathers the losses of all, so that all choose alike; every
    process must call it. Process r of D is given the positions r, r + D, ... of the epoch; where D does not divide their
    number, the first ones come once more at the end. If your framework divides a sampler by itself, leave `world` at 1.

    Memory is about 24 n bytes.

    Args:
        n: Number of samples.
        epochs: Of the whole training run; fractions are allowed.
        ratio: Share r of the well-learned samples to skip, in [0, 1).
        delta: Share of the run, at its beginning, in which samples are skipped, in [0, 1].
        seed: Of the order and of what is skipped.
        rank: Number of this process, from 0; for iteration only.
        world: Number of processes that share an epoch.

    Raises:
        DataError: A number is out of range.

    Example:
        >>> sampler = InfoBatchSampler(100, epochs=8, ratio=0.5)
        >>> sampler.observe(torch.arange(100), torch.arange(100.0))
        >>> positions, weights = sampler.order(1)
        >>> len(positions), weights.unique().tolist(), float(weights.sum())
        (75, [1.0, 2.0], 100.0)

    Reference:
        Qin et al., InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning, 2024, arXiv 2303.04947.
    """

    def __init__(
        self,
        n: int,
        epochs: float,
        ratio: float = 0.5,
        delta: float = 0.875,
        seed: int = 0,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        for name, value, right, expected in (
            ("n", n, n >= 1, "an integer >= 1"),
            ("epochs", epochs, epochs > 0, "a number > 0"),
            ("ratio", ratio, 0 <= ratio < 1, "a share in [0, 1)"),
            ("delta", delta, 0 <= delta <= 1, "a share in [0, 1]"),
            ("rank", rank, 0 <= rank < world, f"0 to {world - 1}, the processes of world={world}"),
        ):
            if not right:
                raise DataError(f"{name}={value!r}; expected {expected}")
        self.n, self.epochs, self.ratio, self.delta, self.seed = n, epochs, ratio, delta, seed
        self._rank, self._world = rank, world
        self._losses = torch.full((n,), torch.nan)
        self._observed = Observed(n)
        self._epoch = 0
        self._started = -1
        self._before = self._losses.clone()
        self._made: tuple[Tensor, Tensor | None, Tensor] | None = None

    @property
    def losses(self) -> Tensor:
        """(n,) the loss of every sample when it was last seen; NaN for one never seen."""
        new = self._observed.take()
        if new is not None:
            # of a sample that comes twice, the last stays: NumPy promises that
            self._losses.numpy()[new[0].numpy()] = new[1].to(self._losses.dtype).numpy()
        return self._losses

    def order(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        """Positions of an epoch and their weights in the loss: a function of (seed, epoch) and of the losses seen
        before it began. None instead of weights when nothing is skipped."""
        positions, weights, _ = self._of(epoch)
        return positions, weights

    def _of(self, epoch: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Positions, their weights or None, and the weights by position, made once an epoch."""
        if epoch != self._started:
            self._started, self._before, self._made = epoch, self.losses.clone(), None
        if self._made is None:
            plain, weights = permutation(self.n, self.seed, epoch), self._weights(epoch)
            visited = weights[plain] > 0
            full = bool(visited.all())
            self._made = (plain, None, weights) if full else (plain[visited], weights[plain][visited], weights)
        return self._made

    def _weights(self, epoch: int) -> Tensor:
        if self.ratio == 0 or epoch >= math.floor(self.delta * self.epochs + 1e-9):
            return torch.ones(self.n)
        before = self._before.double()  # so that the mean of equal losses is not above them
        learned = (before < before.nanmean()).nonzero().flatten()  # NaN, never seen, compares as false
        draw = generator(self.seed, "infobatch", epoch)
        exact = (1 - self.ratio) * len(learned)
        keep = int(exact) + int(float(torch.rand((), generator=draw, dtype=torch.float64)) < exact - int(exact))
        weights = torch.ones(self.n)
        weights[learned] = 0.0
        weights[learned[torch.randperm(len(learned), generator=draw)[:keep]]] = 1 / (1 - self.ratio)
        return weights

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """Remember losses for the epochs to come.

        Args:
            indices: (b,) positions.
            losses: (b,) their losses, not weighted and not averaged.

        Raises:
            DataError: One loss for the whole batch, or shapes that do not fit; when the next epoch begins, a position
                that no sample has.
        """
        self._observed.add(indices, losses)

    def state_dict(self) -> dict[str, Any]:
        """Everything the rest of the run depends on."""
        return {
            "losses": self.losses.clone(),
            "before": self._before.clone(),
            "started": self._started,
            "epoch": self._epoch,
        }

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """The inverse of `state_dict`."""
        if len(state["losses"]) != self.n:
            raise DataError(f"losses of the saved state are for {len(state['losses'])} samples; expected {self.n}")
        self._losses, self._before, self._observed = state["losses"].clone(), state["before"].clone(), Observed(self.n)
        self._started, self._epoch, self._made = int(state["started"]), int(state["epoch"]), None

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is for."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        positions = self.order(self._epoch)[0]
        mine = torch.arange(self._rank, self._world * len(self), self._world) % len(positions)
        yield from positions[mine].tolist()

    def __len__(self) -> int:
        return -(-len(self.order(self._epoch)[0]) // self._world)

    @property
    def weights(self) -> Tensor:
        """(n,) weight of each sample in the loss of this epoch; 0 for one that is skipped."""
        return self._of(self._epoch)[2].clone()

    def update(self, indices: Tensor, losses: Tensor) -> Tensor:
        """Remember the losses (b,) of a batch and give the loss to train on, `sum_i w_i l_i / b`.

        With several processes it is the losses of all that are remembered, and b is the mean of their sizes.
        """
        every, values, share = of_all(indices, losses.detach(), self.n)
        self.observe(every, values)
        return (losses * self._of(self._epoch)[2][indices.cpu()].to(losses)).sum() * share


@dataclass(frozen=True)
class InfoBatch:
    """Train on all data, but visit what is learned less often.

    Args:
        ratio: Share of the well-learned samples to skip.
        delta: Share of the run in which samples are skipped.
    """

    ratio: float = 0.5
    delta: float = 0.875

    card: ClassVar[Card] = Card(
        key="infobatch",
        title="Skip well-learned samples while training",
        paper="Qin et al., InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning, 2024, "
        "arXiv 2303.04947",
        saves=("compute",),
        tasks=("classification", "regression"),
    )

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def sampler(self, data: Splits, recipe: Recipe, ctx: Context) -> InfoBatchSampler:
        """The order of samples for a training run by this recipe."""
        n = len(data.train)
        if n < 1:
            raise DataError("train has 0 samples; expected at least one")
        epochs = recipe.steps_for(n) / math.ceil(n / min(recipe.batch_size, n))
        return InfoBatchSampler(n, epochs, self.ratio, self.delta, ctx.seed)
