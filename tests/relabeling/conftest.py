"""Small images with classes that a network can see."""

import pytest
import torch

from modicum.dataset import Dataset, Info, Splits


@pytest.fixture
def images():
    def make(n=48, channels=3, side=8, seed=0, **columns):
        draw = torch.Generator().manual_seed(seed)
        labels = torch.arange(n) % 3
        inputs = (90 * torch.rand(n, channels, side, side, generator=draw) + 60 * labels.reshape(-1, 1, 1, 1)).to(
            torch.uint8
        )
        info = Info(modality="image", classes=("a", "b", "c"), mean=(110.0,) * channels, std=(60.0,) * channels)
        data = Dataset(inputs, columns.pop("targets", labels), info=columns.pop("info", info), **columns)
        return Splits(data, data[:30], data[:30])

    return make
