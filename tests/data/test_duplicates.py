"""Copies and near-copies: against a slow greedy pass, for every kind of data."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.data import concatenate, deduplicate, duplicates, leaders, load, perceptual_hash
from modicum.data.leaders import leaders_of_codes, leaders_of_pairs
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
    leader, value = leaders_of_pairs(n, later, earlier, later * 100.0 + earlier)
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
        monkeypatch.setattr(leaders, "ROWS", rows)
        monkeypatch.setattr(leaders, "PAIRS", rows)
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


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(0, 12), st.booleans())
def test_codes_agree_with_all_pairs(seed, n, most, small):
    draw = np.random.default_rng(seed)
    codes = draw.integers(0, 1 << 63, 4, dtype=np.uint64)[draw.integers(0, 4, n)] * np.uint64(2)
    for _ in range(draw.integers(0, 8)):
        codes = codes ^ (np.uint64(1) << draw.integers(0, 64, n).astype(np.uint64))
    bits = np.array([[(int(a) ^ int(b)).bit_count() for b in codes] for a in codes])
    before = leaders.CANDIDATES
    leaders.CANDIDATES = 17 if small else before
    try:
        leader, value = leaders_of_codes(codes, most)
    finally:
        leaders.CANDIDATES = before
    assert leader.tolist() == greedy(bits <= most).tolist()
    assert value.tolist() == bits[np.arange(n), leader].tolist()


def test_spread_codes_are_not_compared_one_by_one(monkeypatch):
    def never(*_):
        raise AssertionError("all pairs")

    monkeypatch.setattr(leaders, "leaders_of_points", never)
    codes = np.random.default_rng(0).integers(0, 1 << 63, 20_000, dtype=np.uint64)
    codes[-2000:] = codes[:2000] ^ np.uint64(0b1011 << 30)
    assert leaders_of_codes(codes, 4)[0][-2000:].tolist() == list(range(2000))


def test_texts_are_compared_as_they_were_read(monkeypatch):
    # the features know few words and the first few of a text only
    monkeypatch.setattr("modicum.data.text.MOST_TOKENS", 10)
    rare = [f"the film of {i} is x{i} y{i} z{i}" for i in range(40)]
    long = ["the film of 1 " + " ".join(f"{name}{i}" for i in range(50)) for name in "ab"]
    texts, labels = [*rare, rare[7].upper(), *long], [0, 1] * 21 + [0]
    known = load((texts, labels), valid=0, test=0).train
    assert duplicates(known).first[40] == 40
    for found in (duplicates((texts, labels)), duplicates(known, texts=texts)):
        assert found.groups() == [(7, 40)]
        assert found.equal[40]
    assert len(deduplicate((texts, labels)).dataset) == 42


def test_texts_of_two_sources_are_compared_whole():
    short = [f"a{i} b c d" for i in range(60)]
    long = [" ".join(f"q{i}_{j}" for j in range(40)) for i in range(60)]
    labels = [0, 1] * 30
    found = duplicates({"a": ([*short[:59], long[0]], labels), "b": (long, labels)})
    assert found.groups() == [("a/59", "b/0")]


def test_an_image_of_one_color_equals_its_copies_only():
    levels = torch.tensor([0.0, 90.0, 200.0, 90.0])[:, None, None, None].expand(4, 1, 8, 8).contiguous()
    data = Dataset(levels, info=Info("unlabeled", "image"))
    for by in ("pixels", "code"):
        assert duplicates(data, by=by).first.tolist() == [0, 1, 2, 1]


def test_minus_zero_is_zero():
    data = Dataset(torch.tensor([[0.0, 1.0], [-0.0, 1.0]]), info=Info("unlabeled"))
    assert duplicates(data, near=0).first.tolist() == [0, 0]


def test_what_cannot_be_read_is_said():
    with pytest.raises(DataError, match="data has three splits; give one of them"):
        duplicates(load("iris"))
    with pytest.raises(DataError, match="texts has 1 entries; expected one for each of 85 samples of text, got image"):
        duplicates(images(), texts=["a"])
