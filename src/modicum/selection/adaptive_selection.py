"""Train on a weighted part of the data that is chosen anew, every few epochs, by the gradients of the current model."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from modicum.arrays import NumPy
from modicum.context import generator
from modicum.errors import DataError
from modicum.ledger import Ledger
from modicum.methods import Card, spec
from modicum.options import check_options
from modicum.reading import labels_of
from modicum.scores import Budget
from modicum.selection.craig import covered
from modicum.selection.glister import half_square, looked_ahead
from modicum.selection.gradient_rows import GradientRows
from modicum.selection.gradmatch import gradmatch, matched, own_class
from modicum.selection.stratified import stratified
from modicum.training.order import batch_sums, permutation

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Dataset, Splits
    from modicum.measurement.per_sample import Function
    from modicum.training.recipe import Recipe

__all__ = ["AdaptiveSampler", "AdaptiveSelection"]

By = Literal["gradmatch", "gradmatch-pb", "craig", "glister"]
METHODS = ("gradmatch", "gradmatch-pb", "craig", "glister")
ROWS = 1024  # samples whose gradients are made at a time


class AdaptiveSampler:
    """Positions and weights of an epoch: at first all samples, then those that were chosen last.

    `end_epoch` chooses. Weights are divided by their mean. Whatever choosing costs is charged to the ledger of the context
    and kept in the state, so that a run that was interrupted costs as much as one that was not. Memory while choosing is
    that of n (c + d) numbers, the last layer's inputs and errors, and of the method.

    Args:
        data: `train` is visited; `glister` looks at `valid`.
        recipe: Of the run: its epochs, batch size and learning rate.
        ctx: Seed, device and ledger.
        options: How.

    Raises:
        DataError: There are no samples, or no class labels.

    Example:
        >>> import modicum
        >>> from modicum.context import Context
        >>> from modicum.training.fit import fit
        >>> from modicum.training.recipe import Recipe
        >>> data, recipe, ctx = modicum.load("digits"), Recipe(epochs=6, batch_size=64), Context()
        >>> sampler = AdaptiveSelection(keep=0.1, every=2).sampler(data, recipe, ctx)
        >>> done = fit(data.train, recipe, sampler=sampler)
        >>> len(data.train), done.history["samples"]
        (1078, [1078, 108, 108, 108, 108, 108])
        >>> len(ctx.ledger.charges)
        3

    Reference:
        Killamsetty et al., GRAD-MATCH: Gradient Matching based Data Subset Selection for Efficient Deep Model Training,
        2021, arXiv 2103.00123; Mirzasoleiman, Bilmes, Leskovec, Coresets for Data-efficient Training of Machine Learning
        Models, 2020, arXiv 1906.01827; Killamsetty et al., GLISTER, 2021, arXiv 2012.10630.
    """

    def __init__(self, data: Splits, recipe: Recipe, ctx: Context, options: AdaptiveSelection) -> None:
        self._data, self._recipe, self._ctx, self._options = data, recipe, ctx, options
        self._labels = labels_of("train", data.train).cpu().numpy()
        self.n, self.seed, self.how = len(data.train), ctx.seed, spec(options)
        self.k = Budget(keep=options.keep).count(self.n)
        self.batch = min(recipe.batch_size, self.n)
        self.epochs = recipe.steps_for(self.n) / math.ceil(self.n / self.batch)
        share = options.warm * options.keep * self.epochs
        self.full = max(1, round(share)) if share > 0 else 0
        self.positions: Tensor | None = None
        self.weights: Tensor | None = None
        self._charges = Ledger()

    def order(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        """A function of (seed, epoch) and of what was chosen last; before any choice is made, of the classes."""
        if epoch < self.full:
            return permutation(self.n, self.seed, epoch), None
        if self.positions is None:
            draw = generator(self.seed, "adaptive-selection")
            some = torch.from_numpy(stratified(self._labels, self.k, draw))
            return some[permutation(len(some), self.seed, epoch)], None
        if self._options.method == "gradmatch-pb":
            sequence = self._batches(epoch)
            return self.positions[sequence], None if self.weights is None else self.weights[sequence]
        sequence = permutation(len(self.positions), self.seed, epoch)
        if self.weights is None:
            return self.positions[sequence], None
        heavy = self.weights[sequence]
        sums, sizes = batch_sums(heavy, self.batch)  # one that stands for many makes no longer step
        return self.positions[sequence], heavy * (sizes / sums)

    def _batches(self, epoch: int) -> Tensor:
        """Whole batches in a new order; one that is smaller comes last, so that the others stay whole."""
        assert self.positions is not None
        parts = torch.split(torch.arange(len(self.positions)), self.batch)
        whole = [part for part in parts if len(part) == self.batch]
        sequence = [whole[i] for i in permutation(len(whole), self.seed, epoch)] if whole else []
        return torch.cat([*sequence, *parts[len(whole) :]])

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """Learn nothing: gradients are made when it is time to choose."""

    def end_epoch(self, epoch: int, model: nn.Module) -> None:
        """Choose for the next epochs, if it is time."""
        coming = epoch + 1
        if coming < self.full or coming >= self.epochs - 1e-9:
            return
        if self.positions is not None and (coming - self.full) % self._options.every:
            return
        inner = self._ctx.with_(ledger=Ledger())
        self.positions, self.weights = self._choose(coming, model, inner)
        self._charges.charges.extend(inner.ledger.charges)
        self._ctx.ledger.charges.extend(inner.ledger.charges)

    def _choose(self, epoch: int, model: nn.Module, ctx: Context) -> tuple[Tensor, Tensor | None]:
        from modicum.measurement.gradients import loss_of
        from modicum.training.schedule import learning_rate

        options, train, valid = self._options, self._data.train, self._data.valid
        draw, budget = generator(self.seed, "adaptive-selection", epoch), Budget(keep=self.k)
        with ctx.ledger.clock("choose", f"adaptive-selection by {options.method}", labels=self.n) as counts:
            counts.update(samples=0, forward_flops=0, extra_flops=0)
            rows = _rows(model, train, ctx, loss_of(train), counts)
            if options.method == "glister":
                rate = max(learning_rate(self._recipe, min(1.0, epoch / self.epochs)), 1e-12)
                seen = _rows(model, valid, ctx, half_square, counts)
                assert seen.right is not None
                soft = valid.prepare_targets(ctx.device)
                counts["extra_flops"] += 2 * rows.size * (self.n + 2 * len(seen)) * options.rounds
                ahead = looked_ahead(rows, seen.left, seen.right, soft, budget, rate, options.rounds, self._labels)
                return torch.from_numpy(ahead.picks), None
            if options.method == "gradmatch-pb":
                return self._by_batches(rows, draw, counts)
            sizes = np.bincount(self._labels)
            if options.method == "craig":
                counts["extra_flops"] += 2 * rows.columns * int((sizes**2).sum())
                stood = covered(rows, self._labels, budget, "auto", draw)
                return _scaled(stood.picks, stood.weights)
            own = own_class(rows, self._labels)
            counts["extra_flops"] += round(2 * own.columns * options.keep * int((sizes**2).sum()))
            chosen = matched(own, self._labels, budget, options.l2, draw)
            return _scaled(chosen.picks, chosen.weights)

    def _by_batches(self, rows: GradientRows, draw: torch.Generator, counts: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Whole mini-batches of a random order whose mean gradients match that of all."""
        assert rows.right is not None
        parts = torch.split(torch.randperm(self.n, generator=draw), self.batch)
        means = torch.stack([rows[part.to(rows.left.device)].combined().flatten() / len(part) for part in parts])
        k = max(1, round(self._options.keep * len(parts)))
        counts["extra_flops"] += 2 * rows.size * (self.n + k * len(parts))
        at, weights = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.float64)
        if float(means.sum(0).square().sum()) > 0:  # nothing is left to match where all losses are zero
            found, heavy = gradmatch(means, k, self._options.l2)
            at, weights = found.cpu(), heavy.double().cpu()
        if len(at) < k:
            left = torch.tensor([i for i in range(len(parts)) if i not in set(at.tolist())])
            at = torch.cat([at, left[torch.randperm(len(left), generator=draw)[: k - len(at)]]])
            weights = torch.cat([weights, torch.ones(k - len(weights), dtype=torch.float64)])
        sequence = sorted(range(k), key=lambda i: -len(parts[int(at[i])]))  # a smaller batch comes last
        positions = torch.cat([parts[int(at[i])] for i in sequence])
        each = torch.cat([weights[i].expand(len(parts[int(at[i])])) for i in sequence])
        return positions, (each / each.mean()).float()

    def state_dict(self) -> dict[str, Any]:
        """What was chosen last, and what choosing has cost."""
        return {"positions": self.positions, "weights": self.weights, "charges": self._charges.to_json()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """The inverse of `state_dict`; charges that the ledger does not have yet are entered in it."""
        self.positions, self.weights = state["positions"], state["weights"]
        before = Ledger.from_json(state["charges"])
        self._ctx.ledger.charges.extend(before.charges[len(self._charges.charges) :])
        self._charges = before


def _scaled(picks: NumPy, weights: NumPy) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(picks), torch.from_numpy(weights / weights.mean()).float()


def _rows(model: nn.Module, dataset: Dataset, ctx: Context, function: Function, counts: dict[str, Any]) -> GradientRows:
    """The gradients of the last layer of every sample, their forward pass being counted.

    Raises:
        DataError: One is not finite.
    """
    from modicum.flops import count_flops
    from modicum.measurement.per_sample import last_layer_gradients

    targets = dataset.prepare_targets(ctx.device)
    known: dict[int, int] = {}
    found = []
    for here, inputs in dataset.batches(ROWS):
        prepared = dataset.prepare(inputs, ctx.device)
        with nullcontext() if len(prepared) in known else count_flops() as counter:
            found.append(last_layer_gradients(model, prepared, targets[here], function))
        if counter is not None:
            known[len(prepared)] = counter.flops
        counts["forward_flops"] += known[len(prepared)]
        counts["samples"] += len(prepared)
    rows = GradientRows(torch.cat([e for e, _ in found]).float(), torch.cat([h for _, h in found]).float())
    if not (bool(rows.left.isfinite().all()) and bool(rows.right is not None and rows.right.isfinite().all())):
        raise DataError("gradients of the current model are not finite: the training run has diverged; try a lower lr")
    return rows


@dataclass(frozen=True)
class AdaptiveSelection:
    """Train on a weighted part of the data, chosen anew every few epochs by the last-layer gradients of the model.

    Training begins with all samples, for `warm * keep` of the epochs. The cost of choosing is one forward pass over the
    data and the method, each time.

    Args:
        method: `gradmatch`, `craig`, `glister`, or `gradmatch-pb`, which chooses whole mini-batches and is the cheapest.
        keep: Share of the samples that is visited.
        every: Epochs between two choices.
        warm: Kappa, how many epochs' worth of the part are spent on full epochs at the beginning, as a share of the run.
        l2: See `gradmatch`.
        rounds: See `glister`; its rate is the learning rate of the moment.
    """

    method: By = "gradmatch"
    keep: float = 0.3
    every: int = 20
    warm: float = 0.5
    l2: float = 0.5
    rounds: int = 15

    card: ClassVar[Card] = Card(
        key="adaptive-selection",
        title="Train on a weighted part that is chosen anew by the current model",
        paper="Killamsetty et al., GRAD-MATCH: Gradient Matching based Data Subset Selection for Efficient Deep Model "
        "Training, 2021, arXiv 2103.00123",
        saves=("compute",),
        growth=2.0,
    )

    def __post_init__(self) -> None:
        check_options(
            self,
            positive=("keep", "every", "rounds"),
            not_negative=("warm", "l2"),
            shares=("keep", "warm"),
            choices={"method": METHODS},
        )

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def sampler(self, data: Splits, recipe: Recipe, ctx: Context) -> AdaptiveSampler:
        """The order of samples for a training run by this recipe."""
        return AdaptiveSampler(data, recipe, ctx, self)
