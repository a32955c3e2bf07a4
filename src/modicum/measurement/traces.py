"""Traces: what happened to every sample in training runs, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from modicum.context import Context
from modicum.dataset import Dataset, Splits
from modicum.errors import StoreError, TrainingError
from modicum.ledger import Ledger
from modicum.measurement.cache import cached
from modicum.spec import content_key
from modicum.store import Store
from modicum.training.evaluate import forward
from modicum.training.fit import fit
from modicum.training.outputs import confidence_gap, error_norm, margin_of
from modicum.training.recipe import Recipe

__all__ = ["TraceTable", "Traces"]

SNAPSHOTS = (0.1, 0.2, 0.5, 1.0)  # shares of the schedule after which every sample is evaluated
EVALUATED = ("error", "gap", "entropy", "top")  # what is kept of a snapshot


@dataclass(frozen=True, eq=False)
class TraceTable:
    """What `Traces` measured.

    Args:
        loss: (runs, epochs, n) loss of a sample when it was presented in a minibatch, before the update.
        margin: (runs, epochs, n) logit of its label minus the largest other logit, at presentation.
        correct: (runs, epochs, n) whether it was classified right at presentation.
        probability: (runs, epochs, n) probability of its label at presentation.
        error: (runs, n) || p - e_y ||_2 after the last epoch, in evaluation mode.
        gap: (runs, n) difference of the two highest probabilities, likewise.
        entropy: (runs, n) entropy of the probabilities in nats, likewise.
        top: (runs, n) the highest probability, likewise.
    """

    loss: Tensor
    margin: Tensor
    correct: Tensor
    probability: Tensor
    error: Tensor
    gap: Tensor
    entropy: Tensor
    top: Tensor


@dataclass(frozen=True)
class Traces:
    """Runs of the recipe on the training set, watched.

    The runs are stopped after a share of the schedule, not shortened, so a longer run holds every shorter one: what was
    measured to the end serves those who need only its beginning, who are charged for the beginning.

    Args:
        runs: Number of runs with different seeds.
        until: Share of the schedule to train for, rounded to whole epochs, at least one.
        model: Another architecture than the recipe's, such as `mlp(hidden=8)`; `small` for a perceptron of 8 hidden units
            on images and tables, and a bag of words of width 8 on text.
    """

    runs: int = 1
    until: float = 1.0
    model: str = ""

    def measure(self, data: Splits, recipe: Recipe, ctx: Context) -> TraceTable:
        """Train and watch, or read from the cache; charged to `ctx.ledger` as choosing."""
        if self.model:
            text = data.train.info.modality == "text"
            small = "bag(width=8)" if text else "mlp(hidden=8, layers=1)"
            recipe = replace(recipe, model=small if self.model == "small" else self.model)
        parts: list[dict[str, Tensor]] = []
        for run in range(self.runs):
            measured, ledger = _run(data.train, recipe, ctx, ctx.seed + 1_000_003 * run, self.until)
            parts.append(measured)
            ctx.ledger.charges.extend(ledger.charges)
        return TraceTable(**{key: torch.stack([part[key] for part in parts]) for key in parts[0]})

    def trainings(self) -> float:
        """How many trainings of the recipe on the full data this is, those of a smaller model counted as whole ones."""
        return self.runs * self.until


def _run(train: Dataset, recipe: Recipe, ctx: Context, seed: int, until: float) -> tuple[dict[str, Tensor], Ledger]:
    n, steps = len(train), recipe.steps_for(len(train))
    if steps * recipe.batch_size < n:
        raise TrainingError(
            f"the recipe visits {steps * recipe.batch_size} of {n} samples; traces need each of them at least once: "
            f"use epochs=1 or steps={-(-n // recipe.batch_size)} or more"
        )
    wanted = recipe.whole_epochs(n, until)
    description = {"data": train.fingerprint, "recipe": recipe, "seed": seed}
    shares = {recipe.whole_epochs(n, share) for share in SNAPSHOTS}
    snapshots = sorted({epoch for epoch in shares if epoch < wanted} | {wanted})

    def make(inner: Context) -> dict[str, Tensor]:
        watch = _Watch(train, inner, wanted, snapshots)
        fit(train, recipe, inner.with_(seed=seed), recorder=watch, stop_after=wanted, name="traces", phase="choose")
        return watch.tensors

    store = _stored(ctx, description)
    longest = store and _longest(store, wanted, shares)
    name = f"epochs-{longest or wanted}"
    measured, ledger = cached("traces", description, ctx, make, name=name)
    if store and not measured.keys() >= set(EVALUATED):  # kept by a version that recorded less: measured again
        with store.locked(wait=True):
            store.remove(f"{name}.safetensors")
        return _run(train, recipe, ctx, seed, until)
    return _first(measured, ledger, wanted)


def _stored(ctx: Context, description: object) -> Store | None:
    """Where runs of this description are kept, if there are any."""
    if ctx.cache is None:
        return None
    where = torch.device(ctx.device).type
    folder = ctx.cache / "traces" / content_key("traces", description, where, torch.__version__)
    return Store(folder) if folder.exists() else None


def _longest(store: Store, wanted: int, shares: set[int]) -> int | None:
    """A run that is long enough and was evaluated after just so many epochs."""
    stored = [int(name[7:-12]) for name in store.names() if name.endswith(".safetensors")]
    fits = [length for length in stored if length == wanted or (length > wanted and wanted in shares)]
    return max(fits, default=None)


def _first(measured: dict[str, Tensor], ledger: Ledger, wanted: int) -> tuple[dict[str, Tensor], Ledger]:
    """The first epochs of a run, and what they cost: their training and one evaluation."""
    at = measured["snapshots"].tolist().index(wanted)
    rows = {key: measured[key][:wanted] for key in ("loss", "margin", "correct", "probability")}
    rows |= {key: measured[key][at] for key in EVALUATED}
    evaluations = [c for c in ledger.charges if c.what == "snapshot"]
    (training,) = (c for c in ledger.charges if c.what == "traces")
    training = replace(training, seconds=training.seconds - sum(c.seconds for c in evaluations))
    share = wanted / len(measured["loss"])
    return rows, Ledger([training.scaled(share), evaluations[at]])


class _Watch:
    """The recorder of a traced run."""

    def __init__(self, train: Dataset, ctx: Context, epochs: int, snapshots: list[int]) -> None:
        n = len(train)
        self.train, self.ctx, self.snapshots = train, ctx, snapshots
        self.labels = train.labels
        self.tensors = {key: torch.zeros(epochs, n) for key in ("loss", "margin", "probability")}
        self.tensors["correct"] = torch.zeros(epochs, n, dtype=torch.bool)
        self.tensors |= {key: torch.zeros(len(snapshots), n) for key in EVALUATED}
        self.tensors["snapshots"] = torch.tensor(snapshots)

    def record(self, epoch: int, indices: Tensor, outputs: Tensor, losses: Tensor) -> None:
        """Reduce the outputs of a batch to four numbers a sample."""
        outputs = outputs.float()
        labels = self.labels[indices].to(outputs.device)
        rows = {
            "loss": losses,
            "margin": margin_of(outputs, labels),
            "correct": outputs.argmax(1) == labels,
            "probability": outputs.softmax(1).gather(1, labels[:, None])[:, 0],
        }
        for key, values in rows.items():
            self.tensors[key][epoch, indices] = values.to("cpu")

    def end_epoch(self, epoch: int, model: nn.Module) -> None:
        """Evaluate every sample at the snapshots."""
        if epoch + 1 not in self.snapshots:
            return
        at = self.snapshots.index(epoch + 1)
        logits = forward(model, self.train, self.ctx, phase="choose", what="snapshot")
        probabilities = logits.softmax(1)
        self.tensors["error"][at] = error_norm(probabilities, self.labels)
        self.tensors["gap"][at] = confidence_gap(probabilities)
        self.tensors["entropy"][at] = torch.special.entr(probabilities).sum(1)
        self.tensors["top"][at] = probabilities.amax(1)

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far, and what it cost."""
        return {"tensors": self.tensors, "charges": self.ctx.ledger.to_json()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """The inverse of `state_dict`."""
        if not state["tensors"].keys() >= self.tensors.keys():
            lost = ", ".join(sorted(self.tensors.keys() - state["tensors"].keys()))
            raise StoreError(
                f"this run of traces was begun by a version that did not record {lost}; delete its .state to begin anew"
            )
        self.tensors = state["tensors"]
        self.ctx.ledger.charges[:] = Ledger.from_json(state["charges"]).charges
