"""Experts: the weights of many trainings after every epoch, in one file that is mapped into memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from modicum.context import Context, generator
from modicum.data.siamese import strategy_for
from modicum.dataset import Dataset, Splits
from modicum.errors import DataError, ModicumError
from modicum.ledger import Ledger
from modicum.measurement.gsam import GSAM
from modicum.measurement.smoothing import SmoothLoss, decayed_rates
from modicum.models import build
from modicum.models.build import network_for
from modicum.reading import by_id, check_inputs, labels_of
from modicum.spec import content_key
from modicum.store import Store
from modicum.training.chain import chain_of
from modicum.training.fit import Objective, fit
from modicum.training.many import fit_many
from modicum.training.recipe import Recipe

__all__ = ["ExpertTable", "Experts"]

VARIANTS = ("sgd", "gsam", "smooth")
PASSES = {"sgd": 1, "gsam": 2, "smooth": 3}  # forward and backward passes of a step
USUAL_EPOCHS = 20  # of a training of a recipe


@dataclass(frozen=True, eq=False)
class ExpertTable:
    """What `Experts` measured.

    Args:
        weights: (count, epochs + 1, p) float32, mapped from the file and read only where it is looked at: the parameters
            of expert e after t epochs, one vector in the order of `parameters()`; t = 0 is the initialization.
        recipe: How they were trained; its model is the network of the experts.
        fingerprint: Of the training samples in the order of their ids.
        manifest: All of that in JSON types, with the names and shapes of the parameters.
    """

    weights: Tensor = field(repr=False)
    recipe: Recipe
    fingerprint: str
    manifest: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def count(self) -> int:
        """Number of experts."""
        return len(self.weights)

    @property
    def epochs(self) -> int:
        """Epochs that each was trained for."""
        return self.weights.shape[1] - 1

    def at(self, expert: int, epoch: int, device: torch.device | str = "cpu") -> Tensor:
        """(p,) a copy of the weights of an expert after so many epochs.

        Raises:
            ModicumError: There is no such expert or epoch.
        """
        for name, asked, there in (("expert", expert, self.count), ("epoch", epoch, self.epochs + 1)):
            if not 0 <= asked < there:
                raise ModicumError(f"{name}={asked}; expected one of 0..{there - 1}")
        return self.weights[expert, epoch].clone().to(device)

    def check(self, train: Dataset, model: Any) -> None:
        """Refuse experts of other data or of another network.

        Args:
            train: What is distilled, in the preprocessing of the distillation.
            model: The network of the students.

        Raises:
            ModicumError: They are not those of these experts.
        """
        if train[by_id(train)].fingerprint != self.fingerprint:
            raise ModicumError(
                "the experts were trained on other data than train (other samples, labels or preprocessing); measure "
                "them again on these"
            )
        if model != self.recipe.model:
            raise ModicumError(
                f"the experts are networks {self.recipe.model!r}, but the students are {model!r}; use one model for both"
            )


@dataclass(frozen=True)
class Experts:
    """Trainings whose weights are kept after every epoch.

    With a cache they lie there, in a folder named by the data, the network and the way of training, and serve every
    method that needs the same ones; with a store alone they lie in it; otherwise in a temporary file. Whatever is
    interrupted goes on from the last checkpoint to the same bits. `count (epochs + 1) p` numbers on disk; memory is that
    of a training, or of 64 at a time where stacking them is faster (multilayer perceptrons trained plainly).

    Args:
        count: Number of trainings with different seeds.
        epochs: Of each; without decay of the learning rate fewer epochs are the beginning of more.
        lr: Learning rate, constant but for `smooth`.
        batch_size: Samples a step.
        momentum: Of a heavy ball.
        weight_decay: L2 coefficient.
        variant: `sgd`; `gsam`: flat minima (see `GSAM`); `smooth`: a ramp on the loss, a penalty on its slope in the
            inputs and one decay of the learning rate (see `SmoothLoss`).
        augment: Families drawn for every batch, such as `color_crop`, or `none`; `auto` is everything, without flip where
            classes are digits, and nothing on data without pixels.
        model: The network; `auto` as for distillation.
        stop_after: Stop after so many epochs of the schedule; 0 for all.
        rho: Radius of `gsam`.
        alpha: How much of the orthogonal part of the gradient `gsam` takes away.
        ramp: Whether the loss of `smooth` has the ramp.
        penalty: Factor of the penalty of `smooth`.
        norm: Of the penalty, `channel` or `sample`.
        decay: What the learning rate of `smooth` is multiplied by after epoch `epochs // 2 + 1`.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> import modicum
        >>> data = modicum.load("digits")
        >>> made = Experts(count=2, epochs=3, lr=0.05, model="mlp(hidden=16)").measure(data, Recipe(), Context())
        >>> made.weights.shape
        torch.Size([2, 4, 1482])

    Reference:
        Cazenavette et al., Dataset Distillation by Matching Training Trajectories, 2022, arXiv 2203.11932.
    """

    count: int = 100
    epochs: int = 50
    lr: float = 0.01
    batch_size: int = 256
    momentum: float = 0.0
    weight_decay: float = 0.0
    variant: Literal["sgd", "gsam", "smooth"] = "sgd"
    augment: str = "auto"
    model: str = "auto"
    stop_after: int = 0
    rho: float = 0.01
    alpha: float = 0.4
    ramp: bool = True
    penalty: float = 2.0
    norm: Literal["channel", "sample"] = "channel"
    decay: float = 0.6

    def __post_init__(self) -> None:
        checks: tuple[tuple[str, bool, str], ...] = (
            ("count", isinstance(self.count, int) and self.count >= 1, "an integer >= 1"),
            ("epochs", isinstance(self.epochs, int) and self.epochs >= 1, "an integer >= 1"),
            ("variant", self.variant in VARIANTS, f"one of {', '.join(map(repr, VARIANTS))}"),
            ("stop_after", 0 <= self.stop_after <= self.epochs, f"an integer from 0 to epochs={self.epochs}"),
            ("rho", self.rho >= 0, "a number >= 0"),
            ("alpha", self.alpha >= 0, "a number >= 0"),
            ("decay", 0 < self.decay <= 1, "a number in (0, 1]"),
        )
        for name, right, expected in checks:
            if not right:
                raise ModicumError(f"experts {name}={getattr(self, name)!r}; expected {expected}")

    def measure(self, data: Splits, recipe: Recipe, ctx: Context) -> ExpertTable:
        """Train and keep, or read from the cache; charged to `ctx.ledger` as choosing.

        Raises:
            DataError: The data cannot be distilled: text, no labels, a class without samples, inputs that are not finite.
        """
        train = _checked(data.train)
        how = self.recipe(train, recipe)
        where = torch.device(ctx.device).type
        key = content_key("experts", self, how, train.fingerprint, ctx.seed, where, torch.__version__)
        parameters = {name: list(p.shape) for name, p in build(how.model, train).named_parameters()}
        manifest = {
            "experts": repr(self),
            "recipe": repr(how),
            "data": train.fingerprint,
            "seed": ctx.seed,
            "shape": [self.count, (self.stop_after or self.epochs) + 1, sum(map(prod, parameters.values()))],
            "parameters": list(parameters.items()),
        }
        weights, ledger = _kept(key, manifest, ctx, lambda inner, rows: self._train(train, how, inner, rows))
        ctx.ledger.charges.extend(ledger.charges)
        return ExpertTable(weights, how, train.fingerprint, manifest)

    def trainings(self) -> float:
        """How many trainings of a recipe of 20 epochs on the full data this is."""
        return self.count * (self.stop_after or self.epochs) * PASSES[self.variant] / USUAL_EPOCHS

    def recipe(self, train: Dataset, recipe: Recipe) -> Recipe:
        """How they are trained.

        Args:
            train: The training samples.
            recipe: Gives the network when `model` is `auto`.
        """
        strategy = "_".join(strategy_for("experts", self.augment, train))
        made = Recipe(
            network_for(self.model, train, recipe),
            epochs=self.epochs,
            batch_size=min(self.batch_size, len(train)),
            lr=self.lr,
            momentum=self.momentum,
            nesterov=False,
            weight_decay=self.weight_decay,
            schedule="constant",
            augment=(f"dsa(strategy={strategy!r})",) if strategy else (),
        )
        if self.variant != "smooth" or self.decay == 1:
            return made
        rates = decayed_rates(self.lr, self.epochs, -(-len(train) // made.batch_size), self.decay)
        return replace(made, steps=len(rates), rates=rates)

    def objective(self, train: Dataset, batch_size: int) -> Objective | None:
        """What a training of the variant differentiates; cross-entropy when None."""
        if self.variant == "gsam":
            return GSAM(self.rho, self.alpha)
        if self.variant == "smooth":
            return SmoothLoss(train, batch_size, ramp=self.ramp, penalty=self.penalty, norm=self.norm)
        return None

    def _train(self, train: Dataset, recipe: Recipe, ctx: Context, rows: _Rows) -> None:
        seeds = [generator(ctx.seed, "expert", i).initial_seed() % 2**31 for i in range(self.count)]
        if self.variant == "sgd" and chain_of(build(recipe.model, train)):
            for i, seed in enumerate(seeds):
                rows.write(i, 0, list(build(recipe.model, train, seed).parameters()))
            recipe = replace(recipe, epochs=self.stop_after or self.epochs)
            fit_many(train, recipe, ctx, seeds=seeds, name="experts", phase="choose", watch=rows.stacked)
            return
        state = _Progress(ctx.ledger)
        for i in ctx.loop("experts", self.count, [state], content_key(rows.key)):
            rows.write(i, 0, list(build(recipe.model, train, seeds[i]).parameters()))
            objective = self.objective(train, recipe.batch_size)
            inner, stop = ctx.with_(seed=seeds[i], show=False), self.stop_after or None
            watch = _Watch(rows, i)
            fit(
                train,
                recipe,
                inner,
                objective=objective,
                recorder=watch,
                stop_after=stop,
                name="expert",
                phase="choose",
            )
            if ctx.store is not None:
                ctx.store.remove("expert.state")


class _Progress:
    """What the experts so far have cost."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def state_dict(self) -> dict[str, Any]:
        return {"charges": self.ledger.to_json()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.ledger.charges[:] = Ledger.from_json(state["charges"]).charges


class _Rows:
    """The file while it is written: a header of safetensors, then the numbers, each in its final place."""

    def __init__(self, path: Path, manifest: dict[str, Any], lasting: bool) -> None:
        shape, self.key, self.lasting = tuple(manifest["shape"]), json.dumps(manifest, sort_keys=True), lasting
        entry = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 4 * prod(shape)]}
        header = json.dumps({"__metadata__": {"manifest": self.key}, "weights": entry}).encode()
        header += b" " * (-len(header) % 8)
        start = len(header).to_bytes(8, "little") + header
        size = len(start) + 4 * prod(shape)
        known = b""
        if path.exists() and path.stat().st_size == size:
            with open(path, "rb") as handle:
                known = handle.read(len(start))
        if known != start:
            with open(path, "wb") as handle:
                handle.write(start)
                handle.truncate(size)
        self.fresh = known != start
        self.numbers = np.memmap(path, np.float32, "r+", len(start), shape)

    def write(self, expert: int, epoch: int, parameters: Sequence[Tensor]) -> None:
        """Copy the weights of one expert into their place."""
        flat = torch.cat([p.detach().flatten() for p in parameters]).float()
        self.numbers[expert, epoch] = flat.cpu().numpy()
        self.flush()

    def stacked(self, first: int, epoch: int, weights: dict[str, Tensor]) -> None:
        """Copy the weights of a stack of experts into their places."""
        flat = torch.cat([w.detach().flatten(1) for w in weights.values()], 1).float()
        self.numbers[first : first + len(flat), epoch] = flat.cpu().numpy()
        self.flush()

    def flush(self) -> None:
        """What a checkpoint stands on is on disk before it."""
        if self.lasting:
            self.numbers.flush()


