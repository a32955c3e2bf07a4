"""A network from its description, for a data set, with weights that are a function of a seed alone."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from modicum.dataset import Dataset
from modicum.errors import DataError, ModicumError
from modicum.models.cct import cct, cvt, vit_lite
from modicum.models.classic import VGG11, AlexNet, LeNet
from modicum.models.convnet import ConvNet, depth_for
from modicum.models.resnet import ResNet9, ResNet18
from modicum.models.scatnet import ScatNet
from modicum.models.simple import MLP, Linear
from modicum.models.text import Bag, Transformer
from modicum.spec import format_call, parse_call

if TYPE_CHECKING:
    from modicum.training.recipe import Recipe

__all__ = ["ARCHITECTURES", "build", "choose", "network_for"]

ARCHITECTURES: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    "linear": (Linear, ("image", "tabular")),
    "mlp": (MLP, ("image", "tabular")),
    "convnet": (ConvNet, ("image",)),
    "resnet9": (ResNet9, ("image",)),
    "resnet18": (ResNet18, ("image",)),
    "lenet": (LeNet, ("image",)),
    "alexnet": (AlexNet, ("image",)),
    "vgg11": (VGG11, ("image",)),
    "cct": (cct, ("image",)),
    "cvt": (cvt, ("image",)),
    "vit-lite": (vit_lite, ("image",)),
    "scatnet": (ScatNet, ("image",)),
    "bag": (Bag, ("text",)),
    "transformer": (Transformer, ("text",)),
}
"""Architectures by name, and the kinds of data each is for."""


def build(
    model: str | Callable[[], nn.Module], data: Dataset, seed: int = 0, *, outputs: int | None = None
) -> nn.Module:
    """A new network for a data set.

    Its weights are PyTorch's default initialization under the seed; no other random state is read or changed.

    Args:
        model: A name with options, such as `convnet(width=32, depth=3)`; `auto` to choose by the data; or a factory
            `() -> nn.Module`.
        data: Gives the shape of the inputs and the number of outputs: of classes, or 1 for regression.
        seed: Of the initial weights.
        outputs: Width of the last layer, instead of that which the data ask for.

    Returns:
        The network, on the CPU in float32.

    Raises:
        ModicumError: The name or an option is unknown, does not fit the data, or the factory gives no module.
        DataError: The data have no classes.

    Example:
        >>> from modicum.dataset import Info
        >>> data = Dataset(torch.rand(4, 8), torch.tensor([0, 1, 0, 1]), info=Info(classes=("a", "b")))
        >>> build("mlp(hidden=16)", data)(data.inputs).shape
        torch.Size([4, 2])
    """
    make = _factory(model, data, outputs) if isinstance(model, str) else model
    if not callable(make) or isinstance(make, nn.Module):
        raise ModicumError(
            f"model is a {type(model).__name__}; expected a name such as 'mlp' or a factory () -> nn.Module, because "
            "new models are made of it"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = make()
    if not isinstance(network, nn.Module):
        raise ModicumError(f"the model factory {make!r} gave a {type(network).__name__}; expected an nn.Module")
    return network


def choose(data: Dataset) -> str:
    """What `auto` means: a ConvNet for images from 28 px, a bag for text, a multilayer perceptron for the rest."""
    if data.info.modality == "text":
        return "bag"
    sides = list(data.inputs.shape[2:])
    if data.info.modality != "image" or min(sides, default=0) < 28:
        return "mlp"
    # a ConvNet halves the image; sides that are odd need a network that does not mind
    return "convnet(width=32)" if depth_for(sides, 0) else "resnet9(norm='instance')"


def network_for(model: Any, train: Dataset, recipe: Recipe) -> Any:
    """What `auto` means: the recipe's network where it is a convnet or resnet, `convnet(width=32)` for other images, and
    the recipe's for tables."""
    if model != "auto":
        return model
    own = not isinstance(recipe.model, str) or recipe.model.startswith(("convnet", "resnet"))
    if own or train.info.modality != "image":
        return recipe.model
    return "convnet(width=32)" if depth_for(list(train.inputs.shape[2:]), 0) else choose(train)


def _factory(text: str, data: Dataset, outputs: int | None) -> Callable[[], nn.Module]:
    name, options = parse_call(text)
    if name == "auto":
        if options:
            raise ModicumError(f"model {text!r}: auto has no options; it chooses {choose(data)} here")
        name, options = parse_call(choose(data))
    if name not in ARCHITECTURES:
        near = difflib.get_close_matches(name, ARCHITECTURES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ModicumError(f"model {name!r} is unknown; {hint}expected auto, {', '.join(ARCHITECTURES)} or a factory")
    kind, modalities = ARCHITECTURES[name]
    known = [p.name for p in inspect.signature(kind).parameters.values() if p.kind is p.KEYWORD_ONLY]
    wrong = sorted(set(options) - set(known))
    if wrong:
        raise ModicumError(f"model {name!r} has no option {wrong[0]!r}; its options are {', '.join(known) or 'none'}")
    if data.info.modality not in modalities:
        fitting = [other for other, (_, kinds) in ARCHITECTURES.items() if data.info.modality in kinds]
        raise ModicumError(
            f"model {name!r} is for {' and '.join(modalities)} data, but this data set is {data.info.modality}; "
            f"use {', '.join(fitting)}"
        )
    sizes = _sizes(data)
    outputs = data.classes if outputs is None else outputs
    if outputs < 1:
        raise DataError(
            f"model {format_call(name, options)!r} needs to know the number of classes, but this {data.info.task} data "
            "set names none; set info.classes"
        )
    return lambda: kind(*sizes, outputs, **options)


def _sizes(data: Dataset) -> tuple[Any, ...]:
    shape = tuple(data.inputs.shape[1:])
    if data.info.modality == "text":
        if not data.info.vocabulary or len(shape) != 1:
            raise DataError(
                f"text data needs info.vocabulary and inputs of shape (n, length), got {len(data.info.vocabulary)} "
                f"tokens and {tuple(data.inputs.shape)}"
            )
        return len(data.info.vocabulary), shape[0]
    if data.info.modality == "image" and len(shape) != 3:
        raise DataError(f"images must have shape (n, channels, height, width), got {tuple(data.inputs.shape)}")
    return (shape,)
