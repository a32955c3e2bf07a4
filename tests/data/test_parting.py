"""Stratified parts: exact sizes, every sample once, determinism."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.data import split
from modicum.data.parting import apportion, part_rows, stratified_rows
from modicum.dataset import Dataset, Info
from modicum.errors import DataError


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=20, max_size=120), st.integers(0, 5))
def test_parts_are_a_partition_with_proportional_classes(labels: list[int], seed: int) -> None:
    alike, shares = np.array(labels), (0.6, 0.2, 0.2)
    parts = part_rows(alike, len(alike), shares, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(alike)))
    assert all((np.diff(part) > 0).all() for part in parts)
    assert all(abs(len(part) - share * len(alike)) < 1 for part, share in zip(parts, shares, strict=True))
    assert set(alike[parts[0]]) == set(labels)  # no class loses its last sample
    again = part_rows(alike, len(alike), shares, seed)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))


def test_ties_go_to_the_later_part_and_seeds_differ() -> None:
    alike = np.repeat(np.arange(10), 180)[:1797]
    first, second = (part_rows(alike, 1797, (0.6, 0.2, 0.2), seed) for seed in (0, 1))
    assert [len(part) for part in first] == [1078, 359, 360]
    assert (first[1] != second[1]).any()


def test_stratified_rows_and_apportion() -> None:
    alike = np.repeat([0, 1], [90, 10])
    rows = stratified_rows(alike, 100, 20, 0)
    assert np.bincount(alike[rows]).tolist() == [18, 2]
    assert apportion(np.array([5.0, 5.0]), 10, np.array([2, 20])).tolist() == [2, 8]


def test_split_refuses_wrong_shares_and_empty_parts() -> None:
    data = Dataset(torch.zeros(3, 1), torch.tensor([0, 1, 0]), info=Info(classes=("a", "b")))
    with pytest.raises(DataError, match=r"shares=\(0.5, 0.2\) must be positive and add up to 1"):
        split(data, (0.5, 0.2))
    with pytest.raises(DataError, match="3 samples are too few"):
        split(data, (0.9, 0.1))
