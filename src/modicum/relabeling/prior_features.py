"""What a prior says of every sample, measured once: its features, and the targets made of them."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from modicum.context import Context
from modicum.dataset import Dataset, Splits
from modicum.errors import DataError, ModicumError
from modicum.flops import count_flops
from modicum.measurement.cache import cached
from modicum.pretraining.learner import backbone_for
from modicum.relabeling.open_prior import open_prior
from modicum.relabeling.prior import Prior
from modicum.relabeling.whitened import whitened_targets
from modicum.training.recipe import Recipe

__all__ = ["PriorFeatures", "PriorTargets", "targets_of"]


@dataclass(frozen=True)
class PriorFeatures:
    """The output of a prior model for every training sample, not augmented.

    Args:
        prior: A text (see `open_prior`), a `Prior`, or a network.
        side: Of the images that the prior gets, in px; what suits it when 0.
        statistics: How images are standardized for it: `auto`, `data` or `imagenet`.

    Example:
        >>> import modicum
        >>> PriorFeatures("pixels").measure(modicum.load("digits"), Recipe("mlp"), Context()).shape
        torch.Size([1078, 64])
    """

    prior: str | Prior | nn.Module = "untrained"
    side: int = 0
    statistics: str = "auto"

    def measure(self, data: Splits, recipe: Recipe, ctx: Context) -> Tensor:
        """(n, d) features, or those of the cache; charged to `ctx.ledger` as choosing."""
        measured, ledger = cached(
            "prior",
            self.description(data, recipe, ctx),
            ctx,
            lambda inner: {"features": self._made(data, recipe, inner)},
        )
        ctx.ledger.charges.extend(ledger.charges)
        return measured["features"]

    def trainings(self) -> float:
        """How many trainings of the recipe on the full data this is; of a prior that is trained first, about one."""
        return float(isinstance(self.prior, str) and self.prior.startswith("trained:"))

    def description(self, data: Splits, recipe: Recipe, ctx: Context) -> dict[str, Any]:
        """All that the features depend on."""
        told: dict[str, Any] = {"train": data.train.fingerprint, "side": self.side, "statistics": self.statistics}
        if not isinstance(self.prior, str):
            return told | {"prior": _as_prior(self.prior).digest}
        told["prior"] = self.prior
        file = Path(self.prior.rpartition("@")[2])
        for part in [file] if file.is_file() else [*sorted(file.glob("encoder.*"))] if file.is_dir() else []:
            told[part.name] = hashlib.sha256(part.read_bytes()).hexdigest()
        if self.prior == "untrained":
            told |= {"model": recipe.model, "seed": ctx.seed}
        if self.prior.startswith("trained:"):
            from modicum.data import load

            other = load(self.prior.partition(":")[2]).train
            told |= {"recipe": replace(recipe, steps=None), "seed": ctx.seed, "other": other.fingerprint}
        return told

    def _made(self, data: Splits, recipe: Recipe, ctx: Context) -> Tensor:
        if isinstance(self.prior, str):
            prior = open_prior(self.prior, data.train, recipe, ctx, self.side, self.statistics)
        else:
            prior = _as_prior(self.prior)
        return prior.features(data.train, ctx)


@dataclass(frozen=True)
class PriorTargets:
    """Whitened features of a prior as targets, one row for each training sample.

    Args:
        prior: As in `PriorFeatures`, or a data set that `relabel` made, whose targets are taken as they are.
        dim: Columns; the smaller of the widths of the student and of the prior when 0.
        side: See `PriorFeatures`.
        statistics: See `PriorFeatures`.

    Example:
        >>> import modicum
        >>> PriorTargets("pixels").measure(modicum.load("digits"), Recipe("mlp(hidden=16)"), Context()).shape
        torch.Size([1078, 16])
    """

    prior: str | Prior | nn.Module | Dataset = "untrained"
    dim: int = 0
    side: int = 0
    statistics: str = "auto"

    def measure(self, data: Splits, recipe: Recipe, ctx: Context) -> Tensor:
        """(n, m) targets, or those of the cache; features included, charged to `ctx.ledger` as choosing."""
        if isinstance(self.prior, Dataset):
            return targets_of(self.prior, data.train)
        features = PriorFeatures(self.prior, self.side, self.statistics)
        width = self.dim or backbone_for(recipe, data.train, ctx.seed).width
        description = {"features": features.description(data, recipe, ctx), "width": width}

        def make(inner: Context) -> dict[str, Tensor]:
            return {"targets": whiten(features.measure(data, recipe, inner), width, inner, exact=bool(self.dim))}

        measured, ledger = cached("prior-targets", description, ctx, make)
        ctx.ledger.charges.extend(ledger.charges)
        return measured["targets"]

    def trainings(self) -> float:
        """How many trainings of the recipe on the full data this is."""
        return 0.0 if isinstance(self.prior, Dataset) else PriorFeatures(self.prior).trainings()


def whiten(features: Tensor, width: int, ctx: Context, *, exact: bool) -> Tensor:
    """`whitened_targets`, charged as choosing; unless exact, of as many components as there are up to the width."""
    n, d = features.shape
    if not exact:
        if n - 1 < min(width, d):
            warnings.warn(f"{n} samples have {n - 1} principal components; targets are that wide", stacklevel=2)
        width = max(1, min(width, d, n - 1))
    with ctx.ledger.clock("choose", "whitening") as counts, count_flops() as counter:
        targets = whitened_targets(features.to(ctx.device), width).cpu()
        counts.update(extra_flops=counter.flops, uncounted=counter.uncounted)
    return targets


def targets_of(relabeled: Dataset, data: Dataset) -> Tensor:
    """The targets of relabeled samples for the same samples in the same order.

    Args:
        relabeled: With targets (n, m), as `relabel` makes it.
        data: What is trained on.

    Returns:
        (n, m) targets in float32.

    Raises:
        DataError: The targets have another form, or the ids, which must be the same in the same order, are not.

    Example:
        >>> import torch
        >>> data = Dataset(torch.rand(3, 2))
        >>> targets_of(data.replace(targets=torch.eye(3)), data[[2, 0, 1]])
        Traceback (most recent call last):
            ...
        modicum.errors.DataError: targets are of sample 0 at position 0, but the data have 2 there; expected the same ids \
