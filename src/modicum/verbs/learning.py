"""The verbs that learn without labels: pretrain, and probe what was learned."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from modicum.comparison.estimate import Estimate, estimate_pretraining
from modicum.context import Context
from modicum.data import load
from modicum.dataset import Dataset, Splits
from modicum.errors import DataError, ModicumError
from modicum.evidence import environment
from modicum.methods import Pretraining, make, spec
from modicum.pretraining import Pretrained, recipe_for
from modicum.pretraining import pretrain as learn
from modicum.pretraining.saved import load_encoder, save_encoder
from modicum.relabeling import relabel as relabel_with
from modicum.store import Store
from modicum.training.recipe import Recipe

if TYPE_CHECKING:
    from modicum.pretraining import ProbeTable

__all__ = ["pretrain", "probe", "relabel"]


def pretrain(
    data: Any,
    method: Any = "sqrtkl",
    recipe: Recipe | None = None,
    ctx: Context | None = None,
    *,
    share: float = 1.0,
    folder: str | os.PathLike[str] | None = None,
    announce: Callable[[Estimate], None] | None = None,
    **options: Any,
) -> Pretrained:
    """Learn a representation of the training inputs, without their labels.

    Args:
        data: What `modicum.load` understands.
        method: Key of a pretraining method, with options or without, or a method object.
        recipe: Architecture, steps, optimizer; one that suits the data when None.
        ctx: Device, seed, ledger, cache.
        share: Of the samples that an epoch visits, a fresh draw each time: the budget in steps.
        folder: Where the encoder, the curve, the probes and the page `report.html` go; the same call goes on from there
            when it was interrupted. Nothing is written when None.
        announce: Is told the estimate before the work starts.
        options: For `load`, such as `label` or `limit`.

    Returns:
        The encoder, its history and its ledger.

    Raises:
        ModicumError: The method does not pretrain, or an argument cannot be used.

    Example:
        >>> short = Recipe("convnet(width=8)", epochs=1, optimizer="adamw", lr=1e-3)
        >>> pretrain("digits", "simclr(augment='crops', hidden=32)", short).encoder.width
        32
    """
    chosen = make(method) if isinstance(method, str) else method
    if not isinstance(chosen, Pretraining):
        raise ModicumError(
            f"method {chosen.card.key!r} does not pretrain; `modicum methods pretraining` lists those that do"
        )
    ctx = ctx or Context()
    splits = load(data, **options)
    recipe = recipe or recipe_for(chosen, splits.train)
    if announce is not None:
        announce(estimate_pretraining(chosen, splits, recipe, ctx, share))
    if folder is None:
        return learn(splits, chosen, recipe, ctx, share=share)
    from modicum.pretraining import Curve
    from modicum.pretraining import probe as probe_encoder
    from modicum.report.write_pretraining import write_pretraining

    store = Store(folder)
    settings = {
        **{"command": "pretrain", "data": str(data), "label": None, "limit": None, **options},
        **{"method": spec(chosen), "recipe": asdict(recipe), "seed": ctx.seed, "share": share},
        "environment": environment(),
    }
    with store.locked():
        store.write_json("run.json", settings)
        labeled = splits.train.info.task == "classification"
        curve = Curve(splits, recipe, ctx, share=share) if labeled else None
        done = learn(splits, chosen, recipe, ctx.with_(store=store), share=share, recorder=curve)
        if isinstance(recipe.model, str):
            save_encoder(store, done.encoder, recipe, splits.train)
        table = probe_encoder(done.encoder, splits, ctx, recipe=recipe) if labeled else None
        rows = curve.rows(done) if curve else ()
        write_pretraining(done, splits, store, settings, table, rows)
    return done


def probe(run: str | os.PathLike[str], data: Any = None, ctx: Context | None = None, **options: Any) -> ProbeTable:
    """What the encoder of a run knows: probes on its representation, beside raw inputs and the untrained network.

    Args:
        run: Folder of a finished `modicum pretrain`.
        data: Another data set to transfer to, what `modicum.load` understands; that of the run when None.
        ctx: Device, seed and ledger.
        options: For `load`, such as `label` or `limit`; those of the run where it is the run's data.

    Returns:
        A row for each representation and probe.

    Raises:
        ModicumError: The folder holds no encoder, or the data do not fit it.

    Example:
        >>> import tempfile
        >>> folder, short = tempfile.mkdtemp(), Recipe("convnet(width=4)", epochs=1)
        >>> done = pretrain("digits", "simclr(augment='crops', hidden=8)", short, folder=folder)
        >>> sorted({row.probe for row in probe(folder).rows})[-1]
        'nearest mean'
    """
    from modicum.pretraining import probe as probe_encoder

    ctx = ctx or Context()
    encoder, info = load_encoder(run)
    saved = Store(run).read_json("run.json")
    own = data is None
    splits = load(
        saved["data"] if own else data, **({k: saved[k] for k in ("label", "limit")} | options if own else options)
    )
    if splits.train.info.task != "classification":
        raise DataError(f"probes need class labels, but {data or saved['data']} is for {splits.train.info.task}")
    if splits.train.info.modality != info.modality:
        raise DataError(
            f"the encoder reads {info.modality} data, but {data or saved['data']} is {splits.train.info.modality}"
        )
    same = replace(splits.train.info, mean=info.mean, std=info.std)
    splits = Splits(*(d.replace(info=same) for d in splits))
    recipe = Recipe(**{**saved["recipe"], "augment": tuple(saved["recipe"]["augment"])})
    return probe_encoder(encoder.to(ctx.device), splits, ctx, recipe=recipe)


def relabel(
    data: Any,
    prior: Any = "untrained",
    dim: int | None = None,
    *,
    recipe: Recipe | None = None,
    ctx: Context | None = None,
    **options: Any,
) -> Dataset:
    """The training samples with whitened features of a prior model as targets (RELA-D).

    Args:
        data: What `modicum.load` understands.
        prior: `untrained`, `pixels`, `trained:DATA`, a folder of `modicum pretrain`, `MODEL@WEIGHTS.safetensors`,
            `timm:NAME`, `hf:NAME`, or a network.
        dim: Columns of the targets; as many as the prior gives when None.
        recipe: Its model is the one of an untrained prior.
        ctx: Device, seed, ledger and cache.
        options: For `load`, such as `label` or `limit`.

    Returns:
        A data set for regression with targets (n, dim), which `fit` trains on and `rela` takes as its prior.

    Raises:
        ModicumError: The prior is unknown, or an argument cannot be used.

    Example:
        >>> relabel("digits", "pixels", dim=8).targets.shape
        torch.Size([1078, 8])
    """
    return relabel_with(load(data, **options), prior, dim, recipe, ctx)
