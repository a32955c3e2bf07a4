"""MinHash: what it finds is right, and as much is found as its curve says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.data.minhash import bands_for, found_share, jaccard, near_pairs, shingles
from modicum.errors import DataError


def sets_of(tokens, width, unknown=1):
    """The same by Python's sets; unknown tokens are unlike each other."""
    out = []
    for r, row in enumerate(tokens.tolist()):
        words = [(r, i) if t == unknown else t for i, t in enumerate(row) if t]
        runs = [tuple(words[i : i + width]) for i in range(max(1, len(words) - width + 1))] if words else []
        out.append(set(runs))
    return out


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 6))
def test_shingles_are_the_sets_of_runs(seed, width, words):
    tokens = np.random.default_rng(seed).integers(0, words, (12, 9))
    sets, expected = shingles(tokens, width), sets_of(tokens, width)
    assert np.diff(sets.starts).tolist() == [len(s) for s in expected]
    filled = [i for i, s in enumerate(expected) if s]
    a, b = (x.ravel() for x in np.meshgrid(filled, filled))
    if len(a):
        truth = [len(expected[i] & expected[j]) / len(expected[i] | expected[j]) for i, j in zip(a, b)]
        assert jaccard(sets, a, b).tolist() == pytest.approx(truth, abs=1e-12)


def copies(n, share, seed=0, length=60):
    """n random texts and n copies in which this share of the words is other."""
    draw = np.random.default_rng(seed)
    tokens = draw.integers(2, 5000, (n, length))
    other = np.where(draw.random((n, length)) < share, draw.integers(2, 5000, (n, length)), tokens)
    return np.concatenate([tokens, other])


@pytest.mark.parametrize("near", [0.5, 0.8])
def test_nearly_all_pairs_above_the_threshold_are_found_and_none_below(near):
    tokens = copies(400, 0.05)
    expected = sets_of(tokens, 3)
    truth = {(i + 400, i) for i in range(400)}
    values = {p: len(expected[p[0]] & expected[p[1]]) / len(expected[p[0]] | expected[p[1]]) for p in truth}
    wanted = {p for p, v in values.items() if v >= near}
    later, earlier, found = near_pairs(shingles(tokens), near)
    assert set(zip(later.tolist(), earlier.tolist())) <= wanted
    assert len(later) >= 0.99 * len(wanted)
    assert found.min() >= near
    assert found == pytest.approx([values[p] for p in zip(later.tolist(), earlier.tolist())])


def test_the_share_of_candidates_follows_the_curve():
    # two sets of equal size that share this many of their 40 elements
    draw = np.random.default_rng(0)
    shared, total = 20, 0
    for _ in range(300):
        common, left, right = np.split(draw.integers(2, 1 << 30, 3 * 20), 3)
        tokens = np.stack([np.concatenate([common[:shared], x]) for x in (left, right)])
        total += len(near_pairs(shingles(tokens, width=1), 1 / 3, hashes=6, recall=0.29)[0])
    bands, rows = bands_for(1 / 3, 6, 0.29)
    assert (bands, rows) == (3, 2)
    assert total / 300 == pytest.approx(found_share(1 / 3, bands, rows), abs=0.09)


def test_more_rows_are_taken_as_long_as_enough_is_found():
    for near in (0.5, 0.7, 0.8, 0.9):
        bands, rows = bands_for(near)
        assert bands * rows <= 128
        assert found_share(near, bands, rows) >= 0.99
        assert found_share(near, 128 // (rows + 1), rows + 1) < 0.99


def test_a_bucket_of_many_equal_sets_does_not_explode():
    tokens = np.tile(np.arange(2, 12), (500, 1))
    later, earlier, _ = near_pairs(shingles(tokens), 0.9)
    assert len(later) <= 500 * 33
    assert {(i, 0) for i in range(1, 500)} <= set(zip(later.tolist(), earlier.tolist()))


def test_empty_texts_and_empty_data_have_no_pairs():
    assert [len(x) for x in near_pairs(shingles(np.zeros((3, 4), np.int64)), 0.8)] == [0, 0, 0]
    assert [len(x) for x in near_pairs(shingles(np.zeros((0, 4), np.int64)), 0.8)] == [0, 0, 0]


def test_bad_numbers_are_named():
    with pytest.raises(DataError, match=r"near=0, hashes=128, recall=0.99; expected near in \(0, 1\]"):
        bands_for(0)
    with pytest.raises(
        DataError, match=r"tokens are float64 of shape \(2,\); expected integers of shape \(n, length\)"
    ):
        shingles(np.zeros(2))
    with pytest.raises(DataError, match="width=0; expected an integer >= 1"):
        shingles(np.zeros((2, 2), np.int64), 0)