in the same order: relabel these data, or take the rows by id
    """
    targets = relabeled.targets
    if targets is None or targets.ndim != 2 or not targets.is_floating_point():
        got = "none" if targets is None else f"{targets.dtype} of shape {tuple(targets.shape)}"
        raise DataError(f"targets of the relabeled data are {got}; expected floating (n, m), as `relabel` makes them")
    if len(relabeled) != len(data):
        raise DataError(
            f"there are targets of {len(relabeled)} samples, but the data have {len(data)}; expected the same ids in the "
            "same order: relabel these data, or take the rows by id"
        )
    different = np.flatnonzero(relabeled.ids != data.ids)
    if len(different):
        at = int(different[0])
        raise DataError(
            f"targets are of sample {relabeled.ids[at].item()!r} at position {at}, but the data have "
            f"{data.ids[at].item()!r} there; expected the same ids in the same order: relabel these data, or take the "
            "rows by id"
        )
    bad = (~targets.isfinite()).any(1).nonzero()
    if len(bad):
        raise DataError(f"targets of sample {relabeled.ids[int(bad[0])].item()!r} are not finite; relabel the data")
    return targets.float()


def _as_prior(prior: Prior | nn.Module) -> Prior:
    if isinstance(prior, Prior):
        return prior
    if isinstance(prior, nn.Module):
        return Prior(prior)
    raise ModicumError(f"prior is a {type(prior).__name__}; expected a text, a Prior or an nn.Module")
