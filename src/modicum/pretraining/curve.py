"""How a representation gets better while it is learned: accuracy of nearest neighbors at a few moments of a run."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from modicum.context import Context
from modicum.dataset import Dataset, Splits
from modicum.errors import ModicumError
from modicum.ledger import Ledger
from modicum.pretraining.learner import Learner
from modicum.pretraining.pretrain import Pretrained, Visits
from modicum.pretraining.probes import knn_probe
from modicum.training.evaluate import forward
from modicum.training.recipe import Recipe

__all__ = ["Curve", "CurvePoint", "epochs_of", "moments"]

REFERENCES = 10_000  # training samples that vote


@dataclass(frozen=True)
class CurvePoint:
    """A moment of a run.

    Args:
        epoch: Epochs done.
        samples: Samples visited so far.
        flops: Spent so far, with what was measured before the first step and without looking at the curve.
        seconds: The same.
        accuracy: Of weighted nearest neighbors on the validation split.
    """

    epoch: int
    samples: int
    flops: int
    seconds: float
    accuracy: float


def moments(epochs: int, points: int = 8) -> tuple[int, ...]:
    """Epochs, counted from 1, spread evenly, the last always among them.

    Args:
        epochs: Of the run.
        points: How many at most.

    Returns:
        The epochs in order.

    Raises:
        ModicumError: Either number is below 1.

    Example:
        >>> moments(20), moments(3), moments(10, points=2)
        ((3, 5, 8, 10, 13, 15, 18, 20), (1, 2, 3), (5, 10))
    """
    for name, value in (("epochs", epochs), ("points", points)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModicumError(f"{name}={value!r}; expected an integer >= 1")
    return tuple(sorted({math.ceil(epochs * (i + 1) / min(points, epochs)) for i in range(min(points, epochs))}))


class Curve:
    """Recorder of a pretraining run: k-NN accuracy on the validation split at about eight of its epochs.

    It changes nothing: the weights are those of a run without it. Its passes are in its own `ledger`, as evaluation, and
    so are its seconds, because they are no part of what learning costs. At most 10,000 training samples vote.

    Args:
        data: Labeled splits; labels are read only here, and nothing is chosen by what they say.
        recipe: Of the run, which says how many epochs there are.
        ctx: Device.
        share: Of the samples that an epoch visits, as for `pretrain`.
        points: How many moments, at most.
        k: Neighbors that vote.
        temperature: Of their weights.

    Raises:
        ModicumError: The data have no class labels, or no validation samples.

    Example:
        >>> import modicum
        >>> from modicum.pretraining import pretrain
        >>> data, short = modicum.load("digits"), Recipe("mlp(hidden=16)", epochs=2, optimizer="adamw", lr=1e-3)
        >>> curve = Curve(data, short, k=20)
        >>> done = pretrain(data, "simclr(augment='none', hidden=32)", short, recorder=curve)
        >>> [point.epoch for point in curve.rows(done)]
        [1, 2]
    """

    def __init__(
        self,
        data: Splits,
        recipe: Recipe,
        ctx: Context | None = None,
        *,
        share: float = 1.0,
        points: int = 8,
        k: int = 200,
        temperature: float = 0.1,
    ) -> None:
        for name, split in (("train", data.train), ("valid", data.valid)):
            if split.info.task != "classification" or split.targets is None or not len(split):
                raise ModicumError(f"the {name} split has no class labels; a curve of k-NN accuracy needs some")
        step = math.ceil(len(data.train) / REFERENCES)
        self.train: Dataset = data.train[::step]
        self.valid, self.k, self.temperature = data.valid, k, temperature
        self.moments = moments(epochs_of(recipe, len(data.train), share), points)
        self.ledger = Ledger()
        self.ctx = (ctx or Context()).with_(ledger=self.ledger, show=False)
        self.found: list[tuple[int, float, float]] = []
        self.description = f"k-NN k={k} temperature={temperature} at epochs {self.moments}"

    def record(self, epoch: int, indices: Tensor, outputs: Tensor, losses: Tensor) -> None:
        """Nothing: only whole epochs are looked at."""

    def end_epoch(self, epoch: int, model: nn.Module) -> None:
        """k-NN accuracy, at one of the moments."""
        if epoch + 1 not in self.moments:
            return
        started = time.perf_counter()
        encoder = model.backbone if isinstance(model, Learner) else model
        train, valid = (forward(encoder, d, self.ctx, what="curve") for d in (self.train, self.valid))
        accuracy = knn_probe(
            train.flatten(1), self.train.labels, valid.flatten(1), self.valid.labels, self.k, self.temperature
        )
        self.found.append((epoch + 1, accuracy, time.perf_counter() - started))

    @property
    def seconds(self) -> float:
        """That looking took."""
        return sum(seconds for *_, seconds in self.found)

    def rows(self, done: Pretrained) -> tuple[CurvePoint, ...]:
        """What was found, with the cost of learning up to there.

        Args:
            done: The run that this recorded.
        """
        before = [charge for charge in done.ledger.charges[:-1] if charge.phase != "evaluate"]
        flops, seconds = sum(c.flops for c in before), sum(c.seconds for c in before)
        history, looked, points = done.history, 0.0, []
        for epoch, accuracy, spent in self.found:
            samples = sum(history["samples"][:epoch])
            passes = history["forward_flops"][epoch - 1] + history["backward_flops"][epoch - 1]
            taken = seconds + history["seconds"][epoch - 1] - looked
            points.append(CurvePoint(epoch, int(samples), flops + int(passes), taken, accuracy))
            looked += spent
        return tuple(points)

    def state_dict(self) -> dict[str, Any]:
        """What was found, and its charges."""
        charges = [{**c, "uncounted": list(c["uncounted"]), "sources": {}} for c in self.ledger.to_json()]
        return {"found": [list(row) for row in self.found], "charges": charges}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """The inverse of `state_dict`."""
        self.found = [(int(e), float(a), float(s)) for e, a, s in state["found"]]
        self.ledger.charges[:] = Ledger.from_json(state["charges"]).charges


def epochs_of(recipe: Recipe, n: int, share: float = 1.0) -> int:
    """Epochs that a pretraining run begins, the last perhaps not finished.

    Args:
        recipe: Of the run.
        n: Training samples.
        share: Of them that an epoch visits.

    Returns:
        The number of rows of its history.

    Example:
        >>> epochs_of(Recipe(steps=21, batch_size=10), 100), epochs_of(Recipe(epochs=4, batch_size=10), 100, 0.5)
        (3, 4)
    """
    batch_size = min(recipe.batch_size, n)
    per_epoch = Visits(n, batch_size, share).size // batch_size
    steps = recipe.steps if recipe.steps is not None else max(1, round(recipe.epochs * per_epoch))
    return math.ceil(steps / per_epoch)
