"""Will this prior help? An answer from a pilot, before the run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from modicum.analysis.rela_transport import transport
from modicum.context import Context
from modicum.dataset import Dataset, Splits
from modicum.errors import DataError, ModicumError
from modicum.ledger import Ledger
from modicum.pretraining.learner import backbone_for
from modicum.pretraining.pretrain import default_pretraining_recipe, pretrain
from modicum.pretraining.probes import knn_probe
from modicum.relabeling import Prior, Rela, open_prior
from modicum.training.evaluate import forward
from modicum.training.recipe import Recipe

__all__ = ["Forecast", "predict_help"]

LEAST = 0.02  # of a share: differences below it are not worth a prior


@dataclass(frozen=True)
class Forecast:
    """What a pilot saw; accuracies are those of weighted nearest neighbors on validation samples, None without labels.

    Args:
        verdict: `helps`, `unclear` or `does not help`.
        sentence: Why.
        transport: R^2 of the features that the base learned in the pilot, from those of the prior.
        transport_untrained: The same from the untrained network.
        direct: Accuracy of the prior's own features.
        untrained: Of the untrained network.
        base: Of the base after the pilot.
        relabeled: Of the same network after as many steps on the prior's targets.
        error: Standard error of the difference of the last two.
        steps: Of the pilot.
        flops: Of the pilot.
    """

    verdict: str
    sentence: str
    transport: float
    transport_untrained: float
    direct: float | None
    untrained: float | None
    base: float | None
    relabeled: float | None
    error: float | None
    steps: int
    flops: int


def predict_help(
    data: Splits,
    prior: str | Prior | nn.Module,
    recipe: Recipe | None = None,
    ctx: Context | None = None,
    *,
    base: str = "byol",
    light: str | tuple[str, ...] = "light",
    samples: int = 2000,
    steps: int = 60,
) -> Forecast:
    """Learn for some steps with and without the prior's targets, on some samples, and compare.

    With labels in the validation split, the verdict is `helps` where the targets gave the better representation after as
    many steps, by twice the standard error and two points, and `does not help` where they gave a worse one, or where the
    prior's own features are no better than those of the untrained network. Without labels it rests on transport: how much
    more of what the base learned is a linear function of the prior's features than of the untrained network's. It tells
    of the beginning of a run; a long one forgets where it began.

    Args:
        data: Training and validation samples, of which some are taken.
        prior: As in `relabel`.
        recipe: Of the run to come; one that suits the data when None.
        ctx: Device, seed and ledger; everything is charged as choosing.
        base: Key of a pretraining method with options, or `supervised`.
        light: Augmentation while there are targets.
        samples: Most samples of each split.
        steps: Of the pilot, for each of the two.

    Returns:
        The verdict, a sentence, and the numbers.

    Raises:
        ModicumError: `samples` or `steps` are too few, or an argument is unknown.

    Example:
        >>> import modicum
        >>> seen = predict_help(
        ...     modicum.load("digits"), "pixels", Recipe("mlp(hidden=16)", optimizer="adamw", lr=1e-3),
        ...     base="simclr(hidden=32, dimension=8, augment='none')", light="none", samples=300, steps=20,
        ... )
        >>> seen.direct > 0.8
        True

    Reference:
        Shi et al., Efficiency for Free: Ideal Data Are Transportable Representations, 2024, arXiv 2405.14669 (the idea of
        transport; the verdict is made here).
    """
    for name, value, least in (("samples", samples, 20), ("steps", steps, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ModicumError(f"{name}={value!r}; expected an integer >= {least}")
    ctx = ctx or Context()
    mine = Ledger()
    here = ctx.with_(ledger=mine, store=None, cache=None)
    train, valid = _some(data.train, samples, here), _some(data.valid, samples, here)
    recipe = replace(recipe or default_pretraining_recipe(data.train), steps=steps)
    few = Splits(train, valid, valid)
    if isinstance(prior, str):
        prior = open_prior(prior, train, recipe, here)
    chosen = prior if isinstance(prior, Prior) else Prior(prior)
    method = Rela(base=base, prior=chosen, switch="always", light=light)
    first, second = (pretrain(few, m, recipe, here).encoder for m in (replace(method, switch="never"), method))
    encoders = {"untrained": backbone_for(recipe, train, ctx.seed), "base": first, "relabeled": second}
    rows = {name: (_rows(e, train, here), _rows(e, valid, here)) for name, e in encoders.items()}
    rows["direct"] = chosen.features(train, here), chosen.features(valid, here)
    with here.ledger.clock("choose", "transport"):
        learned = rows["base"][0]
        r2, r2_untrained = (
            transport(rows[name][0], learned, alpha=None, seed=ctx.seed).r2 for name in ("direct", "untrained")
        )
        accuracy = _accuracies(rows, train, valid)
    mine = mine.as_phase("choose")
    ctx.ledger.charges.extend(mine.charges)
    error = None
    if accuracy:
        p = (accuracy["base"] + accuracy["relabeled"]) / 2
        error = math.sqrt(2 * p * (1 - p) / len(valid))
    verdict, sentence = _verdict(accuracy, error, r2, r2_untrained, steps, chosen.name)
    direct, untrained, plain, relabeled = map(accuracy.get, ("direct", "untrained", "base", "relabeled"))
    flops = mine.total().flops
    return Forecast(
        verdict, sentence, r2, r2_untrained, direct, untrained, plain, relabeled, error, steps=steps, flops=flops
    )


def _verdict(
    accuracy: dict[str, float], error: float | None, r2: float, r2_untrained: float, steps: int, name: str
) -> tuple[str, str]:
    moved = (
        f"{100 * max(0.0, r2):.0f} % of what the base learns is linear in the prior's features, "
        f"{100 * max(0.0, r2_untrained):.0f} % in those of the untrained network"
    )
    if not accuracy or error is None:
        more = r2 - r2_untrained
        verdict = "helps" if more > 0.05 else "does not help" if more < -0.05 else "unclear"
        return verdict, f"Without labels only transport can be looked at: {moved}."
    gain, margin = accuracy["relabeled"] - accuracy["base"], max(2 * error, LEAST)
    after = (
        f"after {steps} steps the targets of {name!r} give {100 * accuracy['relabeled']:.1f} % and the base "
        f"{100 * accuracy['base']:.1f} % (nearest neighbors, +-{200 * error:.1f}); the prior used directly gives "
        f"{100 * accuracy['direct']:.1f} %, the untrained network {100 * accuracy['untrained']:.1f} %"
    )
    blind = accuracy["direct"] <= accuracy["untrained"] and gain <= margin
    if gain < -margin or blind:
        return "does not help", f"This prior is not expected to help: {after}. {moved}."
    if gain > margin:
        best = (
            " Using the prior directly is better still." if accuracy["direct"] > accuracy["relabeled"] + margin else ""
        )
        return "helps", f"This prior is expected to help early in the run: {after}. {moved}.{best}"
    return "unclear", f"This prior makes no difference that the pilot can see: {after}. {moved}."


def _some(data: Dataset, samples: int, ctx: Context) -> Dataset:
    if not len(data):
        raise DataError("a split has 0 samples; the pilot needs training and validation samples")
    return data[torch.randperm(len(data), generator=ctx.generator("pilot"))[:samples].sort().values]


def _rows(encoder: nn.Module, data: Dataset, ctx: Context) -> Tensor:
    return forward(encoder, data, ctx, phase="choose", what="pilot")


def _accuracies(rows: dict[str, tuple[Tensor, Tensor]], train: Dataset, valid: Dataset) -> dict[str, float]:
    if any(d.targets is None or d.info.task != "classification" for d in (train, valid)):
        return {}
    k = max(1, min(50, len(train) // 10))
    return {name: knn_probe(a, train.labels, b, valid.labels, k=k) for name, (a, b) in rows.items()}
