"""Mixtures remember their sources and unite classes and vocabularies."""

import numpy as np
import pytest
import torch

from modicum.data import concatenate, decode, load
from modicum.dataset import Dataset, Info
from modicum.errors import DataError


def test_classes_ids_weights_and_soft_labels() -> None:
    a = Dataset(torch.zeros(2, 1), torch.tensor([0, 1]), info=Info(classes=("cat", "dog")))
    b = Dataset(
        torch.ones(3, 1), torch.tensor([0, 1, 1]), weights=torch.full((3,), 2.0), info=Info(classes=("dog", "cow"))
    )
    mixed = concatenate({"web": a, "books": b})
    assert mixed.info.classes == ("cat", "dog", "cow")
    assert mixed.labels.tolist() == [0, 1, 1, 2, 2]
    assert mixed.ids.tolist() == ["web/0", "web/1", "books/0", "books/1", "books/2"]
    assert mixed.weights is not None
    assert mixed.weights.tolist() == [1, 1, 2, 2, 2]
    assert mixed.info.mean == pytest.approx((0.6,))
    soft = b.replace(targets=torch.tensor([[0.5, 0.5]] * 3))
    both = concatenate({"web": a, "soft": soft}).targets
    assert both is not None
    assert both[0].tolist() == [1, 0, 0]
    assert both[2].tolist() == [0, 0.5, 0.5]


def test_texts_keep_their_words() -> None:
    a = load((["a good film"] * 20, [0, 1] * 10)).train
    b = load((["a very bad film indeed"] * 20, [0, 1] * 10)).train
    mixed = concatenate({"x": a, "y": b})
    assert decode(mixed, 0) == "a good film"
    assert decode(mixed, len(a)) == "a very bad film indeed"


def test_what_does_not_fit() -> None:
    a = Dataset(torch.zeros(2, 1), torch.tensor([0, 1]))
    with pytest.raises(DataError, match=r"source 'b' has inputs of shape \(2,\), but the first has \(1,\)"):
        concatenate({"a": a, "b": Dataset(torch.zeros(2, 2), torch.tensor([0, 1]))})
    with pytest.raises(DataError, match="source 'b' lacks targets"):
        concatenate({"a": a, "b": Dataset(torch.zeros(2, 1))})
    with pytest.raises(DataError, match="at least one data set"):
        concatenate({})
    assert np.unique(concatenate({"a": a, "b": a}).ids).size == 4
