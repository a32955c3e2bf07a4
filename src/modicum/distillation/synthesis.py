"""What all distillers that learn their samples share: a start, batches of real samples, networks, one resumable descent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modicum.context import generator
from modicum.data.siamese import Transforms, apply_dsa, draw_dsa, strategy_for
from modicum.dataset import Dataset
from modicum.distillation.distilled import Distilled, Snapshot, evaluation_recipe
from modicum.distillation.synthetic import spread, synthetic_set
from modicum.errors import DataError, TrainingError
from modicum.flops import FlopTable
from modicum.ledger import Charge, peak_bytes
from modicum.methods import spec
from modicum.models import build
from modicum.models.build import network_for
from modicum.reading import by_id, check_inputs, labels_of
from modicum.spec import content_key

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.scores import Budget
    from modicum.store import Stateful
    from modicum.training.recipe import Recipe

__all__ = ["Synthesis"]

SNAPSHOTS = 8
SNAPSHOT_BYTES = 256 << 20  # of all of them together
Made = Callable[[], tuple[Dataset, "Recipe"]]


class Synthesis:
    """Synthetic samples while they are made.

    Everything random is a function of the seed, the method's key and the iteration, and samples are met in the order of
    their ids, so that the same data in another order, or an interruption, give the same bits.

    Args:
        method: With `card.key` and, where it has them, the options `init`, `augment` and `model`.
        train: What is distilled.
        budget: Synthetic samples per class or in all.
        recipe: Gives the network when the method's `model` is `auto`.
        ctx: Device, seed, ledger and store.

    Raises:
        DataError: The data are text, have no labels, a class without samples, or inputs that are not finite.
        BudgetError: Fewer samples than classes.
    """

    def __init__(self, method: Any, train: Dataset, budget: Budget, recipe: Recipe, ctx: Context) -> None:
        self.method, self.key = method, method.card.key
        self.train, self.budget, self.ctx, self.device = train, budget, ctx, torch.device(ctx.device)
        check_inputs(self.key, train)
        self.order = by_id(train)
        self.classes = train.classes
        self.real_labels = labels_of("train", train)[self.order]
        self.real_counts = torch.bincount(self.real_labels, minlength=self.classes)
        if not bool(self.real_counts.all()):
            name = train.info.classes[int(self.real_counts.argmin())]
            raise DataError(f"train has no sample of class {name!r}; {self.key} needs at least one of every class")
        self.first = self.real_counts.cumsum(0) - self.real_counts
        self.model = network_for(getattr(method, "model", "auto"), train, recipe)
        self.strategy = strategy_for(self.key, getattr(method, "augment", "none"), train)
        self.counts = spread(self.key, budget, self.real_counts)
        self.labels = torch.arange(self.classes).repeat_interleave(self.counts)
        self.learned: dict[str, Tensor] = {}
        self.rates: dict[str, float | str] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.history: dict[str, list[float]] = {}
        self.kept: dict[int, dict[str, Tensor]] = {}
        self.flops = FlopTable()
        self.samples = self.extra_flops = self.parameters = self.iteration = 0
        self.seconds, self.began = 0.0, time.perf_counter()

    # -- randomness and real samples -------------------------------------------------------------------------------

    def random(self, *names: object) -> torch.Generator:
        """The generator of a step."""
        return generator(self.ctx.seed, self.key, *names)

    def network(self, random: torch.Generator, model: Any = None) -> nn.Module:
        """A new network on the device; its initialization is drawn from the generator."""
        seed = int(torch.randint(2**31, (1,), generator=random))
        made = build(model or self.model, self.train, seed).to(self.device)
        self.parameters = max(self.parameters, sum(p.numel() for p in made.parameters()))
        return made

    def start(self, init: str) -> Tensor:
        """(m, *shape) standardized inputs to start from: `real` samples, each another one, or `noise`."""
        random = self.random("init")
        if init == "noise":
            return torch.randn((len(self.labels), *self.train.inputs.shape[1:]), generator=random)
        # a class with too few samples gives them again and again
        ranks = torch.cat([torch.arange(k) for k in self.counts.tolist()]) % self.real_counts[self.labels]
        return self.real(self.shuffled(random)[self.first[self.labels] + ranks]).cpu().clone()

    def real(self, positions: Tensor) -> Tensor:
        """Standardized real inputs on the device at positions in the order of ids."""
        return self.train.prepare(self.train.inputs[self.order[positions]], self.device)

    def shuffled(self, random: torch.Generator) -> Tensor:
        """(n,) positions in the order of ids, class after class, in random order within each class."""
        keys = torch.rand(len(self.real_labels), generator=random, dtype=torch.float64)
        return (self.real_labels + keys).argsort(stable=True)

    def batch(self, random: torch.Generator, size: int) -> Tensor:
        """Positions of at most so many samples of each class; classes alternate, so that every part is mixed."""
        ranks = torch.arange(min(size, int(self.real_counts.max())))[:, None]
        return self.shuffled(random)[(self.first + ranks)[ranks < self.real_counts.clamp(max=size)]]

    def blocks(self, random: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
        """(c, b) positions of real samples of each class and their (c, b) weights: the weighted sum of a row is the mean
        of the class; where a class has fewer than b samples, some come again with weight 0."""
        ranks = torch.arange(min(size, int(self.real_counts.max())))[None]
        taken = self.real_counts.clamp(max=ranks.shape[1])[:, None]
        positions = self.shuffled(random)[self.first[:, None] + ranks % self.real_counts[:, None]]
        return positions, (ranks < taken) / taken.float()

    def draw(self, random: torch.Generator, groups: int | None = None) -> Transforms:
        """Siamese transforms, one a class (or as many as asked)."""
        return draw_dsa(self.strategy, self.classes if groups is None else groups, random)

    def transform(self, x: Tensor, draw: Transforms, groups: Tensor) -> Tensor:
        """Inputs as the draw of their group transforms them; themselves without a strategy."""
        return apply_dsa(x, draw, groups) if self.strategy else x

    # -- what is learned -------------------------------------------------------------------------------------------

    def learn(
        self,
        name: str,
        start: Tensor,
        lr: float | str,
        *,
        momentum: float = 0.0,
        adam: tuple[float, float] | None = None,
    ) -> Tensor:
        """Register a tensor that descends.

        Args:
            name: Of it; the synthetic inputs are `inputs`.
            start: Its first value.
            lr: Learning rate; `auto` makes the first step change it by 1 % (root mean square).
            momentum: Of SGD.
            adam: The betas of Adam, instead of SGD.

        Returns:
            The leaf, on the device.
        """
        leaf = start.detach().to(self.device).clone().requires_grad_()
        rate = 0.0 if isinstance(lr, str) else lr
        optimizer = torch.optim.Adam([leaf], rate, adam) if adam else torch.optim.SGD([leaf], rate, momentum)
        self.learned[name], self.rates[name], self.optimizers[name] = leaf, lr, optimizer
        return leaf

    @property
    def inputs(self) -> Tensor:
        """(m, *shape) the synthetic inputs, standardized."""
        return self.learned["inputs"]

    def descend(self, **slopes: Tensor) -> None:
        """One step of each named tensor down its gradient.

        Raises:
            TrainingError: A gradient, or what it leads to, is not finite; the last good set is kept.
        """
        for name, slope in slopes.items():
            leaf, optimizer = self.learned[name], self.optimizers[name]
            before = leaf.detach().clone()
            if self.rates[name] == "auto" and not optimizer.param_groups[0]["lr"]:
                optimizer.param_groups[0]["lr"] = 0.01 * float(_rms(leaf) / _rms(slope).clamp(min=1e-30))
            leaf.grad = slope.to(leaf)
            optimizer.step()
            if not (bool(slope.isfinite().all()) and bool(leaf.isfinite().all())):
                with torch.no_grad():
                    leaf.copy_(before)
                self._refuse(name, float(optimizer.param_groups[0]["lr"]))

    def _refuse(self, name: str, lr: float) -> None:
        kept = ""
        if self.ctx.store is not None:
            file = f"{self.key}-last-good.safetensors"
            self.ctx.store.write_tensors(file, self.learned)
            kept = f"; what was learned before is in {self.ctx.store.folder / file}"
        raise TrainingError(
            f"the synthetic {name} are not finite after iteration {self.iteration}: lr={lr:.4g} of the {name} is too large "
            f"for {self.model!r}; use less than {lr / 10:.1g}, or lr_img='auto' where the method has it{kept}"
        )

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(
        self,
        total: int,
        step: Callable[[int], dict[str, float] | float],
        made: Made | None = None,
        *,
        also: Sequence[Stateful] = (),
        seed: int | None = None,
    ) -> Distilled:
        """Take the steps, keep the set at some moments, charge the work.

        Args:
            total: Iterations.
            step: Takes the number of the iteration, calls `descend`, and gives the loss, or columns of the history.
            made: The set and its recipe as they are now; hard labels and the common protocol when None.
            also: What else changes from step to step.
            seed: Of the one initialization the set is made for.

        Returns:
            The set, its history and its snapshots.
        """
        made = made or self.made
        self._keep(0, total)
        work = content_key(self.method, self.train.fingerprint, self.budget, self.model, self.ctx.seed)
        for iteration in self.ctx.loop(f"{self.key}-{work}", total, [self, *also], work, anytime=True):
            self.iteration = iteration
            row = step(iteration)
            columns = row if isinstance(row, dict) else {"loss": float(row)}
            for name, value in {"iteration": iteration + 1, **columns}.items():
                self.history.setdefault(name, []).append(float(value))
            self._keep(iteration + 1, total)
        done = len(self.history.get("iteration", []))
        self.kept.setdefault(done, self._copy())
        snapshots = []
        for at, tensors in sorted(self.kept.items()):
            with self._holding(tensors):
                snapshots.append(Snapshot(at, *made(), self.stored()))
        dataset, recipe = made()
        self.ctx.ledger.add(self.charge())
        return Distilled(dataset, recipe, spec(self.method), seed, None, self.history, tuple(snapshots), self.stored())

    def made(self) -> tuple[Dataset, Recipe]:
        """The inputs with hard labels, and the common protocol."""
        strategy = "_".join(self.strategy) or "none"
        model = self.model if isinstance(self.model, str) else "auto"
        return self.dataset(), evaluation_recipe(model, len(self.labels), augment=strategy)

    def stored(self) -> dict[str, Tensor]:
        """What the inputs are computed from, where that is smaller than they are."""
        return {}

    def dataset(self, inputs: Tensor | None = None, targets: Tensor | None = None) -> Dataset:
        """Standardized inputs (those that are learned, when None) as a data set in the units of the stored data.

        Args:
            inputs: (m, *shape).
            targets: (m,) class indices or (m, c) soft labels; the class of each sample when None.
        """
        return synthetic_set(self.key, self.train, self.inputs if inputs is None else inputs, self.counts, targets)

    def _keep(self, iteration: int, total: int) -> None:
        size = sum(t.numel() * t.element_size() for t in self.learned.values())
        halvings = SNAPSHOTS if size * (SNAPSHOTS + 1) <= SNAPSHOT_BYTES else 0
        if iteration in {0, total, *(total >> k for k in range(1, halvings))} and iteration not in self.kept:
            self.kept[iteration] = self._copy()

    def _copy(self) -> dict[str, Tensor]:
        return {name: leaf.detach().cpu().clone() for name, leaf in self.learned.items()}

    @contextmanager
    def _holding(self, tensors: dict[str, Tensor]) -> Iterator[None]:
        now = self.learned
        self.learned = {name: value.to(self.device) for name, value in tensors.items()}
        try:
            yield
        finally:
            self.learned = now

    def charge(self) -> Charge:
        """The whole run as one charge."""
        return Charge(
            "choose",
            self.key,
            samples=self.samples,
            labels=len(self.train),
            forward_flops=self.flops.forward_flops,
            backward_flops=self.flops.backward_flops,
            extra_flops=self.extra_flops,
            seconds=self.seconds + time.perf_counter() - self.began,
            peak_bytes=torch.cuda.max_memory_allocated() if self.device.type == "cuda" else peak_bytes(),
            parameters=self.parameters,
            uncounted=self.flops.uncounted,
        )

    def state_dict(self) -> dict[str, Any]:
        """What the rest of the run depends on, and what it has cost."""
        return {
            "learned": {name: leaf.detach() for name, leaf in self.learned.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "history": self.history,
            "kept": self.kept,
            "flops": self.flops.state_dict(),
            "spent": [self.samples, self.extra_flops, self.parameters],
            "seconds": self.seconds + time.perf_counter() - self.began,
        }

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """The inverse of `state_dict`."""
        with torch.no_grad():
            for name, value in state["learned"].items():
                self.learned[name].copy_(value)
        for name, value in state["optimizers"].items():
            self.optimizers[name].load_state_dict(value)
        self.history, self.kept = state["history"], state["kept"]
        self.flops.load_state_dict(state["flops"])
        self.samples, self.extra_flops, self.parameters = state["spent"]
        self.seconds, self.began = state["seconds"], time.perf_counter()


def _rms(x: Tensor) -> Tensor:
    return x.detach().square().mean().sqrt()
