"""An encoder on disk: its weights, and what is needed to build it again."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import torch

from modicum.context import Context
from modicum.dataset import Dataset, Info
from modicum.errors import ModicumError, StoreError
from modicum.models import ExpertTransformer, Transformer
from modicum.pretraining.learner import Backbone, backbone_for
from modicum.store import Store
from modicum.training.recipe import Recipe

__all__ = ["load_encoder", "save_encoder"]

WEIGHTS, ABOUT = "encoder.safetensors", "encoder.json"


def save_encoder(store: Store, encoder: Backbone, recipe: Recipe, data: Dataset) -> None:
    """Write the weights and the architecture.

    Args:
        store: The folder.
        encoder: What was learned.
        recipe: Its model must be a text; a factory cannot be written down.
        data: What it was learned on, for the shape of the inputs and how they are standardized.

    Raises:
        ModicumError: The model is a factory.
    """
    if not isinstance(recipe.model, str):
        raise ModicumError(
            "recipe model is a factory, which cannot be saved; expected a name such as 'convnet(width=32)'"
        )
    info = {
        name: value for name, value in asdict(data.info).items() if name in ("modality", "mean", "std", "vocabulary")
    }
    store.write_tensors(WEIGHTS, encoder.state_dict())
    about: dict[str, Any] = {"model": recipe.model, "shape": list(data.inputs.shape[1:]), "info": info}
    network = encoder.network
    if isinstance(network, ExpertTransformer):  # what the recipe names, extended
        blocks = "all" if len(network.places) == len(network.network.blocks) else "middle"
        shape: dict[str, Any] = {"experts": network.count, "domains": len(network.domains), "routing": network.routing}
        about["experts"] = {**shape, "top": network.top, "blocks": blocks}
    store.write_json(ABOUT, about)


def load_encoder(folder: str | os.PathLike[str]) -> tuple[Backbone, Info]:
    """The encoder of a run of `modicum pretrain`, in evaluation mode, and how its inputs were standardized.

    Args:
        folder: Of the run.

    Returns:
        The encoder, and an `Info` with modality, mean, std and vocabulary.

    Raises:
        StoreError: There is no encoder in the folder.

    Example:
        >>> import tempfile, modicum
        >>> from modicum.store import Store
        >>> data, folder = modicum.load("digits").train, tempfile.mkdtemp()
        >>> recipe = Recipe("mlp(hidden=8)")
        >>> save_encoder(Store(folder), backbone_for(recipe, data, seed=0), recipe, data)
        >>> load_encoder(folder)[0].width
        8
    """
    store = Store(folder)
    if not (store.has(WEIGHTS) and store.has(ABOUT)):
        raise StoreError(f"{folder} holds no {WEIGHTS}; expected the folder of a finished `modicum pretrain`")
    about: dict[str, Any] = store.read_json(ABOUT)
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in about["info"].items()
    }
    info = Info("unlabeled", **plain)
    like = torch.zeros((1, *about["shape"]), dtype=torch.int64 if info.modality == "text" else torch.float32)
    encoder = backbone_for(Recipe(about["model"]), Dataset(like, info=info), Context().seed)
    if "experts" in about:
        assert isinstance(encoder.network, Transformer)
        encoder.network = ExpertTransformer(encoder.network, **about["experts"])
    encoder.load_state_dict(store.read_tensors(WEIGHTS))
    return encoder.eval(), info
