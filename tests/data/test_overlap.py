"""Copies and near-copies between splits, against an exhaustive search."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.data import load, overlap, standardized
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError


def _splits(train: torch.Tensor, test: torch.Tensor, modality: str) -> Splits:
    info = Info(task="unlabeled", modality=modality)  # type: ignore[arg-type]
    first = standardized(Dataset(train, None, np.arange(len(train)), info=info))
    other = Dataset(test, None, np.arange(len(test)) + 1000, info=first.info)
    return Splits(first, other[:0], other)


def test_copies_and_near_copies_of_images_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    train = torch.randint(0, 256, (300, 3, 12, 12), generator=generator).to(torch.uint8)
    test = torch.randint(0, 256, (40, 3, 12, 12), generator=generator).to(torch.uint8)
    test[5] = train[17]
    test[9] = (train[42].float() * 0.7 + 30).to(torch.uint8)  # another contrast and brightness
    found = overlap(_splits(train, test, "image")).test
    assert found.exact == ((1005, 17),)
    assert [pair[:2] for pair in found.near] == [(1009, 42)]
    assert found.n == 40
    assert overlap(_splits(train, test, "image"), near=0).test.near == ()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.05, 0.2, 0.6]))
def test_nearest_neighbours_equal_an_exhaustive_search(seed: int, near: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(6, 150, generator=generator)
    train, test = (torch.randn(n, 6, generator=generator) @ basis for n in (400, 80))
    test[:30] = train[:30] + 0.3 * torch.randn(30, 150, generator=generator)
    splits = _splits(train, test, "tabular")
    found = overlap(splits, near=near).test
    a, b = splits.test.prepare(test), splits.train.prepare(train)
    distance, partner = torch.cdist(a.double(), b.double()).min(1)
    values = {i: v for i, _, v in found.near}
    usual = next((float(distance[i - 1000]) / v for i, v in values.items()), 1.0)
    assert {(i, j) for i, j, _ in found.near} == {
        (i + 1000, int(partner[i])) for i in range(80) if values and distance[i] <= near * usual
    }
    assert len(found.near) >= (30 if near == 0.6 else 0)


def test_texts_equal_an_exhaustive_search() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{w}" for w in rng.choice(16, 8)) for _ in range(300)]
    splits = load((texts, [0, 1] * 150))
    found = overlap(splits, near=0.6).test
    sets = [[set(row.tolist()) - {0, 1} for row in part.inputs] for part in splits]
    best = [max(len(a & b) / len(a | b) for b in sets[0]) for a in sets[2]]
    equal = {i for i, _ in found.exact}
    expected = {i: v for i, v in zip(splits.test.ids.tolist(), best, strict=True) if v >= 0.6 and i not in equal}
    assert {i: v for i, _, v in found.near} == pytest.approx(expected)
    assert len(expected) > 3


def test_duplicated_data_and_words() -> None:
    constant = torch.zeros(50, 4)
    found = overlap(_splits(constant, constant[:7], "tabular"))
    assert len(found.test.exact) == 7
    assert "7 of 7 test samples are copies" in str(found)
    with pytest.raises(DataError, match="near=2 must lie between 0 and 1"):
        overlap(_splits(constant, constant, "tabular"), near=2)
