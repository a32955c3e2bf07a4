"""An encoder comes back from disk as it was."""

import pytest
import torch

import modicum
from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import ModicumError, StoreError
from modicum.models import ExpertTransformer
from modicum.pretraining import pretrain
from modicum.pretraining.learner import backbone_for
from modicum.pretraining.saved import load_encoder, save_encoder
from modicum.store import Store
from modicum.training.recipe import Recipe


def texts(n=24):
    draw = torch.Generator().manual_seed(0)
    info = Info("unlabeled", "text", vocabulary=tuple(f"w{i}" for i in range(20)), sources=("a", "b"))
    return Dataset(torch.randint(2, 20, (n, 12), generator=draw), sources=torch.arange(n) % 2, info=info)


def test_an_image_encoder_comes_back(tmp_path):
    data, recipe = modicum.load("digits").train, Recipe("convnet(width=4)")
    encoder = backbone_for(recipe, data, seed=3).eval()
    save_encoder(Store(tmp_path), encoder, recipe, data)
    again, info = load_encoder(tmp_path)
    x = data.prepare(data.inputs[:5])
    assert torch.equal(again(x), encoder(x))
    assert not again.training
    assert (info.modality, info.mean, info.std) == (data.info.modality, data.info.mean, data.info.std)


def test_an_encoder_with_experts_comes_back(tmp_path):
    data, recipe = texts(), Recipe("transformer(width=8, heads=2, layers=3)", steps=2, batch_size=8)
    done = pretrain(Splits(data, data[:0], data[:0]), "moe-embeddings(blocks='middle')", recipe, Context())
    assert isinstance(done.encoder.network, ExpertTransformer)
    save_encoder(Store(tmp_path), done.encoder, recipe, data)
    again, info = load_encoder(tmp_path)
    assert torch.equal(again(data.inputs), done.encoder(data.inputs))
    assert info.vocabulary == data.info.vocabulary


def test_what_cannot_be_saved_or_loaded_is_refused(tmp_path):
    data = modicum.load("digits").train
    recipe = Recipe(lambda: torch.nn.Linear(64, 2))
    with pytest.raises(ModicumError, match="recipe model is a factory, which cannot be saved"):
        save_encoder(Store(tmp_path), backbone_for(Recipe("mlp"), data, 0), recipe, data)
    with pytest.raises(StoreError, match=r"holds no encoder.safetensors; expected the folder of a finished"):
        load_encoder(tmp_path)
