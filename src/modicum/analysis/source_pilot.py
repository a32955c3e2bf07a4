"""Which sources of real data matter for a target: a shared network with a head for each source, trained on a few samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.analysis.a_mtrl import source_relevance
from modicum.arrays import NumPy
from modicum.context import Context
from modicum.dataset import Dataset
from modicum.errors import DataError
from modicum.models import features
from modicum.training.evaluate import forward
from modicum.training.fit import default_recipe, fit
from modicum.training.recipe import Recipe

__all__ = ["SourcePilot", "pilot_sources"]

RIDGE = 1e-2  # of the heads, as a share of the mean square of the features


@dataclass(frozen=True, eq=False)
class SourcePilot:
    """What `pilot_sources` found.

    Args:
        relevance: By the name of a source, the sum of |nu| over its tasks, averaged over the tasks of the target.
        residual: Share of the target's heads that the sources do not explain, averaged over its tasks.
        explored: By the name of a source, the samples that the pilot looked at.
    """

    relevance: dict[str, float]
    residual: float
    explored: dict[str, int]


@dataclass(frozen=True)
class _OwnHead:
    """Cross-entropy among the outputs of the sample's own source; the targets number the pairs (source, class)."""

    classes: int

    @property
    def description(self) -> str:
        return f"own head of {self.classes} classes"

    def __call__(self, model: nn.Module, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        outputs = model(inputs)
        rows = torch.arange(len(outputs), device=outputs.device)
        own = outputs.reshape(len(outputs), -1, self.classes)[rows, targets // self.classes]
        return F.cross_entropy(own, targets % self.classes, reduction="none"), own


def pilot_sources(
    sources: Dataset, target: Dataset, recipe: Recipe | None = None, ctx: Context | None = None, explore: int = 500
) -> SourcePilot:
    """How much each source of a mixture matters for a target, from a few samples of each.

    A network with a shared body and a linear head for each source is trained on `explore` samples of every source. The
    body is then frozen, and each class of each source, one against the rest, gets a ridge regression on its standardized
    features, all with the same penalty: these are the columns of W. The same for each class of the target gives w, and the
    lasso of w on W (`source_relevance`) gives nu. A source matters as much as the |nu| of its columns add up to.

    Args:
        sources: Training samples with a column of sources, labeled with classes.
        target: Training samples of the target, with the same classes, inputs and vocabulary.
        recipe: Of the network; what suits the data when None.
        ctx: Device, seed, and the ledger that is charged.
        explore: Samples of each source (all where it has fewer).

    Returns:
        Relevance by source, and what the sources leave unexplained.

    Raises:
        DataError: There are no sources or no class labels, or the two do not fit.

    Example:
        >>> import modicum
        >>> from modicum.data import concatenate
        >>> train = modicum.load("digits").train
        >>> noise = train.replace(targets=train.labels[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))])
        >>> mixed = concatenate({"clean": train[:400], "noise": noise[400:800]})
        >>> found = pilot_sources(mixed, train[800:], Recipe("mlp(hidden=32)", epochs=10)).relevance
        >>> found["clean"] > found["noise"]
        True

    Reference:
        Wang et al., Improved Active Multi-Task Representation Learning via Lasso, 2023, arXiv 2306.02556.
    """
    ctx = ctx or Context()
    if sources.sources is None or len(sources.info.sources) < 1:
        raise DataError("sources has no column `sources`; `modicum.data.concatenate` makes one")
    for name, data in (("sources", sources), ("target", target)):
        if data.info.task != "classification" or data.targets is None or not len(data):
            raise DataError(f"{name} is for {data.info.task} of {len(data)} samples; expected labeled classes")
    if sources.info.classes != target.info.classes or sources.inputs.shape[1:] != target.inputs.shape[1:]:
        raise DataError("target has other classes or inputs than sources; concatenate them first, then take them apart")
    if explore < 2:
        raise DataError(f"explore={explore}; expected at least 2 samples of each source")
    names, c = sources.info.sources, sources.classes
    rows = [
        members[torch.randperm(len(members), generator=ctx.generator("pilot", name))[:explore]].sort().values
        for name, members in ((name, (sources.sources == s).nonzero().flatten()) for s, name in enumerate(names))
    ]
    seen = sources[torch.cat(rows)]
    assert seen.sources is not None
    pairs = tuple(f"{name}: {label}" for name in names for label in sources.info.classes)
    numbered = seen.replace(targets=seen.sources * c + seen.labels, info=replace(seen.info, classes=pairs))
    recipe = recipe or default_recipe(seen)
    model = fit(numbered, recipe, ctx, objective=_OwnHead(c), name="sources", phase="choose").model

    def represent(data: Dataset) -> NumPy:
        found = forward(model, data, ctx, function=features, phase="choose", what="features")
        return found.double().cpu().numpy()

    with ctx.ledger.clock("choose", "a-mtrl"):
        x, goal = (
            represent(seen),
            represent(target.replace(info=replace(target.info, mean=seen.info.mean, std=seen.info.std))),
        )
        center, scale = x.mean(0), x.std(0)
        scale[scale < 1e-9] = 1.0
        heads, owners = _columns(x, seen, (center, scale), [(seen.sources == s).numpy() for s in range(len(names))])
        wanted, _ = _columns(goal, target, (center, scale), [np.ones(len(target), bool)])
        found = [source_relevance(heads, w, 1, _penalty(heads, w)) for w in wanted.T]
    total = np.mean([np.bincount(owners, np.abs(f.values), len(names)) for f in found], axis=0)
    explored = {name: len(members) for name, members in zip(names, rows, strict=True)}
    return SourcePilot(
        dict(zip(names, total.tolist(), strict=True)), float(np.mean([f.residual for f in found])), explored
    )


def _penalty(heads: NumPy, w: NumPy) -> float:
    """A tenth of what makes nu zero: heads from few samples are noisy, and nu must not fit that."""
    return 0.1 * float(np.abs(heads.T @ w).max()) or 1e-12


def _columns(x: NumPy, data: Dataset, scaling: tuple[NumPy, NumPy], groups: list[NumPy]) -> tuple[NumPy, Any]:
    """(d, tasks) ridge heads of every class that a group has beside others, and the group of each."""
    labels, columns, owners = data.labels.numpy(), [], []
    for group, members in enumerate(groups):
        z = (x[members] - scaling[0]) / scaling[1]
        hot = np.eye(data.classes)[labels[members]]
        there = (hot.sum(0) > 0) & (hot.sum(0) < len(hot))
        if not there.any():
            continue
        z, hot = z - z.mean(0), hot[:, there] - hot[:, there].mean(0)
        inner = z.T @ z / len(z)
        heads = np.linalg.solve(
            inner + RIDGE * max(np.trace(inner) / len(inner), 1e-9) * np.eye(len(inner)), z.T @ hot / len(z)
        )
        columns.append(heads)
        owners.append(np.full(heads.shape[1], group))
    if not columns:
        raise DataError("every group of samples has one class only; expected at least two, to tell one from the rest")
    return np.concatenate(columns, 1), np.concatenate(owners)
