"""Texts as they are written: against plain lists of words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.data import load
from modicum.data.written import Written, written, written_splits

TEXTS = st.lists(st.lists(st.sampled_from("abc"), max_size=5).map(" ".join), max_size=12)


def lists(texts):
    return [texts.flat[a:b].tolist() for a, b in zip(texts.starts, texts.starts[1:])]


@settings(max_examples=50, deadline=None)
@given(TEXTS, st.integers(0, 99))
def test_equal_texts_have_equal_hashes_and_words(texts, seed):
    found = Written.of_texts(texts, {})
    assert len(found) == len(texts)
    hashes = found.hashes()
    pairs = [(i, j) for i in range(len(texts)) for j in range(len(texts))]
    left, right = (np.array([p[k] for p in pairs], np.int64) for k in (0, 1))
    truth = [texts[i].split() == texts[j].split() for i, j in pairs]
    assert found.same(left, right).tolist() == truth
    assert [hashes[i] == hashes[j] for i, j in pairs] == truth
    rows = np.random.default_rng(seed).integers(0, max(1, len(texts)), 7)[: 7 * bool(texts)]
    assert lists(found.take(rows)) == [lists(found)[i] for i in rows]


def test_words_that_nobody_knows_are_all_different():
    one = Written.of_rows(np.array([[2, 1, 1], [1, 3, 0]]))
    both = Written.joined([one, one])
    unknown = both.flat[both.flat < 0]
    assert len(unknown) == len(set(unknown.tolist())) == 6
    assert not both.same(np.array([0]), np.array([2])).any()
    assert Written.joined([]).starts.tolist() == [0]


def test_a_data_set_is_read_in_the_numbers_of_other_sources():
    numbers = {"film": 0}
    train = load((["a good film", "a film"], [0, 1]), valid=0, test=0).train
    known = Written.of_dataset(train, numbers)
    assert [[list(numbers)[w] for w in text] for text in lists(known)] == [["a", "good", "film"], ["a", "film"]]


@pytest.mark.parametrize("limit", [None, 20])
def test_texts_follow_the_samples_into_their_splits(tmp_path, limit):
    rows = [f"text number {i} w{i}\t{i % 2}" for i in range(60)]
    (tmp_path / "a.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    splits = load(tmp_path / "a.tsv", limit=limit)
    texts = written_splits(written(tmp_path / "a.tsv", numbers := {}), splits)
    for name in ("train", "valid", "test"):
        data = getattr(splits, name)
        assert [list(numbers)[t[-1]] for t in lists(texts[name])] == [f"w{i}" for i in data.ids.tolist()]


def test_a_file_of_test_texts_has_ids_of_its_own(tmp_path):
    for name in ("train", "test"):
        lines = [f"{name} {i}\t{i % 2}" for i in range(30)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    splits = load(tmp_path)
    texts = written_splits(written(tmp_path, numbers := {}), splits)
    words = list(numbers)
    assert {words[t[0]] for t in lists(texts["test"])} == {"test"}
    assert {words[t[0]] for t in lists(texts["valid"])} == {"train"}


def test_images_and_tables_are_no_texts():
    assert written("digits", {}) == {}
    assert written_splits({}, load("digits")) == {}
