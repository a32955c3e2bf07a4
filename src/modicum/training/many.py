"""Many small models of one architecture trained at once, each as `fit` would train it alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from modicum.context import Context, generator
from modicum.data.augment import make_augment
from modicum.data.mixing import mixed_targets
from modicum.dataset import Dataset, Indices
from modicum.errors import TrainingError
from modicum.flops import FlopTable
from modicum.ledger import Charge, Ledger, Phase, peak_bytes
from modicum.models import build
from modicum.spec import content_key
from modicum.training.chain import chain_backward, chain_forward, chain_of, output_gradient
from modicum.training.fit import RESIDENT_BYTES, Fit, default_recipe
from modicum.training.order import batch_sums, permutation
from modicum.training.outputs import centered_targets
from modicum.training.recipe import Recipe
from modicum.training.schedule import learning_rate, make_optimizer

__all__ = ["fit_many", "stackable"]


def fit_many(
    data: Dataset | Sequence[Dataset],
    recipe: Recipe | None = None,
    ctx: Context | None = None,
    *,
    subsets: Sequence[Indices] | None = None,
    seeds: Sequence[int] | None = None,
    together: int = 64,
    name: str = "fit-many",
    phase: Phase = "train",
    watch: Callable[[int, int, dict[str, Tensor]], None] | None = None,
) -> list[Fit]:
    """Train many models at once: the parameters are stacked, each layer is one batched product, one backward for all.

    Model i is what `fit(data[i], recipe, ctx.with_(seed=seeds[i]))` gives, up to rounding; its charge is the same
    too, without the padding of the smaller batches, and the seconds are shared out by steps. Memory: for each of
    `together` models four times its parameters (six with AdamW) and the activations of a batch.

    Args:
        data: One data set per model, or one for all.
        recipe: How; a sensible one for the data when None.
        ctx: Device, seed, ledger and store.
        subsets: Per model the positions it trains on in the one data set; nothing is copied.
        seeds: Per model the seed of its weights and order; `ctx.seed + i` when None.
        together: How many models are stacked.
        name: Of the checkpoints in the store.
        phase: What it is booked under.
        watch: Is told the number of the first model of a stack, the epochs it has done and its weights (m, *shape) by
            name, after every epoch; for models with equally many samples.

    Returns:
        One fit per model, in their order; the charges are in `ctx.ledger` too.

    Raises:
        TrainingError: The numbers of data sets, subsets and seeds differ; the data have no targets; the architecture
            cannot be stacked (buffers, dropout); or a loss is no longer finite.

    Example:
        >>> import modicum
        >>> train, valid, test = modicum.load("digits")
        >>> fits = fit_many(train, Recipe(model="mlp", epochs=8, batch_size=32), subsets=[range(500), range(500, 1000)])
        >>> [done.evaluate(test).score > 0.7 for done in fits]
        [True, True]
    """
    ctx = ctx or Context()
    datasets, members = _members(data, subsets, seeds)
    seeds = [ctx.seed + i for i in range(len(members))] if seeds is None else list(seeds)
    recipe = recipe or default_recipe(datasets[0])
    if together < 1:
        raise TrainingError(f"together={together}; expected an integer >= 1")
    pool = _Pool(datasets, ctx)
    fits: list[Fit] = []
    for start in range(0, len(members), together):
        part = slice(start, start + together)
        run = _Stack(pool, members[part], seeds[part], recipe, ctx)
        key = [[seed, at.tolist()] for seed, at in zip(seeds[part], members[part])]
        work = content_key(recipe, [d.fingerprint for d in datasets], key) if ctx.store else None
        for _ in ctx.loop(f"{name}-{start}" if start else name, run.total, [run], work):
            run.step()
            if watch is not None and run.done % run.blocks[0].per_epoch == 0:
                watch(start, run.done // run.blocks[0].per_epoch, run.stacked)
        fits += run.finish(phase, name)
    for done in fits:
        for charge in done.ledger.charges:
            ctx.ledger.add(charge)
    return fits


def _members(
    data: Dataset | Sequence[Dataset], subsets: Sequence[Indices] | None, seeds: Sequence[int] | None
) -> tuple[list[Dataset], list[Tensor]]:
    """The distinct data sets, and per model its positions in their concatenation."""
    if isinstance(data, Dataset):
        everything = torch.arange(len(data))
        if subsets is not None:
            columns = Dataset(everything, info=data.info.__class__("unlabeled"))
            members = [columns[at].inputs for at in subsets]
        else:
            members = [everything] * len(seeds if seeds is not None else [0])
        datasets = [data]
    else:
        if subsets is not None:
            raise TrainingError("subsets are positions in one data set, but data is a list; give one or the other")
        distinct = {id(d): d for d in data}
        datasets = list(distinct.values())
        first, offsets = 0, {}
        for key, dataset in distinct.items():
            offsets[key] = torch.arange(first, first + len(dataset))
            first += len(dataset)
        members = [offsets[id(d)] for d in data]
    if not members or (seeds is not None and len(seeds) != len(members)):
        raise TrainingError(
            f"there are {len(members)} data sets or subsets and {len(seeds or [])} seeds; expected one seed a model"
        )
    empty = [i for i, at in enumerate(members) if len(at) == 0]
    if empty:
        raise TrainingError(f"the data of model {empty[0]} are empty; every model needs at least one sample")
    for dataset in datasets:
        if dataset.targets is None:
            raise TrainingError("dataset has no targets; fit_many needs labels, soft labels or regression targets")
        other = datasets[0]
        assert other.targets is not None
        if (dataset.inputs.shape[1:], dataset.classes, dataset.targets.dtype) != (
            other.inputs.shape[1:], other.classes, other.targets.dtype,
        ):  # fmt: skip
            raise TrainingError(
                f"data sets differ: {dataset!r} and {other!r}; models that train at once need the same input shape, "
                "classes and kind of targets"
            )
    return datasets, members


class _Pool:
    """Inputs, targets and weights of all data sets one after another."""

    def __init__(self, datasets: list[Dataset], ctx: Context) -> None:
        self.dataset, self.device = datasets[0], torch.device(ctx.device)
        self.targets = torch.cat([d.prepare_targets(self.device) for d in datasets])
        self.weights: Tensor | None = None
        if any(d.weights is not None for d in datasets):
            whole = [torch.ones(len(d)) if d.weights is None else d.weights.float() for d in datasets]
            self.weights = torch.cat(whole)
        self.resident: Tensor | None = None
        if sum(d.inputs.numel() for d in datasets) * 4 <= RESIDENT_BYTES:
            self.resident = torch.cat([d.prepare(d.inputs, self.device) for d in datasets])
        elif len(datasets) > 1:
            raise TrainingError("the data sets together are too large for memory; give one data set and subsets")

    def inputs(self, at: Tensor) -> Tensor:
        """(m, b, *shape) inputs at the positions (m, b)."""
        flat = at.flatten()
        if self.resident is not None:
            found = self.resident.index_select(0, flat.to(self.device))
        else:
            found = self.dataset.prepare(self.dataset.inputs[flat], self.device)
        return found.reshape(*at.shape, *found.shape[1:])


@dataclass
class _Job:
    """One model of the stack."""

    index: int
    seed: int
    at: Tensor
    model: nn.Module
    batch: int
    per_epoch: int
    steps: int
    history: dict[str, list[float]] = field(default_factory=dict)

    @property
    def schedule(self) -> tuple[int, int]:
        return self.steps, len(self.at)


@dataclass
class _Block:
    """Consecutive models with one schedule: they share the learning rate, and stop together."""

    first: int
    last: int
    steps: int
    per_epoch: int
    epochs: float
    batch: int
    n: int
    parameters: list[Tensor]
    optimizer: torch.optim.Optimizer
    forward: int = 0
    backward: int = 0
    seen: int = 0


class _Stack:
    """Models in the order of their number of steps, longest first, so that those still training are the first ones."""

    def __init__(self, pool: _Pool, members: list[Tensor], seeds: Sequence[int], recipe: Recipe, ctx: Context) -> None:
        self.pool, self.recipe, self.ctx, self.device = pool, recipe, ctx, pool.device
        jobs = []
        for index, (at, seed) in enumerate(zip(members, seeds)):
            batch = min(recipe.batch_size, len(at))
            model = build(recipe.model, pool.dataset, seed).train()
            jobs.append(_Job(index, seed, at, model, batch, math.ceil(len(at) / batch), recipe.steps_for(len(at))))
        self.jobs = sorted(jobs, key=lambda job: job.schedule, reverse=True)
        self.total, self.done = self.jobs[0].steps, 0
        self.template = self.jobs[0].model
        _refuse(self.template)
        self.stacked: dict[str, Tensor] = {}
        self.frozen: dict[str, Tensor] = {}
        states = [dict(job.model.named_parameters()) for job in self.jobs]
        for key, parameter in states[0].items():
            whole = torch.stack([state[key].detach() for state in states]).to(self.device)
            (self.stacked if parameter.requires_grad else self.frozen)[key] = whole
        self.average = {key: p.clone() for key, p in self.stacked.items()} if recipe.ema else {}
        simple = not self.frozen and recipe.precision == "float32" and pool.dataset.info.task == "classification"
        simple = simple and recipe.loss == "cross-entropy"
        self.chain = chain_of(self.template) if simple else []
        self.blocks = list(self._blocks())
        self.leaves: dict[str, Tensor] = {}
        shape = tuple(pool.dataset.inputs.shape[1:])
        self.augment = make_augment(recipe.augment, shape, pool.dataset) if recipe.augment else None
        self.width = max(job.batch for job in self.jobs)
        longest = max(job.per_epoch for job in self.jobs)
        self.order = torch.zeros(len(jobs), longest, self.width, dtype=torch.int64)
        self.gain = torch.zeros(len(jobs), longest, self.width)
        self.per_epoch = torch.tensor([job.per_epoch for job in self.jobs])
        self.rows = torch.arange(len(jobs))
        self.loss_sum = torch.zeros(len(jobs), device=self.device)
        self.flops, self.seconds = FlopTable(), 0.0
        self.began = time.perf_counter()

    def _blocks(self) -> Iterator[_Block]:
        first = 0
        for (steps, n), group in groupby(self.jobs, key=lambda job: job.schedule):
            size, job = len(list(group)), self.jobs[first]
            part = [p[first : first + size] for p in self.stacked.values()]
            epochs = steps / job.per_epoch
            optimizer = make_optimizer(self.recipe, part, stacked=True)
            yield _Block(first, first + size, steps, job.per_epoch, epochs, job.batch, n, part, optimizer)
            first += size

    def _of(self, block: _Block) -> list[_Job]:
        return self.jobs[block.first : block.last]

    def step(self) -> None:
        """One optimizer step of every model that is not finished."""
        blocks = [block for block in self.blocks if block.steps > self.done]
        active = blocks[-1].last
        for row, job in enumerate(self.jobs[:active]):
            if self.done % job.per_epoch == 0:
                self._begin_epoch(row, job, self.done // job.per_epoch)
        if not self.leaves or len(next(iter(self.leaves.values()))) != active:
            self.leaves = {key: p[:active].detach().requires_grad_() for key, p in self.stacked.items()}
            self.fixed = {key: p[:active] for key, p in self.frozen.items()}
        sizes = [self._size(block) for block in blocks]
        widest = max(sizes)
        within = self.done % self.per_epoch[:active]
        at = self.order[self.rows[:active], within][:, :widest]
        inputs, targets = self._batch(at, blocks, sizes)
        plain = self.pool.weights is None and min(sizes) == widest
        gain = None if plain else self.gain[self.rows[:active], within][:, :widest].to(self.device)
        key = (active, *inputs.shape[1:])
        losses, gradients = (self._chained if self.chain else self._mapped)(inputs, targets, gain, key)
        forward, backward = (count // (active * widest) for count in self.flops.charge(key))
        if self.recipe.clip:
            gradients = self._clipped(gradients)
        for block, size in zip(blocks, sizes):
            self._update(block, gradients)
            block.seen += size
            block.forward += size * forward
            block.backward += size * backward
        self.loss_sum[:active] += self._sums(losses, blocks, sizes)
        self.done += 1
        for block in blocks:
            if self.done % block.per_epoch == 0 or self.done == block.steps:
                self._end_epoch(block)

    def _sums(self, losses: Tensor, blocks: list[_Block], sizes: list[int]) -> Tensor:
        if min(sizes) == losses.shape[1]:
            return losses.sum(1)
        pairs = zip(blocks, sizes)  # without the padding of the smaller batches
        return torch.cat([losses[block.first : block.last, :size].sum(1) for block, size in pairs])

    def _size(self, block: _Block) -> int:
        return min(block.batch, block.n - self.done % block.per_epoch * block.batch)

    def _mapped(
        self, inputs: Tensor, targets: Tensor, gain: Tensor | None, key: tuple[int, ...]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """(m, b) losses and the gradients of any architecture, by `vmap` and one backward pass for all models."""

        def one(parameters: dict[str, Tensor], x: Tensor) -> Any:
            return functional_call(self.template, parameters, (x,))

        bf16 = self.recipe.precision == "bfloat16"
        with self.flops.forward(key):
            with torch.autocast(self.device.type, torch.bfloat16) if bf16 else nullcontext():
                outputs = vmap(one)({**self.leaves, **self.fixed}, inputs).flatten(0, 1)
            losses = self._losses(outputs.float(), targets.flatten(0, 1)).reshape(inputs.shape[:2])
            loss = losses.sum() / inputs.shape[1] if gain is None else (losses * gain).sum()
        with self.flops.backward(key):
            return losses.detach(), torch.autograd.grad(loss, list(self.leaves.values()))

    def _chained(
        self, inputs: Tensor, targets: Tensor, gain: Tensor | None, key: tuple[int, ...]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The same for multilayer perceptrons, without the overhead."""
        smoothing = self.recipe.label_smoothing
        with torch.no_grad():
            with self.flops.forward(key):
                outputs, hidden = chain_forward(self.chain, self.leaves, inputs)
                logs = outputs.log_softmax(1)
                losses = _cross_entropy(logs, targets, smoothing)
            with self.flops.backward(key):
                gradient = output_gradient(logs, targets, 1 / inputs.shape[1] if gain is None else gain, smoothing)
                found = chain_backward(self.chain, self.leaves, hidden, gradient)
        return losses, [found[name] for name in self.leaves]

    def _losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.pool.dataset.info.task == "regression":
            return F.mse_loss(outputs.reshape(targets.shape), targets, reduction="none")
        if self.recipe.loss == "mse":
            return 0.5 * (outputs - centered_targets(targets, outputs.shape[1])).square().sum(1)
        # the softmax of few classes is vectorized only when they are not the last dimension: ten times as fast
        logs = outputs.T.contiguous().log_softmax(0)
        return _cross_entropy(logs[None], targets[None], self.recipe.label_smoothing)[0]

    def _batch(self, at: Tensor, blocks: list[_Block], sizes: list[int]) -> tuple[Tensor, Tensor]:
        inputs, targets = self.pool.inputs(at), self.pool.targets[at.to(self.device)]
        if self.augment is None:
            return inputs, targets
        parts = list(targets)
        for block, size in zip(blocks, sizes):
            for row in range(block.first, block.last):
                draw = self.augment.draw(size, generator(self.jobs[row].seed, "augment", self.done))
                inputs[row, :size] = self.augment.apply(inputs[row, :size], draw)
                mixed = mixed_targets(parts[row][:size], draw, self.pool.dataset.classes)
                parts[row] = F.pad(mixed, (0, 0) * (mixed.ndim - 1) + (0, at.shape[1] - size))
        return inputs, torch.stack(parts)

    def _clipped(self, gradients: Sequence[Tensor]) -> tuple[Tensor, ...]:
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
        factor = (self.recipe.clip / (norms + 1e-6)).clamp(max=1.0)
        return tuple(g * factor.reshape(-1, *[1] * (g.ndim - 1)) for g in gradients)

    def _update(self, block: _Block, gradients: Sequence[Tensor]) -> None:
        part = slice(block.first, block.last)
        rate = self._rate(block)
        for group in block.optimizer.param_groups:
            group["lr"] = rate
        for parameter, gradient in zip(block.parameters, gradients):
            parameter.grad = gradient[part].contiguous()  # the fused optimizers do not look at strides
        block.optimizer.step()
        if self.average:
            torch._foreach_lerp_([a[part] for a in self.average.values()], block.parameters, 1 - self.recipe.ema)

    def _rate(self, block: _Block) -> float:
        epoch, within = divmod(self.done, block.per_epoch)
        return learning_rate(self.recipe, min(1.0, (epoch + within / block.per_epoch) / block.epochs))

    def _begin_epoch(self, row: int, job: _Job, epoch: int) -> None:
        at = job.at[permutation(len(job.at), job.seed, epoch)] if self.recipe.shuffle else job.at
        self.loss_sum[row] = 0
        for flat, values in ((self.order[row], at), (self.gain[row], self._gains(job, at))):
            flat.zero_()
            whole = len(at) // job.batch
            flat[:whole, : job.batch] = values[: whole * job.batch].reshape(whole, job.batch)
            if len(at) > whole * job.batch:
                flat[whole, : len(at) - whole * job.batch] = values[whole * job.batch :]

    def _gains(self, job: _Job, at: Tensor) -> Tensor:
        weights = torch.ones(len(at)) if self.pool.weights is None else self.pool.weights[at]
        return weights / batch_sums(weights, job.batch)[0]

    def _end_epoch(self, block: _Block) -> None:
        epoch = (self.done - 1) // block.per_epoch
        visited = min(block.n, (self.done - epoch * block.per_epoch) * block.batch)
        self.done -= 1  # the rate of the step that has just been taken
        rate = self._rate(block)
        self.done += 1
        seconds = self.seconds + time.perf_counter() - self.began
        for row, total in zip(range(block.first, block.last), self.loss_sum[block.first : block.last].tolist()):
            job, loss = self.jobs[row], total / visited
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss of model {job.index} is {loss} after step {self.done}; try a lower lr than "
                    f"{self.recipe.lr}, clip=1.0, or look for extreme inputs"
                )
            values = {"loss": loss, "samples": visited, "lr": rate, "seconds": seconds}
            for key, value in {**values, "forward_flops": block.forward, "backward_flops": block.backward}.items():
                job.history.setdefault(key, []).append(value)

    def finish(self, phase: Phase, what: str) -> list[Fit]:
        """The models in their own order, each with its history and its charge."""
        seconds = self.seconds + time.perf_counter() - self.began
        steps = sum(job.steps for job in self.jobs)
        weights = self.average or self.stacked
        fits: list[tuple[int, Fit]] = []
        pairs = [(job, block) for block in self.blocks for job in self._of(block)]
        for row, (job, block) in enumerate(pairs):
            with torch.no_grad():
                for key, parameter in job.model.named_parameters():
                    if key in weights:
                        parameter.copy_(weights[key][row])
            model = job.model.to(self.device).eval()
            charge = Charge(
                phase,
                what,
                samples=block.seen,
                labels=len(job.at),
                forward_flops=block.forward,
                backward_flops=block.backward,
                seconds=seconds * job.steps / steps,
                peak_bytes=peak_bytes(),
                parameters=sum(p.numel() for p in model.parameters()),
                bits=sum(p.numel() * p.element_size() * 8 for p in model.parameters()),
                uncounted=self.flops.uncounted,
            )
            fits.append((job.index, Fit(model, self.recipe, job.history, Ledger([charge]), str(self.device))))
        return [done for _, done in sorted(fits, key=lambda pair: pair[0])]

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        return {
            "done": self.done,
            "seconds": self.seconds + time.perf_counter() - self.began,
            "stacked": self.stacked,
            "average": self.average,
            "loss_sum": self.loss_sum,
            "optimizers": [block.optimizer.state_dict() for block in self.blocks],
            "spent": [[block.forward, block.backward, block.seen] for block in self.blocks],
            "histories": [job.history for job in self.jobs],
            "flops": self.flops.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """The inverse of `state_dict`."""
        for name in ("stacked", "average"):
            for key, value in state[name].items():
                getattr(self, name)[key].copy_(value)
        for block, saved in zip(self.blocks, state["optimizers"]):
            block.optimizer.load_state_dict(saved)
        for block, spent in zip(self.blocks, state["spent"]):
            block.forward, block.backward, block.seen = spent
        for job, history in zip(self.jobs, state["histories"]):
            job.history = history
        self.done, self.seconds, self.began = state["done"], state["seconds"], time.perf_counter()
        self.flops.load_state_dict(state["flops"])
        for row, job in enumerate(self.jobs):
            if self.done < job.steps:
                self._begin_epoch(row, job, self.done // job.per_epoch)
        self.loss_sum.copy_(state["loss_sum"])


def _cross_entropy(logs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """(m, b) losses from the (m, c, b) log-softmax and (m, b) class indices or (m, b, c) soft labels."""
    if targets.is_floating_point():
        losses, mass = -(logs * targets.mT).sum(1), targets.sum(-1)
        return losses if not smoothing else (1 - smoothing) * losses - smoothing * mass * logs.mean(1)
    losses = -logs.gather(1, targets[:, None]).squeeze(1)
    return losses if not smoothing else (1 - smoothing) * losses - smoothing * logs.mean(1)


def stackable(model: nn.Module) -> bool:
    """Whether `fit_many` takes such models: no buffers, no dropout.

    Example:
        >>> stackable(nn.Linear(2, 2)), stackable(nn.BatchNorm1d(2))
        (True, False)
    """
    try:
        _refuse(model)
    except TrainingError:
        return False
    return True


def _refuse(model: nn.Module) -> None:
    """Raise on what is not the same computation when models are stacked."""
    buffers = [name for name, _ in model.named_buffers()]
    if buffers:
        raise TrainingError(
            f"fit_many cannot stack a model with buffers ({buffers[0]} of {type(model).__name__}): batch statistics "
            "belong to one model; use instance or group normalization, or fit the models one after another"
        )
    for name, module in model.named_modules():
        chance = getattr(module, "p", None) if "Dropout" in type(module).__name__ else getattr(module, "dropout", None)
        if isinstance(chance, float) and chance > 0:
            raise TrainingError(
                f"fit_many cannot stack a model with dropout ({name or type(module).__name__}): each model draws its "
                "own; set it to 0, or fit the models one after another"
            )
