"""The one training loop: tensors in memory, explicit hooks for the order, the loss and the record."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from modicum.context import Context, generator
from modicum.data.augment import make_augment
from modicum.data.mixing import mixed_targets
from modicum.dataset import Dataset
from modicum.errors import TrainingError
from modicum.flops import count_flops
from modicum.ledger import Charge, Ledger, Phase, peak_bytes
from modicum.models import build
from modicum.spec import content_key
from modicum.training.distributed import join
from modicum.training.evaluate import Evaluation, evaluate
from modicum.training.order import Sampler, Shuffle, batch_sums, permutation
from modicum.training.outputs import centered_targets
from modicum.training.recipe import Recipe
from modicum.training.schedule import learning_rate, make_optimizer

__all__ = ["Fit", "Objective", "Recorder", "fit"]

Objective: TypeAlias = Callable[[nn.Module, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""What is differentiated in each step."""
GATHERED_BYTES = 1 << 20  # batches are gathered together up to this size
LIGHT_FLOPS = 20_000_000  # of a step
RESIDENT_BYTES = 4 << 30  # inputs up to this size are standardized once and stay on the device


class Hooks(Protocol):
    """What an objective may have besides being called; each is optional."""

    labels: bool
    """Whether it reads the targets; True unless it says otherwise."""

    description: str
    """What it computes, so that a checkpoint made by another one is not continued."""

    def mode(self, model: nn.Module) -> str:
        """What the coming step computes, where not all steps cost the same."""
        ...

    def begin(self, model: nn.Module, batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]]) -> None:
        """Once, before the first step; `batches(size)` goes over all data as (positions, standardized inputs)."""
        ...

    def after(self, model: nn.Module) -> None:
        """After each update of the weights."""
        ...


class Recorder(Protocol):
    """Sees what happened, and changes nothing."""

    def record(self, epoch: int, indices: Tensor, outputs: Tensor, losses: Tensor) -> None:
        """A batch before its update: positions (b,), outputs (b, c), unweighted losses (b,)."""
        ...

    def end_epoch(self, epoch: int, model: nn.Module) -> None:
        """After the last update of an epoch."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


@dataclass
class Fit:
    """A trained model, its history and its ledger.

    Args:
        model: The trained module, in evaluation mode.
        recipe: How it was trained.
        history: Per epoch: mean loss, samples visited, learning rate at the end, seconds, forward and backward FLOPs.
        ledger: What it cost.
        device: Where the model is.
    """

    model: nn.Module
    recipe: Recipe
    history: dict[str, list[float]]
    ledger: Ledger
    device: str = "cpu"

    def evaluate(self, dataset: Dataset) -> Evaluation:
        """Score the model on a data set; the pass is charged to the fit's ledger."""
        return evaluate(self.model, dataset, Context(device=self.device, ledger=self.ledger))


