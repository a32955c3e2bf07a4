"""Priors from short texts: what is at hand, in files, in run folders and in other packages."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modicum.context import Context
from modicum.dataset import Dataset, Info
from modicum.errors import MissingExtraError, ModicumError
from modicum.pretraining.learner import backbone_for
from modicum.relabeling.prior import Prior
from modicum.training.recipe import Recipe

__all__ = ["open_prior"]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
EXPECTED = (
    "'untrained', 'pixels', 'trained:DATA', a folder of `modicum pretrain`, 'MODEL@WEIGHTS.safetensors', "
    "'timm:NAME' or 'hf:NAME'"
)


def open_prior(
    text: str, data: Dataset, recipe: Recipe, ctx: Context, side: int = 0, statistics: str = "auto"
) -> Prior:
    """A prior from a short text.

    Args:
        text: `untrained`: the student's own initial network. `pixels`: the inputs themselves. `trained:DATA`: the recipe's
            network trained with the labels of another data set, which is charged. A folder that `modicum pretrain` wrote.
            `MODEL@WEIGHTS.safetensors`: an architecture of `modicum.models` with weights. `timm:NAME`, `hf:NAME`: from
            these packages.
        data: What it will be applied to.
        recipe: Of the student.
        ctx: Device, seed and ledger.
        side: Height and width of the images that it gets, in px; what suits it when 0.
        statistics: `data` standardizes inputs as the data say, `imagenet` pixels in [0, 1] by the mean and standard
            deviation of ImageNet; `auto` leaves that to the package where it comes from one, else takes `data`.

    Returns:
        The prior.

    Raises:
        ModicumError: The text is none of these, or weights do not fit.
        MissingExtraError: The package is not installed.

    Example:
        >>> import modicum
        >>> digits = modicum.load("digits").train
        >>> open_prior("untrained", digits, Recipe("mlp(hidden=8)"), Context()).name
        'untrained'
    """
    if statistics not in ("auto", "data", "imagenet"):
        raise ModicumError(f"statistics={statistics!r}; expected 'auto', 'data' or 'imagenet'")
    kind, _, rest = text.partition(":")
    if text == "untrained":
        prior = Prior(backbone_for(recipe, data, ctx.seed), text)
    elif text == "pixels":
        prior = Prior(nn.Flatten(), text)
    elif kind == "trained" and rest:
        prior = _trained(rest, recipe, ctx)
    elif kind == "timm" and rest:
        prior = _timm(rest)
    elif kind == "hf" and rest:
        prior = _huggingface(rest)
    elif "@" in text:
        prior = _weights(text, data, ctx)
    elif Path(text).is_dir():
        prior = _run(Path(text), data)
    else:
        raise ModicumError(f"prior={text!r} is unknown; expected {EXPECTED}")
    if statistics != "auto":
        mean, std = IMAGENET if statistics == "imagenet" else ((), ())
        prior = replace(
            prior, mean=mean, std=std, shape=prior.shape or (3, *data.inputs.shape[2:]) if mean else prior.shape
        )
    if side:
        channels = (prior.shape or data.inputs.shape[1:])[0]
        prior = replace(prior, shape=(channels, side, side))
    prior.encoder.eval()
    return prior


def _trained(name: str, recipe: Recipe, ctx: Context) -> Prior:
    from modicum.data import load
    from modicum.training.fit import fit

    other = load(name).train
    done = fit(other, replace(recipe, steps=None), ctx, name="prior", phase="choose")
    return Prior(done.model, f"trained:{name}", tuple(other.inputs.shape[1:]))


def _run(folder: Path, data: Dataset) -> Prior:
    from modicum.pretraining.saved import load_encoder
    from modicum.store import Store

    encoder, info = load_encoder(folder)
    if info.modality != data.info.modality:
        raise ModicumError(
            f"prior={str(folder)!r} was learned on {info.modality}, but the data are {data.info.modality}"
        )
    return Prior(encoder, str(folder), tuple(Store(folder).read_json("encoder.json")["shape"]))


def _weights(text: str, data: Dataset, ctx: Context) -> Prior:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    model, _, file = text.rpartition("@")
    try:
        weights = dict(load_file(file))
    except (OSError, SafetensorError) as error:
        raise ModicumError(f"prior={text!r}: {file} cannot be read as safetensors: {error}") from error
    weights = {name.removeprefix("network."): value for name, value in weights.items()}
    shape = tuple(data.inputs.shape[1:])
    first = next((w.shape[1] for w in weights.values() if w.ndim == 4 and w.shape[1] in (1, 3)), None)
    if data.info.modality == "image" and first is not None:
        shape = (first, *shape[1:])
    info = Info("unlabeled", data.info.modality, vocabulary=data.info.vocabulary)
    backbone = backbone_for(
        Recipe(model), Dataset(torch.zeros((1, *shape), dtype=data.inputs.dtype), info=info), ctx.seed
    )
    own = backbone.network.state_dict()
    wrong = sorted(name for name in own if name not in weights or weights[name].shape != own[name].shape)
    if wrong:
        got = tuple(weights[wrong[0]].shape) if wrong[0] in weights else "nothing"
        raise ModicumError(
            f"prior={text!r}: weights do not fit {model!r} for inputs of shape {shape}: {wrong[0]!r} is {got}; expected "
            f"{tuple(own[wrong[0]].shape)}"
        )
    backbone.network.load_state_dict({name: weights[name] for name in own})
    return Prior(backbone, text, shape)


def _timm(name: str) -> Prior:
    timm = _package("timm", "timm", f"timm:{name}")
    network: Any = timm.create_model(name, pretrained=True, num_classes=0)
    told: dict[str, Any] = timm.data.resolve_model_data_config(network)
    return Prior(network, f"timm:{name}", tuple(told["input_size"]), tuple(told["mean"]), tuple(told["std"]))


class _Pooled(nn.Module):
    """A network of the `transformers` package: its pooled output, or the mean of its last hidden states."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        out: Any = self.network(x)
        pooled: Tensor | None = getattr(out, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)
        hidden: Tensor = out.last_hidden_state
        return hidden.mean(1) if hidden.ndim == 3 else hidden.mean((2, 3))


def _huggingface(name: str) -> Prior:
    transformers = _package("transformers", "hf", f"hf:{name}")
    network: Any = transformers.AutoModel.from_pretrained(name, use_safetensors=True)
    network = getattr(network, "vision_model", network)
    side = getattr(network.config, "image_size", 224)
    size = tuple(side) if isinstance(side, (list, tuple)) else (side, side)
    return Prior(_Pooled(network), f"hf:{name}", (3, *size), *IMAGENET)


def _package(package: str, extra: str, purpose: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise MissingExtraError(package, extra, purpose) from None