class _Watch:
    """The recorder of one expert: the weights after each epoch."""

    def __init__(self, rows: _Rows, expert: int) -> None:
        self.rows, self.expert = rows, expert
        self.description = f"expert {expert}"

    def record(self, epoch: int, indices: Tensor, outputs: Tensor, losses: Tensor) -> None:
        """Nothing is kept of a batch."""

    def end_epoch(self, epoch: int, model: nn.Module) -> None:
        """Keep a copy of the weights."""
        self.rows.write(self.expert, epoch + 1, list(model.parameters()))

    def state_dict(self) -> dict[str, Any]:
        """Everything is in the file."""
        return {}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """The inverse of `state_dict`."""


def _kept(
    key: str, manifest: dict[str, Any], ctx: Context, make: Callable[[Context, _Rows], None]
) -> tuple[Tensor, Ledger]:
    """The weights from the cache or the store, or trained now; and what they cost."""
    store = Store(ctx.cache / "experts" / key) if ctx.cache is not None else ctx.store
    if store is None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "experts.safetensors"
            inner = ctx.with_(ledger=Ledger(), store=None)
            make(inner, _Rows(path, manifest, lasting=False))
            return _mapped(path), _summed(inner.ledger)  # what is mapped outlives the name of its file
    name = "experts" if ctx.cache is not None else f"experts-{key}"
    with store.locked(wait=True) if ctx.cache is not None else nullcontext():
        if not (store.has(f"{name}.safetensors") and store.has(f"{name}.json")):
            partial = store.folder / f"{name}.part"
            inner = ctx.with_(ledger=Ledger(), store=store)
            rows = _Rows(partial, manifest, lasting=True)
            if rows.fresh:  # a state that goes on in the middle would leave its beginning empty
                _forget(store)
            make(inner, rows)
            del rows
            store.write(f"{name}.safetensors", partial.rename)
            store.write_json(f"{name}.json", {**manifest, "ledger": _summed(inner.ledger).to_json()})
            _forget(store)
        ledger = Ledger.from_json(store.read_json(f"{name}.json")["ledger"])
        return _mapped(store.path(f"{name}.safetensors")), ledger


def _forget(store: Store) -> None:
    for state in [file for file in store.names() if file.startswith("expert") and file.endswith(".state")]:
        store.remove(state)


def _mapped(path: Path) -> Tensor:
    from safetensors.torch import load_file

    return load_file(path)["weights"]


def _summed(ledger: Ledger) -> Ledger:
    return Ledger([replace(ledger.total("choose"), what="experts")])


def _checked(train: Dataset) -> Dataset:
    """The samples in the order of their ids, after what every distiller asks of them."""
    check_inputs("experts", train)
    order = by_id(train)
    missing = (torch.bincount(labels_of("train", train), minlength=train.classes) == 0).nonzero().flatten()
    if len(missing):
        name = train.info.classes[int(missing[0])]
        raise DataError(f"train has no sample of class {name!r}; experts need at least one of every class")
    return train[order]
