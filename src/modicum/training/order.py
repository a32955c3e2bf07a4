"""Which samples come when: a pure function of (seed, epoch), so that resuming replays nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from modicum.context import generator
from modicum.dataset import Dataset
from modicum.errors import DataError

__all__ = ["Mixture", "Sampler", "Shuffle", "batch_sums", "permutation"]


class Sampler(Protocol):
    """Gives the positions of an epoch, and may learn from the losses.

    Where it visits another number of samples an epoch than there are, by plan and not by what it learned, `size` says so.
    Where weights depend on the losses of the batch itself, `weigh(step, losses)` gives them: (b,) for the detached losses
    (b,) of the whole batch at an optimizer step, a factor beside those of `order`. Where it chooses by the model,
    `end_epoch(epoch, model)` is called after the last update of each epoch.
    """

    def order(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        """Positions to visit in this epoch, in order, and their weights in the loss (None: all one)."""
        ...

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """Learn the unweighted losses (b,) of the samples at these positions."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


def permutation(n: int, seed: int, epoch: int) -> Tensor:
    """A permutation of 0..n-1 that depends on the seed and the epoch only.

    Example:
        >>> bool((permutation(10, seed=0, epoch=3) == permutation(10, seed=0, epoch=3)).all())
        True
    """
    return torch.randperm(n, generator=generator(seed, "order", epoch))


def batch_sums(weights: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """For each sample of an epoch, the sum of the weights in its batch, and how many samples that has.

    Args:
        weights: (m,) in the order of the epoch, >= 0.
        batch: Samples in a batch; the last may have fewer.

    Example:
        >>> sums, sizes = batch_sums(torch.tensor([1.0, 3.0, 2.0]), 2)
        >>> sums.tolist(), sizes.tolist()
        ([4.0, 4.0, 2.0], [2.0, 2.0, 1.0])
    """
    of = torch.arange(len(weights)) // batch
    sums = torch.zeros(-(-len(weights) // batch)).index_add_(0, of, weights)
    sizes = torch.bincount(of).float()
    return sums.clamp_(min=1e-30)[of], sizes[of]


class Shuffle:
    """Every sample once an epoch, in a new order each time.

    Args:
        n: Number of samples.
        seed: Of the order.
        shuffle: Whether the order is new each time, or that of the data.
    """

    def __init__(self, n: int, seed: int = 0, shuffle: bool = True) -> None:
        self.n, self.seed, self.shuffle = n, seed, shuffle

    def order(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        """All positions; no weights."""
        return permutation(self.n, self.seed, epoch) if self.shuffle else torch.arange(self.n), None

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """Learn nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the order is a pure function of the seed and the epoch."""
        return {}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Nothing to load."""


class Mixture(Shuffle):
    """Several sources drawn with given weights, whatever their sizes; every source in passes without replacement.

    An epoch visits n samples, of which source s gives the share w_s; after T samples, source s of size n_s has been
    seen w_s T / n_s times.

    Args:
        dataset: With a `sources` column.
        weights: Share of each source by name; they are divided by their sum.
        seed: Of the order.

    Raises:
        DataError: No sources, an unknown one, or a weight that is negative.

    Example:
        >>> import torch
        >>> from modicum.dataset import Info
        >>> data = Dataset(torch.zeros(4, 1), sources=torch.tensor([0, 0, 0, 1]), info=Info("unlabeled", sources=("a", "b")))
        >>> positions, _ = Mixture(data, {"a": 1, "b": 1}).order(0)
        >>> torch.bincount(data.sources[positions]).tolist()
        [2, 2]
    """

    def __init__(self, dataset: Dataset, weights: Mapping[str, float], seed: int = 0) -> None:
        super().__init__(len(dataset), seed)
        if dataset.sources is None:
            raise DataError("a mixture needs the column `sources`; `modicum.data.concatenate` makes one")
        fine = all(0 <= w < math.inf for w in weights.values()) and sum(weights.values()) > 0
        if set(weights) != set(dataset.info.sources) or not fine:
            raise DataError(f"weights={dict(weights)}; expected one number >= 0 for each of {dataset.info.sources}")
        total = sum(weights.values())
        self.members = [(dataset.sources == s).nonzero().flatten() for s in range(len(weights))]
        self.shares = tuple(weights[name] / total for name in dataset.info.sources)
        for name, members, share in zip(dataset.info.sources, self.members, self.shares):
            if share and not len(members):
                raise DataError(f"source {name!r} has weight {weights[name]} but no samples; give it weight 0")

    def order(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        """n positions, the sources mixed; each source goes on where the epoch before left it."""
        parts = []
        for source, (first, last) in enumerate(zip(self._seen(epoch), self._seen(epoch + 1))):
            members = self.members[source]
            if first == last:
                continue
            passes = range(first // len(members), -(-last // len(members)))
            draws = (generator(self.seed, "mixture", source, p) for p in passes)
            stream = torch.cat([torch.randperm(len(members), generator=draw) for draw in draws])
            offset = first - passes.start * len(members)
            parts.append(members[stream[offset : offset + last - first]])
        mixed = torch.cat(parts)
        return mixed[permutation(len(mixed), self.seed, epoch)], None

    def _seen(self, epochs: int) -> list[int]:
        """Samples drawn from each source in the first epochs: n an epoch in all, each within one of its share."""
        seen = [0] * len(self.shares)
        for epoch in range(1, epochs + 1):
            exact = [share * self.n * epoch for share in self.shares]
            seen = [max(before, int(x)) for before, x in zip(seen, exact)]
            behind = sorted(range(len(seen)), key=lambda s: seen[s] - exact[s])
            for source in behind[: self.n * epoch - sum(seen)]:  # the largest remainders
                seen[source] += 1
        return seen