def fit(
    dataset: Dataset,
    recipe: Recipe | None = None,
    ctx: Context | None = None,
    *,
    sampler: Sampler | None = None,
    objective: Objective | None = None,
    recorder: Recorder | None = None,
    stop_after: int | None = None,
    name: str = "fit",
    phase: Phase = "train",
) -> Fit:
    """Train a model on a data set.

    The loss of a batch is `sum_i w_i v_i l_i / sum_i w_i`, with w the weights of the data set, whose scale does not matter, and v
    those of the sampler; without weights it is the mean. The order is a function of (seed, epoch), initial weights of the seed,
    and what is drawn in a step of (seed, step): an interrupted run in a store continues to the same bits. Under
    `torchrun` the processes share every batch and the answer is that of one process.

    Args:
        dataset: With targets.
        recipe: How; a sensible one for the data when None.
        ctx: Device, seed, ledger and store.
        sampler: Gives the positions and weights of an epoch; every sample once in a new order when None.
        objective: `(model, inputs, targets, indices) -> (losses (b,), outputs (b, c))`; cross-entropy with the
            recipe's label smoothing, or squared error for regression, when None. One with a `state_dict` is saved. It
            may have more, see `Hooks`; where it reads no labels the targets are the positions of the samples.
        recorder: Sees every batch.
        stop_after: Stop after so many epochs of the schedule.
        name: Of the checkpoint in the store.
        phase: What it is booked under.

    Returns:
        The fit; its charges are in `ctx.ledger` too.

    Raises:
        TrainingError: The data have no targets, or the loss is no longer finite.

    Example:
        >>> import modicum
        >>> train, valid, test = modicum.load("digits")
        >>> done = fit(train, Recipe(model="mlp", epochs=5))
        >>> done.evaluate(test).score > 0.8
        True
    """
    ctx = ctx or Context()
    recipe = recipe or default_recipe(dataset)
    if dataset.targets is None and getattr(objective, "labels", True):
        raise TrainingError("dataset has no targets; fit needs labels, soft labels or regression targets")
    if not len(dataset):
        raise TrainingError("dataset has 0 samples; fit needs at least one")
    started = time.perf_counter()
    run = _Run(dataset, recipe, ctx, sampler, objective, recorder, stop_after)
    hooks = [_described(hook) for hook in (run.sampler, objective, recorder)]
    work = content_key(recipe, dataset.fingerprint, ctx.seed, stop_after, hooks) if ctx.store else None
    group, most = run.group, run.most_steps
    threads = torch.get_num_threads()
    try:
        for _ in group.loop(run.ctx, name, most, run, work) if group else run.ctx.loop(name, most, [run], work):
            if run.light() and torch.get_num_threads() > 1:
                torch.set_num_threads(1)
            if run.step():
                break
    finally:
        torch.set_num_threads(threads)
    if recipe.ema:
        run.use_average()
    if ctx.device == "cuda":
        torch.cuda.synchronize()
    charge = run.charge(phase, name, run.seconds_before + time.perf_counter() - started)
    ctx.ledger.add(charge)
    run.model.eval()
    return Fit(run.model, recipe, run.history, Ledger([charge]), ctx.device)


def default_recipe(dataset: Dataset) -> Recipe:
    """A recipe that trains this kind of data well within seconds to minutes on a CPU.

    Example:
        >>> import modicum
        >>> default_recipe(modicum.load("digits").train).model
        'mlp'
    """
    if dataset.info.modality == "text":
        return Recipe(model="bag", epochs=8, batch_size=64, optimizer="adamw", lr=3e-3, weight_decay=0.01)
    if dataset.info.modality == "image" and dataset.inputs.shape[-1] >= 28:
        return Recipe(model="convnet(width=32)", epochs=8, batch_size=64, lr=0.02, weight_decay=5e-4)
    return Recipe(model="mlp", epochs=30, batch_size=32, lr=0.05 if dataset.info.task == "classification" else 0.01)


