"""Copies and near-copies: against a slow greedy pass, for every kind of data."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.data import concatenate, deduplicate, duplicates, load, perceptual_hash
from modicum.data.duplicates import _leaders_of_pairs
from modicum.data.overlap import points_of
from modicum.dataset import Dataset, Info
from modicum.errors import DataError

MODULE = sys.modules["modicum.data.duplicates"]  # the name is that of a function, too


def greedy(near):
    """The first earlier kept one that is near, or itself."""
    leader, kept = np.arange(len(near)), []
    for i in range(len(near)):
        first = next((j for j in kept if near[i, j]), None)
        if first is None:
            kept.append(i)
        else:
            leader[i] = first
    return leader


def images(n=60, seed=0):
    draw = torch.Generator().manual_seed(seed)
    base = torch.randint(0, 256, (n, 1, 12, 12), generator=draw).float()
    inputs = torch.cat([base, base[:20] + 3 * torch.randn(20, 1, 12, 12, generator=draw), base[10:15]])
    info = Info(modality="image", classes=("a", "b"))
    return Dataset(inputs, torch.arange(len(inputs)) % 2, info=info)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 25), st.floats(0.02, 0.5))
def test_pairs_are_settled_as_a_pass_in_order_settles_them(seed, n, share):
    near = np.tril(np.random.default_rng(seed).random((n, n)) < share, -1)
    later, earlier = np.nonzero(near)
    leader, value = _leaders_of_pairs(n, later, earlier, later * 100.0 + earlier)
    assert leader.tolist() == greedy(near).tolist()
    moved = leader != np.arange(n)
    assert value[moved].tolist() == (np.flatnonzero(moved) * 100 + leader[moved]).tolist()


@pytest.mark.parametrize("near", [0.15, 0.5, 1.0])
def test_images_agree_with_all_pairs(near):
    data = images()
    points = points_of(data, slice(None))
    found = duplicates(data, near)
    assert found.first.tolist() == greedy((torch.cdist(points, points) <= near).numpy()).tolist()
    if near == 0.15:
        assert found.repeated.sum() == 25
        assert found.equal.sum() == 5
        assert found.groups()[0] == (0, 60)
        assert str(found).startswith("5 of 85 samples repeat an earlier one and 20 nearly so")


def test_blocks_do_not_change_the_answer(monkeypatch):
    whole = duplicates(images(), 0.5)
    for rows in (1, 7):
        monkeypatch.setattr(MODULE, "ROWS", rows)
        monkeypatch.setattr(MODULE, "PAIRS", rows)
        assert duplicates(images(), 0.5).first.tolist() == whole.first.tolist()


def test_tables_texts_codes_and_features():
    iris = load("iris", valid=0, test=0).train
    assert duplicates(iris, near=0).groups() == [(101, 142)]
    assert duplicates(iris, near=0.1).repeated.sum() > 1
    texts, _, _ = load(
        (["one two three four five six"] * 2 + ["one two three four five seven", "x y z"], [0, 1, 0, 1]),
        valid=0,
        test=0,
    )
    found = duplicates(texts, 0.5)
    assert found.first.tolist() == [0, 0, 0, 3]
    assert found.nearness[2] == pytest.approx(3 / 5)
    assert [row.same_target for row in found.rows()] == [False, True]
    assert "1 have another target" in str(found)
    pictures = images()
    code = duplicates(pictures, 6, by="code")
    assert set(code.first[60:].tolist()) <= set(range(20))
    given = duplicates(pictures, 0.0, features=torch.eye(85))
    assert given.first.tolist() == duplicates(pictures, 0).first.tolist()
    assert duplicates(pictures, 0.1, features=torch.ones(85, 2)).repeated.sum() == 84


def test_a_text_with_an_unknown_word_equals_no_other():
    info = Info("unlabeled", "text", vocabulary=("<pad>", "<unk>", "a", "b", "c"))
    tokens = torch.tensor([[2, 3, 1, 0], [2, 3, 1, 0], [2, 3, 4, 0], [2, 3, 4, 0]])
    assert duplicates(Dataset(tokens, info=info)).first.tolist() == [0, 1, 2, 2]


def test_across_sources_the_earlier_one_stands():
    iris = load("iris", valid=0, test=0).train
    done = deduplicate({"web": iris[:100], "books": iris[50:]}, near=0)
    assert len(done.dataset) == 149
    row = done.found.rows()[0]
    assert (row.id, row.source, row.of, row.of_source, row.equal) == ("books/50", "books", "web/50", "web", True)
    assert "50 of them one of another source" in str(done.found)
    assert concatenate({"a": iris}).sources.sum() == 0


def test_two_inputs_with_one_hash_are_told_apart(monkeypatch):
    data = Dataset(torch.tensor([[1.0], [2.0], [1.0], [2.0], [3.0]]), info=Info("unlabeled"))
    monkeypatch.setattr(MODULE, "row_hashes", lambda d: np.zeros(len(d), np.uint64))
    assert duplicates(data, near=0).first.tolist() == [0, 1, 0, 1, 4]


def test_a_perceptual_hash_survives_size_and_brightness():
    draw = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(30, 3, 6, 6, generator=draw), (48, 48), mode="bicubic")
    codes = perceptual_hash(smooth)
    smaller = perceptual_hash(torch.nn.functional.interpolate(smooth, (32, 32), mode="bilinear", antialias=True) * 0.6)
    assert (codes ^ smaller).sum(1).float().mean() < 4
    apart = (codes[:, None] ^ codes).sum(2)[~torch.eye(30, dtype=torch.bool)]
    assert 25 < apart.float().mean() < 39
    with pytest.raises(DataError, match=r"images have shape \(3, 3\)"):
        perceptual_hash(torch.zeros(3, 3))


@pytest.mark.parametrize(
    "options, text",
    [
        ({"near": 2}, "near=2 must lie between 0 and 1 for by='pixels'"),
        ({"by": "text"}, "by='text' cannot compare image data; expected one of 'pixels', 'code', 'features'"),
        ({"by": "sound"}, "by='sound'; expected one of 'text', 'pixels', 'columns', 'code', 'features'"),
        ({"by": "features"}, "by='features' and features are not given; expected both"),
        ({"features": torch.ones(3, 2)}, "features have 3 rows; expected one for each of 85 samples"),
    ],
)
def test_what_cannot_be_compared_is_said(options, text):
    with pytest.raises(DataError) as error:
        duplicates(images(), **options)
    assert str(error.value) == text


def test_empty_and_single_data_have_none():
    assert not duplicates(images()[:0]).repeated.any()
    assert not duplicates(images()[:1]).repeated.any()
