"""Better targets: what a prior model sees in every sample, in the place of the labels."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from modicum.context import Context
from modicum.dataset import Dataset, Splits
from modicum.pretraining.pretrain import default_pretraining_recipe
from modicum.relabeling.prior import Prior
from modicum.relabeling.prior_features import PriorFeatures, whiten
from modicum.training.recipe import Recipe

__all__ = ["relabel"]


def relabel(
    data: Splits,
    prior: str | Prior | nn.Module = "untrained",
    dim: int | None = None,
    recipe: Recipe | None = None,
    ctx: Context | None = None,
    *,
    side: int = 0,
    statistics: str = "auto",
) -> Dataset:
    """Training samples whose targets are the whitened features of a prior model (RELA-D).

    The prior passes once over the samples, not augmented; its output is cached by data and prior, and turned into
    `whitened_targets`. Samples keep their ids, so that `rela(prior=...)` can refuse targets of other samples.

    Args:
        data: The training split is relabeled; labels are not read.
        prior: `untrained`, `pixels`, `trained:DATA`, a folder of `modicum pretrain`, `MODEL@WEIGHTS.safetensors`,
            `timm:NAME`, `hf:NAME` (see `open_prior`), a `Prior`, or a network.
        dim: Columns of the targets; as many as the prior gives, or one less than there are samples, when None.
        recipe: Its model is the one of the untrained prior and of one to be trained; one that suits the data when None.
        ctx: Device, seed, ledger and cache.
        side: Of the images that the prior gets, in px; what suits it when 0.
        statistics: How images are standardized for the prior: `auto`, `data` or `imagenet`.

    Returns:
        The training samples with targets (n, dim) for regression.

    Raises:
        ModicumError: The prior is unknown, or gives no vectors or numbers that are not finite.
        DataError: `dim` is larger than the features or the samples allow.

    Example:
        >>> import modicum
        >>> relabel(modicum.load("digits"), "pixels", dim=10).targets.shape
        torch.Size([1078, 10])

    Reference:
        Shi et al., Efficiency for Free: Ideal Data Are Transportable Representations, 2024, arXiv 2405.14669.
    """
    ctx = ctx or Context()
    recipe = recipe or default_pretraining_recipe(data.train)
    features = PriorFeatures(prior, side, statistics).measure(data, recipe, ctx)
    targets = whiten(features, features.shape[1] if dim is None else dim, ctx, exact=dim is not None)
    info = replace(data.train.info, task="regression", classes=(), target_mean=0.0, target_std=1.0)
    return data.train.replace(targets=targets, info=info)