def supervised(recipe: Recipe, dataset: Dataset) -> Objective:
    """The loss of a recipe, per sample."""
    if recipe.loss == "mse" and dataset.info.task == "classification":

        def centered(model: nn.Module, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
            outputs = model(inputs)
            return 0.5 * (outputs - centered_targets(targets, outputs.shape[1])).square().sum(1), outputs

        return centered
    if dataset.info.task == "regression":

        def squared(model: nn.Module, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
            outputs = model(inputs)
            errors = F.mse_loss(outputs.reshape(targets.shape), targets, reduction="none")
            return errors.reshape(len(targets), -1).mean(1), outputs  # one number a sample, of targets (n, 1) too

        return squared

    def entropy(model: nn.Module, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        outputs = model(inputs)
        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=recipe.label_smoothing), outputs

    return entropy


def _described(hook: object) -> list[object]:
    """The kind of a hook and its plain public fields, so that a checkpoint made with another one is not continued."""
    if hasattr(hook, "description"):
        return [type(hook).__qualname__, hook.description]
    fields = getattr(hook, "__dict__", {}) if hasattr(hook, "order") else {}
    plain = {k: v for k, v in fields.items() if k[0] != "_" and isinstance(v, (int, float, str, tuple))}
    return [getattr(hook, "__qualname__", type(hook).__qualname__), plain]


@contextmanager
def _drawing(device: torch.device, seed: int, step: int) -> Iterator[None]:
    """PyTorch's own generators as a function of (seed, step), as they were before afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        number = generator(seed, "draw", step).initial_seed()
        torch.default_generator.manual_seed(number)
        if device.type == "cuda":
            torch.cuda.manual_seed(number)
        yield


@dataclass
class _Run:
    """What changes while training, so that it can be saved and loaded."""

    dataset: Dataset
    recipe: Recipe
    ctx: Context
    sampler: Sampler | None
    objective: Objective | None
    recorder: Recorder | None
    stop_after: int | None
    epoch: int = 0
    start: int = 0
    steps: int = 0
    seen: int = 0
    forward: int = 0
    backward: int = 0
    seconds_before: float = 0.0
    order: Tensor | None = None
    weights: Tensor | None = None
    history: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        recipe, dataset, ctx = self.recipe, self.dataset, self.ctx
        self.began = time.perf_counter()
        self.device = torch.device(ctx.device)
        self.group = join(ctx.device)
        self.ctx = self.group.context(ctx) if self.group else ctx
        self.n = len(dataset)
        self.batch = min(recipe.batch_size, self.n)
        self.sampler = self.sampler or Shuffle(self.n, ctx.seed, recipe.shuffle)
        visited = getattr(self.sampler, "size", self.n)
        self.weigh = getattr(self.sampler, "weigh", None)
        self.per_epoch = math.ceil(visited / self.batch)
        self.most_steps = recipe.steps_for(visited)
        self.epochs = self.most_steps / self.per_epoch
        if self.stop_after is not None:
            self.most_steps = min(self.most_steps, self.stop_after * self.per_epoch)
        asked = self.objective is not None or not isinstance(recipe.model, str)
        self.objective = self.objective or supervised(recipe, dataset)
        shape = tuple(dataset.inputs.shape[1:])
        self.augment = make_augment(recipe.augment, shape, dataset) if recipe.augment else None
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.layout = layout if dataset.inputs.ndim == 4 else torch.contiguous_format
        self.model = build(recipe.model, dataset, ctx.seed).to(self.device).train()
        self.draws = asked or any("Drop" in type(module).__name__ for module in self.model.modules())
        if self.layout is torch.channels_last:
            self.model = self.model.to(memory_format=self.layout)  # type: ignore[call-overload]  # a gap in its stubs
        self.network = self.group.wrap(self.model) if self.group else self.model
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(recipe, self.parameters)
        self.average = [p.detach().clone() for p in self.parameters] if recipe.ema else []
        self.update_average = get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]
        self.loss_sum = torch.zeros((), device=self.device)
        self.source_seen = torch.zeros(len(dataset.info.sources), dtype=torch.int64)
        self.counted: dict[tuple[tuple[int, ...], str], tuple[int, int]] = {}
        self.uncounted: set[str] = set()
        self.labels = getattr(self.objective, "labels", True)
        self.mode, self.after = getattr(self.objective, "mode", None), getattr(self.objective, "after", None)
        self.targets = dataset.prepare_targets(self.device) if self.labels else torch.arange(self.n, device=self.device)
        bytes_a_batch = 4 * self.batch * max(1, dataset.inputs[0].numel())
        self.together = max(1, GATHERED_BYTES // bytes_a_batch)
        self.gathered, self.length = (0, 0, dataset.inputs[:0], dataset.inputs[:0]), 0
        self.resident: Tensor | None = None
        if dataset.inputs.numel() * 4 <= RESIDENT_BYTES:
            self.resident = dataset.prepare(dataset.inputs, self.device)
            if self.layout is torch.channels_last:
                self.resident = self.resident.contiguous(memory_format=self.layout)

    def step(self) -> bool:
        """One optimizer step; whether the run is finished."""
        if not self.steps:
            self._begin()
        if self.order is None:
            self._begin_epoch()
        assert self.order is not None
        assert self.sampler is not None
        assert self.objective is not None
        here = slice(self.start, self.start + self.batch)
        indices = self.order[here]
        inputs, targets = self._batch(here)
        size = min(self.batch, self.length - self.start)
        weights = None if self.weights is None else self.weights[here].to(self.device)
        if self.group:
            part = self.group.part(size)
            inputs, targets, indices = inputs[part], targets[part], indices[part]
            weights = None if weights is None else weights[part]
        share = (self.start // self.batch) / math.ceil(self.length / self.batch)
        rate = learning_rate(self.recipe, min(1.0, (self.epoch + share) / self.epochs))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        shape = tuple(inputs.shape), "" if self.mode is None else self.mode(self.model)
        new = shape not in self.counted
        mixed = self.recipe.precision == "bfloat16"
        drawing = _drawing(self.device, self.ctx.seed, self.steps) if self.draws else nullcontext()
        with count_flops() if new else nullcontext() as forward:
            with drawing, torch.autocast(self.device.type, torch.bfloat16) if mixed else nullcontext():
                losses, outputs = self.objective(self.network, inputs, targets, indices)
            losses = losses.float()
            if self.weigh is not None:
                seen = losses.detach()
                factors = self.weigh(self.steps, self.group.whole(seen, size) if self.group else seen).to(losses)
                factors = factors[self.group.part(size)] if self.group else factors
                weights = factors if weights is None else factors * weights
            if self.group:
                loss = self.group.loss(losses, weights, size)
            else:
                loss = losses.mean() if weights is None else (losses * weights).mean()
        for parameter in self.parameters:  # what zero_grad does, without its bookkeeping of 20 us
            parameter.grad = None
        with count_flops() if new else nullcontext() as backward:
            loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        self.optimizer.step()
        with count_flops() if new else nullcontext() as afterwards:
            if self.after is not None:
                self.after(self.model)
        if forward is not None and backward is not None and afterwards is not None:
            self.counted[shape] = (forward.flops + afterwards.flops, backward.flops)
            self.uncounted |= {*forward.uncounted, *backward.uncounted, *afterwards.uncounted}
        if self.average:
            self.update_average(self.average, self.parameters, None)
        losses, outputs, counted = losses.detach(), outputs.detach(), self.counted[shape]
        if self.group:  # the whole batch again, for those who look at it
            indices, losses = self.order[here], self.group.whole(losses, size)
            outputs = outputs if self.recorder is None else self.group.whole(outputs, size)
            counted = (counted[0] * size // len(part), counted[1] * size // len(part))
        if weights is None and not self.group:
            self.loss_sum.add_(loss.detach(), alpha=size)
        else:
            self.loss_sum += losses.sum()
        self.sampler.observe(indices, losses)
        if self.recorder is not None:
            self.recorder.record(self.epoch, indices, outputs, losses)
        self.forward += counted[0]
        self.backward += counted[1]
        self.seen += size
        self.steps += 1
        self.start += size
        finished = self.steps >= self.most_steps or self.epoch + self.start / self.length >= self.epochs
        if finished or self.start >= self.length:
            self._end_epoch(rate)
        return finished or self.epoch == self.stop_after

    def light(self) -> bool:
        """Whether a step is so small that a second thread gains nothing, and costs much where processors are shared."""
        return self.device.type == "cpu" and 0 < self.forward + self.backward < LIGHT_FLOPS * self.steps

    def _begin(self) -> None:
        begin = getattr(self.objective, "begin", None)
        if begin is None:
            return

        def batches(size: int) -> Iterator[tuple[Tensor, Tensor]]:
            # shuffled: data often come class by class, and a batch of one class has statistics of its own
            for positions in torch.split(permutation(self.n, self.ctx.seed, -1), size):
                self.seen += len(positions)
                yield positions, self.dataset.prepare(self.dataset.inputs[positions], self.device)

        with count_flops() as counter, _drawing(self.device, self.ctx.seed, -1):
            begin(self.model, batches)
        self.forward += counter.flops
        self.uncounted |= {*counter.uncounted}

    def _begin_epoch(self) -> None:
        assert self.sampler is not None
        self.order, self.weights = self.sampler.order(self.epoch)
        if not len(self.order):
            raise TrainingError(f"the sampler gives no positions for epoch {self.epoch}; expected at least one")
        if self.dataset.weights is not None:
            own = self.dataset.weights[self.order].float()
            sums, sizes = batch_sums(own, self.batch)
            own = own * (sizes / sums)
            self.weights = own if self.weights is None else own * self.weights
        self.loss_sum.zero_()
        self.gathered, self.length = (0, 0, self.order, self.order), len(self.order)

    def _end_epoch(self, rate: float) -> None:
        visited = self.start
        if self.dataset.sources is not None and self.order is not None:
            seen = self.dataset.sources[self.order[:visited]]
            self.source_seen += torch.bincount(seen, minlength=len(self.source_seen))
        loss = float(self.loss_sum) / max(1, visited)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} after step {self.steps} of epoch {self.epoch}; try a lower lr than "
                f"{self.recipe.lr}, clip=1.0, or look for extreme inputs"
            )
        seconds = self.seconds_before + time.perf_counter() - self.began
        row = {"loss": loss, "samples": visited, "lr": rate, "seconds": seconds}
        for key, value in {**row, "forward_flops": self.forward, "backward_flops": self.backward}.items():
            self.history.setdefault(key, []).append(value)
        for watcher in (self.recorder, self.sampler):
            look = getattr(watcher, "end_epoch", None)
            if look is not None:
                look(self.epoch, self.model)
                self.model.train()
        self.epoch, self.start, self.order, self.weights = self.epoch + 1, 0, None, None

    def _batch(self, here: slice) -> tuple[Tensor, Tensor]:
        """Standardized, augmented inputs and their targets; of small inputs several batches are gathered at a time."""
        assert self.order is not None
        first, last, inputs, targets = self.gathered
        if not first <= here.start < last:
            first, last = here.start, here.start + self.batch * self.together
            there = self.order[first:last].to(self.device)
            targets = self.targets[there]
            if self.resident is not None:
                inputs = self.resident[there]
            else:
                inputs = self.dataset.prepare(self.dataset.inputs[self.order[first:last]], self.device)
            self.gathered = first, last, inputs, targets
        inside = slice(here.start - first, here.stop - first)
        inputs, targets = inputs[inside], targets[inside]
        if self.augment is None:
            return inputs, targets
        draw = self.augment.draw(len(inputs), self.ctx.generator("augment", self.steps))
        if not self.labels:  # positions of the samples, which cannot be mixed
            return self.augment.apply(inputs, draw), targets
        return self.augment.apply(inputs, draw), mixed_targets(targets, draw, self.dataset.classes)

    def use_average(self) -> None:
        """Put the averaged weights in place."""
        with torch.no_grad():
            for parameter, mean in zip(self.parameters, self.average):
                parameter.copy_(mean)

    def charge(self, phase: Phase, what: str, seconds: float) -> Charge:
        """The whole run as one charge."""
        parameters = sum(p.numel() for p in self.model.parameters())
        bits = sum(p.numel() * p.element_size() * 8 for p in self.model.parameters())
        names, column = self.dataset.info.sources, self.dataset.sources
        sizes = [] if column is None else torch.bincount(column, minlength=len(names)).tolist()
        sources = {name: (int(seen), size) for name, seen, size in zip(names, self.source_seen.tolist(), sizes)}
        return Charge(
            phase,
            what,
            samples=self.seen,
            labels=self.n if self.labels else 0,
            forward_flops=self.forward,
            backward_flops=self.backward,
            seconds=seconds,
            peak_bytes=peak_bytes() if self.device.type != "cuda" else torch.cuda.max_memory_allocated(),
            parameters=parameters,
            bits=bits,
            bytes_sent=self.group.bytes_sent if self.group else 0,
            uncounted=tuple(sorted(self.uncounted)),
            sources=sources,
        )

    def _parts(self) -> dict[str, Any]:
        objective = self.objective if hasattr(self.objective, "state_dict") else None
        parts = {"model": self.model, "optimizer": self.optimizer, "objective": objective}
        return parts | {"sampler": self.sampler, "recorder": self.recorder}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        names = ["epoch", "start", "steps", "seen", "source_seen", "forward", "backward", "order", "weights", "history"]
        names += ["loss_sum", "average", "counted"]
        state = {name: getattr(self, name) for name in names} | {"uncounted": sorted(self.uncounted)}
        state["seconds_before"] = self.seconds_before + time.perf_counter() - self.began
        return state | {key: part.state_dict() for key, part in self._parts().items() if part is not None}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """The inverse of `state_dict`."""
        parts = self._parts()
        for key, value in state.items():
            if key in parts:
                parts[key].load_state_dict(value)
            else:
                setattr(self, key, value)
        self.uncounted = set(self.uncounted)
        self.gathered, self.length = (0, 0, self.loss_sum, self.loss_sum), 0 if self.order is None else len(self.order)
        self.loss_sum = self.loss_sum.to(self.device)
        self.average = [torch.empty_like(p).copy_(a) for p, a in zip(self.parameters, self.average)]
        for parameter, moments in self.optimizer.state.items():
            for key, value in moments.items():  # fused steps need the memory format of the parameter
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    moments[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        self.began = time.perf_counter()
