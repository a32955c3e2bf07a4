"""Gradients: models at moments of their training, and the gradient of every sample there, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from modicum.context import Context
from modicum.dataset import Dataset, Splits
from modicum.errors import DataError, ModicumError, TrainingError
from modicum.measurement.cache import cached
from modicum.measurement.checkpoints import moments_of, rates_of, trained_at
from modicum.measurement.per_sample import (
    Function,
    PerSample,
    cross_entropy,
    gradient_norms,
    gradient_products,
    last_layer_gradients,
    mean_gradient,
    squared_error,
)
from modicum.measurement.projection import Kind, project
from modicum.models import build
from modicum.reading import by_id
from modicum.training.recipe import Recipe

__all__ = ["GradientTable", "Gradients", "Part"]

Part: TypeAlias = Literal["train", "valid"]
ROWS = 1024  # samples that are prepared at a time


@dataclass(frozen=True, eq=False)
class GradientTable:
    """What `Gradients` measured: models, and what makes the gradients of the samples from them when they are asked for.

    The training samples are in the order of their ids, whatever the order of the data, so that every number is the same
    to the bit. Nothing larger than a block of gradients is made unless it is asked for.

    Args:
        train: The training samples in the order of their ids.
        valid: The validation samples.
        recipe: That made the models.
        weights: (runs, checkpoints, *shape) of each parameter and buffer, by name.
        rates: (checkpoints,) mean learning rate of the steps since the checkpoint before.
        masks: (runs, n) which samples each run was trained on.
        device: Where gradients are made.
        description: What the weights depend on, for the cache.
    """

    train: Dataset
    valid: Dataset
    recipe: Recipe
    weights: dict[str, Tensor] = field(repr=False)
    rates: Tensor
    masks: Tensor
    device: str = "cpu"
    description: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.masks)

    @property
    def checkpoints(self) -> int:
        """Number of checkpoints of each run."""
        return len(self.rates)

    def dataset(self, part: Part) -> Dataset:
        """The samples of a part, in the order of the rows of their gradients."""
        if part not in ("train", "valid"):
            raise ModicumError(f"part={part!r}; expected 'train' or 'valid'")
        return self.train if part == "train" else self.valid

    def positions(self, train: Dataset) -> Tensor:
        """(n,) where the rows are in a training set.

        Raises:
            DataError: It is not the one that was measured.
        """
        order = by_id(train)
        if not np.array_equal(train.ids[order.numpy()], self.train.ids):
            raise DataError(
                f"gradients are of {len(self.train)} samples with other ids than those of train; measure again"
            )
        return order

    def model(self, run: int = 0, checkpoint: int = -1) -> nn.Module:
        """The model of a run at a checkpoint, in evaluation mode.

        Raises:
            ModicumError: There is no such run or checkpoint.
        """
        for name, asked, there in (("run", run, self.runs), ("checkpoint", checkpoint, self.checkpoints)):
            if not -there <= asked < there:
                raise ModicumError(f"{name}={asked}; expected one of 0..{there - 1}")
        model = build(self.recipe.model, self.train)
        model.load_state_dict({name: w[run, checkpoint] for name, w in self.weights.items()})
        return model.to(self.device).eval()

    def blocks(
        self,
        part: Part,
        run: int = 0,
        checkpoint: int = -1,
        *,
        function: Function | None = None,
        layers: Literal["all", "last"] = "all",
        dimensions: int = 0,
        kind: Kind = "count-sketch",
        seed: int = 0,
    ) -> Iterator[tuple[slice, Tensor]]:
        """Slices of the samples and their gradients, (b, p), or (b, k) when they are projected.

        Args:
            part: `train` or `valid`.
            run: Of which model.
            checkpoint: Of which model.
            function: Whose gradient (see `modicum.measurement.per_sample`); the loss without label smoothing when None.
            layers: `all`, or the `last` linear one: `e h^T`, flattened.
            dimensions: k, to project to; 0 does not.
            kind: Of projection.
            seed: Of the projection.

        Raises:
            TrainingError: A gradient is not finite; the sample is named.
        """
        model, dataset = self.model(run, checkpoint), self.dataset(part)
        engine = PerSample(model, function or loss_of(dataset))
        for here, inputs, targets in self._prepared(part):
            if layers == "last":
                e, h = last_layer_gradients(model, inputs, targets, engine.function)
                pieces: Iterator[tuple[slice, list[Tensor]]] = (
                    (slice(a, a + 64), [(e[a : a + 64, :, None] * h[a : a + 64, None]).flatten(1)])
                    for a in range(0, len(e), 64)
                )
            else:
                pieces = engine.blocks(inputs, targets)
            for within, found in pieces:
                start = here.start + within.start
                block = project(found, dimensions, kind, seed) if dimensions else torch.cat(found, 1)
                yield slice(start, start + len(block)), _finite(block, dataset, start)

    def gradients(self, part: Part, run: int = 0, checkpoint: int = -1, **options: Any) -> Tensor:
        """(n, p) or (n, k): all blocks together, in memory."""
        return torch.cat([block for _, block in self.blocks(part, run, checkpoint, **options)])

    def projected(
        self,
        ctx: Context,
        part: Part,
        run: int = 0,
        checkpoint: int = -1,
        *,
        dimensions: int,
        kind: Kind = "count-sketch",
        seed: int = 0,
        function: Function | None = None,
        layers: Literal["all", "last"] = "all",
    ) -> Tensor:
        """(n, k) projected gradients, kept in the cache and mapped from its file; charged to `ctx.ledger`."""
        options: dict[str, Any] = {"dimensions": dimensions, "kind": kind, "seed": seed, "layers": layers}
        about = {
            **self.description,
            "part": part,
            "run": run,
            "checkpoint": checkpoint,
            "function": function,
            **options,
        }

        def make(inner: Context) -> dict[str, Tensor]:
            with inner.ledger.clock("choose", "projected gradients", samples=len(self.dataset(part))):
                return {"rows": self.gradients(part, run, checkpoint, function=function, **options).cpu()}

        measured, ledger = cached("projected", about, ctx, make)
        ctx.ledger.charges.extend(ledger.charges)
        return measured["rows"]

    def factors(
        self, part: Part, run: int = 0, checkpoint: int = -1, function: Function | None = None
    ) -> tuple[Tensor, Tensor]:
        """(n, c) and (n, d + 1): the gradients of the last layer (see `last_layer_gradients`)."""
        found = list(self._each(last_layer_gradients, part, run, checkpoint, function))
        return torch.cat([e for e, _ in found]), torch.cat([h for _, h in found])

    def norms(self, part: Part, run: int = 0, checkpoint: int = -1, function: Function | None = None) -> Tensor:
        """(n,) norms of the gradients of all layers (see `gradient_norms`)."""
        return torch.cat(list(self._each(gradient_norms, part, run, checkpoint, function)))

    def products(
        self, part: Part, direction: Tensor, run: int = 0, checkpoint: int = -1, function: Function | None = None
    ) -> Tensor:
        """(n,) products of the gradients of all layers with a vector (p,) (see `gradient_products`)."""

        def one(model: nn.Module, inputs: Tensor, targets: Tensor, used: Function) -> Tensor:
            return gradient_products(model, inputs, targets, direction, used)

        return torch.cat(list(self._each(one, part, run, checkpoint, function)))

    def mean(self, part: Part, run: int = 0, checkpoint: int = -1, function: Function | None = None) -> Tensor:
        """(p,) the mean of the gradients of all layers."""
        parts = self._each(
            lambda m, x, y, f: mean_gradient(m, x, y, f) * len(x), part, run, checkpoint, function, finite=False
        )
        total: Tensor = sum(parts) / len(self.dataset(part))
        if not bool(total.isfinite().all()):
            raise TrainingError(f"the mean gradient of the {part} samples is not finite; the training run has diverged")
        return total

    def values(self, part: Part, run: int = 0, checkpoint: int = -1, function: Function | None = None) -> Tensor:
        """(n,) the function itself, such as the loss."""

        def one(model: nn.Module, inputs: Tensor, targets: Tensor, used: Function) -> Tensor:
            with torch.no_grad():
                return used(model(inputs), targets)

        return torch.cat(list(self._each(one, part, run, checkpoint, function)))

    def _prepared(self, part: Part) -> Iterator[tuple[slice, Tensor, Tensor]]:
        dataset = self.dataset(part)
        targets = dataset.prepare_targets(self.device)
        for here, inputs in dataset.batches(ROWS):
            yield here, dataset.prepare(inputs, self.device), targets[here]

    def _each(
        self, make: Any, part: Part, run: int, checkpoint: int, function: Function | None, finite: bool = True
    ) -> Iterator[Any]:
        model, dataset = self.model(run, checkpoint), self.dataset(part)
        for here, inputs, targets in self._prepared(part):
            found = make(model, inputs, targets, function or loss_of(dataset))
            for rows in (found if isinstance(found, tuple) else (found,)) if finite else ():
                _finite(rows, dataset, here.start)
            yield found


@dataclass(frozen=True)
class Gradients:
    """Runs of the recipe whose weights are kept at moments of the schedule, to make gradients of samples there.

    Memory and disk: runs x checkpoints times the weights of the model.

    Args:
        checkpoints: Shares of the schedule, rounded to whole epochs, at least one; equal ones count once. 1 is the end.
        runs: Number of runs with different seeds.
        share: Share of the training samples that each run is trained on, a random subset of its own.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> Gradients((0.5, 1.0), runs=2).trainings()
        2.0
    """

    checkpoints: tuple[float, ...] = (1.0,)
    runs: int = 1
    share: float = 1.0

    def __post_init__(self) -> None:
        if not self.checkpoints or not all(0 < share <= 1 for share in self.checkpoints):
            raise ModicumError(f"checkpoints={self.checkpoints}; expected at least one share of the schedule in (0, 1]")
        if isinstance(self.runs, bool) or not isinstance(self.runs, int) or self.runs < 1:
            raise ModicumError(f"runs={self.runs!r}; expected an integer >= 1")
        if not 0 < self.share <= 1:
            raise ModicumError(f"share={self.share!r}; expected a share of the training samples in (0, 1]")

    def measure(self, data: Splits, recipe: Recipe, ctx: Context) -> GradientTable:
        """Train, or read from the cache; charged to `ctx.ledger` as choosing."""
        train = data.train[by_id(data.train)]
        size = max(1, round(self.share * len(train)))
        subsets = [
            torch.randperm(len(train), generator=ctx.generator("gradients", run))[:size].sort().values
            if self.share < 1
            else torch.arange(len(train))
            for run in range(self.runs)
        ]
        moments = moments_of(recipe, size, self.checkpoints)
        description = {
            "data": train.fingerprint,
            "recipe": recipe,
            "seed": ctx.seed,
            "runs": self.runs,
            "share": self.share,
            "moments": moments,
        }
        make = partial(trained_at, train, subsets, recipe, moments)
        measured, ledger = cached("gradients", description, ctx, make)
        ctx.ledger.charges.extend(ledger.charges)
        masks = torch.zeros(self.runs, len(train), dtype=torch.bool)
        for mask, at in zip(masks, subsets):
            mask[at] = True
        rates = rates_of(recipe, size, moments)
        return GradientTable(train, data.valid, recipe, measured, rates, masks, ctx.device, description)

    def trainings(self) -> float:
        """How many trainings of the recipe on the full data this is."""
        return self.runs * self.share * max(self.checkpoints)


def loss_of(dataset: Dataset) -> Function:
    """The loss that models of this kind of data are trained with, without label smoothing."""
    return squared_error if dataset.info.task == "regression" else cross_entropy


def _finite(rows: Tensor, dataset: Dataset, start: int) -> Tensor:
    """The rows themselves.

    Raises:
        TrainingError: One is not finite.
    """
    good = rows.isfinite()
    if not bool(good.all()):
        at = int((~good.reshape(len(rows), -1).all(1)).nonzero()[0])
        raise TrainingError(
            f"the gradient of sample {dataset.ids[start + at].item()!r} is not finite: the training run has diverged; "
            "try a lower lr or clip=1.0"
        )
    return rows
