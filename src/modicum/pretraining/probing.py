"""All probes on an encoder, on an untrained one and on raw inputs, in one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.context import Context
from modicum.dataset import Dataset, Splits
from modicum.errors import DataError, ModicumError
from modicum.ledger import Charge, Ledger
from modicum.pretraining.learner import backbone_for
from modicum.pretraining.probes import few_shot_probe, knn_probe, linear_probe, naive_bayes_probe
from modicum.training.evaluate import forward
from modicum.training.recipe import Recipe

__all__ = ["PROBES", "ProbeRow", "ProbeTable", "probe"]

PROBES = ("knn", "linear", "naive-bayes", "few-shot")
ENCODER, UNTRAINED, RAW = "encoder", "untrained network", "raw inputs"


@dataclass(frozen=True)
class ProbeRow:
    """What a probe found on a representation.

    Args:
        data: Name of the data set; empty for the one that the encoder learned from.
        representation: `encoder`, `untrained network` or `raw inputs`.
        probe: `k-NN`, `linear`, `naive Bayes` or `nearest mean`.
        shots: Labels of each class; 0 when all were used.
        accuracy: On the test split; the mean over draws where there are any.
        error: Standard error over the draws; None where nothing was drawn.
        labels: That the probe read.
        seconds: Of the probe, encoding not included.
    """

    data: str
    representation: str
    probe: str
    shots: int
    accuracy: float
    error: float | None
    labels: int
    seconds: float


@dataclass(frozen=True)
class ProbeTable:
    """What an encoder is worth beside its controls.

    Args:
        rows: One for each data set, representation and probe.
        tested: Test samples of each data set.
        ledger: What encoding and probing cost.
    """

    rows: tuple[ProbeRow, ...]
    tested: Mapping[str, int]
    ledger: Ledger

    def accuracy(self, representation: str, probe: str, shots: int = 0, data: str = "") -> float:
        """The number of one row.

        Raises:
            ModicumError: There is no such row.
        """
        for row in self.rows:
            if (row.representation, row.probe, row.shots, row.data) == (representation, probe, shots, data):
                return row.accuracy
        there = sorted({(r.representation, r.probe, r.shots) for r in self.rows if r.data == data})
        raise ModicumError(f"no row for {(representation, probe, shots)} of data {data!r}; there are {there}")

    def to_rows(self) -> list[dict[str, Any]]:
        """Rows as plain dictionaries."""
        return [asdict(row) for row in self.rows]


def probe(
    encoder: nn.Module,
    data: Splits,
    ctx: Context | None = None,
    *,
    recipe: Recipe | None = None,
    probes: Sequence[str] = PROBES,
    controls: bool = True,
    transfer: Mapping[str, Splits] | None = None,
    k: int = 200,
    temperature: float = 0.1,
    shots: Sequence[int] = (1, 5, 10, 20),
    draws: int = 10,
) -> ProbeTable:
    """Probe a frozen encoder, and the controls beside it by the very same probes.

    Probes are fit on the training split and read the test split once; what they choose (the penalty of the linear probe)
    they choose within the training split. Inputs are not augmented.

    Args:
        encoder: Standardized inputs -> (b, d).
        data: Labeled splits; usually those whose training inputs the encoder learned from.
        ctx: Device, seed of the draws, and ledger, which is charged as evaluation.
        recipe: Of the encoder, for the control with its initial weights; that control is left out when None.
        probes: Which of `knn`, `linear`, `naive-bayes` and `few-shot`.
        controls: Whether the controls are probed too.
        transfer: Other labeled splits by name, on which the same encoder is probed. Images of another size or number of
            channels are resized and made gray or colored first.
        k: Neighbors that vote.
        temperature: Of their weights.
        shots: Labels of each class of the few-shot probe.
        draws: Of the few labels.

    Returns:
        The table.

    Raises:
        ModicumError: A probe has another name, or the data have no class labels.
        DataError: Data to transfer to are of another kind than the encoder reads.

    Example:
        >>> import modicum
        >>> table = probe(torch.nn.Flatten(), modicum.load("digits"), probes=("knn",))
        >>> table.accuracy("encoder", "k-NN") == table.accuracy("raw inputs", "k-NN")
        True
    """
    ctx = ctx or Context()
    wrong = [name for name in probes if name not in PROBES]
    if wrong or not probes:
        raise ModicumError(f"probes={tuple(probes)!r}; expected some of {PROBES}")
    mine = Ledger()
    here = ctx.with_(ledger=mine)
    sets = {"": data, **(transfer or {})}
    rows: list[ProbeRow] = []
    fits = {name: _fitted(data.train, splits.train, name) for name, splits in sets.items()}
    for name, splits in sets.items():
        if splits.train.info.task != "classification" or splits.test.info.task != "classification":
            raise ModicumError(
                f"data {name or splits.train.info.source!r} is for {splits.train.info.task}; probes need class labels"
            )
    for name, splits in sets.items():
        fitted = fits[name]
        encoders: dict[str, nn.Module | None] = {ENCODER: encoder}
        if controls and recipe is not None:
            encoders[UNTRAINED] = backbone_for(recipe, data.train, ctx.seed).to(torch.device(ctx.device))
        if controls:
            encoders[RAW] = None
        for representation, module in encoders.items():
            train, test = _encoded(module, splits, fitted, here)
            for kind in probes:
                found = _PROBES[kind](train, test, splits, here, k, temperature, shots, draws)
                rows += [ProbeRow(name, representation, *row) for row in found]
    ctx.ledger.charges.extend(mine.charges)
    return ProbeTable(tuple(rows), {name: len(splits.test) for name, splits in sets.items()}, mine)


Found = list[tuple[str, int, float, float | None, int, float]]


def _knn(train: Tensor, test: Tensor, data: Splits, ctx: Context, k: int, temperature: float, *_: Any) -> Found:
    operations = 2 * len(train) * len(test) * train.shape[1]
    return _timed(
        "k-NN",
        train,
        ctx,
        lambda: knn_probe(train, data.train.labels, test, data.test.labels, k, temperature),
        operations,
    )


def _linear(train: Tensor, test: Tensor, data: Splits, ctx: Context, *_: Any) -> Found:
    return _timed("linear", train, ctx, lambda: linear_probe(train, data.train.labels, test, data.test.labels))


def _naive_bayes(train: Tensor, test: Tensor, data: Splits, ctx: Context, *_: Any) -> Found:
    return _timed(
        "naive Bayes", train, ctx, lambda: naive_bayes_probe(train, data.train.labels, test, data.test.labels)
    )


def _few_shot(
    train: Tensor,
    test: Tensor,
    data: Splits,
    ctx: Context,
    k: int,
    temperature: float,
    shots: Sequence[int],
    draws: int,
) -> Found:
    started = time.perf_counter()
    labels, wanted = data.train.labels, data.test.labels
    found = few_shot_probe(train, labels, test, wanted, shots, draws, ctx.seed)
    seconds = time.perf_counter() - started
    ctx.ledger.add(Charge("evaluate", "few-shot probe", seconds=seconds))
    each = seconds / max(1, len(found))
    return [(f.classifier, f.shots, f.accuracy, f.error, f.labels, each) for f in found]


def _timed(name: str, train: Tensor, ctx: Context, work: Callable[[], float], operations: int = 0) -> Found:
    started = time.perf_counter()
    accuracy = work()
    seconds = time.perf_counter() - started
    ctx.ledger.add(Charge("evaluate", f"{name} probe", extra_flops=operations, seconds=seconds))
    return [(name, 0, accuracy, None, len(train), seconds)]


_PROBES: dict[str, Callable[..., Found]] = {
    "knn": _knn,
    "linear": _linear,
    "naive-bayes": _naive_bayes,
    "few-shot": _few_shot,
}


def _encoded(
    module: nn.Module | None, data: Splits, fitted: Callable[[Tensor], Tensor], ctx: Context
) -> tuple[Tensor, Tensor]:
    """(n, d) and (m, d) of the training and the test inputs; raw ones when there is no module."""
    if module is not None:

        def encode(network: nn.Module, x: Tensor) -> Tensor:
            out: Tensor = network(fitted(x))
            return out.flatten(1)

        train, test = (
            forward(module, d, ctx, function=encode, what="encode for probes") for d in (data.train, data.test)
        )
        return train, test
    if data.train.info.modality == "text":  # token numbers are no numbers: latent semantics stand in for them
        from modicum.measurement.features import Features

        inner = Ledger()
        table = Features().measure(Splits(data.train, data.test, data.test), Recipe(), ctx.with_(ledger=inner))
        ctx.ledger.charges.extend(inner.as_phase("evaluate").charges)
        return table.train, table.valid
    return tuple(fitted(d.prepare(d.inputs)).flatten(1) for d in (data.train, data.test))  # type: ignore[return-value]


def _fitted(own: Dataset, other: Dataset, name: str) -> Callable[[Tensor], Tensor]:
    """What makes standardized inputs of another data set fit an encoder of this one."""
    shape, given = tuple(own.inputs.shape[1:]), tuple(other.inputs.shape[1:])
    if shape == given and own.info.modality == other.info.modality:
        return lambda x: x
    if own.info.modality != "image" or other.info.modality != "image":
        raise DataError(
            f"transfer to {name!r}: {other.info.modality} of shape {given}; the encoder reads {own.info.modality} of shape "
            f"{shape}"
        )

    def fit(x: Tensor) -> Tensor:
        if x.shape[1] != shape[0]:
            x = x.mean(1, keepdim=True).expand(-1, shape[0], -1, -1)
        if tuple(x.shape[2:]) != shape[1:]:
            x = F.interpolate(x, shape[1:], mode="bilinear", antialias=True)
        return x

    return fit
