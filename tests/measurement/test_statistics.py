"""Statistics of samples: exact counts, and the same whatever the order."""

import numpy as np
import torch

import modicum
from modicum.context import Context
from modicum.measurement.statistics import Statistics, image_statistics, typicality
from modicum.measurement.wording import NAMES, wording
from modicum.training.recipe import Recipe

VOCABULARY = ("<pad>", "<unk>", "a", "b", "c", "<sep>", "3", "4", "7", "8", "+", "=", ".")


def column(texts, name):
    number = {word: i for i, word in enumerate(VOCABULARY)}
    rows = [[number[word] for word in text.split()] for text in texts]
    width = max(map(len, rows))
    table, names = wording(np.array([row + [0] * (width - len(row)) for row in rows]), VOCABULARY)
    return table[:, names.index(name)]


def test_counts_leave_out_the_text_itself():
    texts = ["a b a b", "a b c", "c c"]
    assert np.allclose(
        column(texts, "words elsewhere"), np.log1p([[1, 1, 1, 1], [2, 2, 2, 0], [1, 1, 0, 0]]).sum(1) / [4, 3, 2]
    )
    assert np.allclose(column(texts, "strange pairs"), [1 / 3, 1 / 2, 1])  # ab elsewhere, ba and bc and cc not
    assert np.allclose(column(texts, "repeated words"), [0, 0, 1 / 2])
    assert np.allclose(column(texts, "distinct words"), [1 / 2, 1, 1 / 2])


def test_pairs_by_hand():
    texts = ["a b c", "a b", "b c a"]
    expected = [np.log1p([1, 1]).mean(), np.log1p(1), np.log1p([1, 0]).mean()]
    assert np.allclose(column(texts, "pairs elsewhere"), expected)
    assert np.allclose(column(texts, "triples elsewhere"), [0, 0, 0])


def test_what_two_texts_share():
    texts = ["a 3 <sep> a 4 3", "b 7 <sep> c 8", "a b c"]
    weights = column(texts, "shared with the first")
    assert 0 < weights[0] < 1
    assert weights[1] == weights[2] == 0
    assert np.allclose(column(texts, "numbers shared"), [1 / 2, 0, 0])


def test_numbers_out_of_nowhere():
    texts = ["3 4 <sep> 3 + 4 = 7 . 7", "3 4 <sep> 3 + 4 = 7 . 8"]
    assert np.allclose(column(texts, "numbers out of nowhere"), [0, 1 / 4])
    assert column(texts, "last number seen before").tolist() == [1, 0]


def test_calculations_are_checked_where_they_stand_alone():
    texts = ["3 + 4 = 7", "3 + 4 = 8", "8 + 3 + 4 = 7", "3 . 3 + 4 = 8", "3 + 4 = 8 . 7", "a b"]
    assert column(texts, "wrong calculations").tolist() == [0, 1, 0, 0, 0, 0]
    assert np.allclose(np.expm1(column(texts, "calculations")), [1, 1, 0, 0, 0, 0])


def test_short_and_empty_texts_are_finite():
    table, names = wording(np.array([[1], [2]]), VOCABULARY)
    assert names == NAMES
    assert np.isfinite(table).all()


def test_scrambled_words_are_stranger():
    vocabulary = ("<pad>", "<unk>", *map(str, range(30)))
    draw = np.random.default_rng(0)
    rows = np.array([(np.arange(10) + draw.integers(20)) % 30 + 2 for _ in range(200)])
    rows[:50] = draw.permuted(rows[:50], axis=1)
    strange = wording(rows, vocabulary)[0][:, NAMES.index("strange pairs")]
    assert strange[:50].mean() > 5 * strange[50:].mean()


def test_typicality_is_exact_on_a_line():
    rows = torch.tensor([[0.0, 0], [1, 0], [3, 0], [3, 4]])
    near = typicality(rows, torch.Generator().manual_seed(0))[:, 3].double().exp() - 1e-6
    assert torch.allclose(near, torch.tensor([1.0, 1, 2, 4]).double(), atol=1e-4)
    many = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    left = typicality(many, torch.Generator().manual_seed(0))[:, 0].double().exp() - 1e-6
    centered = many.double() - many.double().mean(0)
    vh = torch.linalg.svd(centered, full_matrices=False).Vh[:4]
    assert torch.allclose(left, (centered - centered @ vh.T @ vh).norm(dim=1), atol=1e-4)


def test_images_that_are_noise_are_told_from_others():
    smooth = torch.linspace(0, 1, 8).expand(5, 1, 8, 8)
    noise = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    table = image_statistics(torch.cat([smooth, noise]))
    assert table.shape == (10, 14)
    assert table[:5, 7].max() < 0.2 * table[5:, 7].min()
    assert torch.equal(image_statistics(torch.zeros(1, 3, 5, 7)).isfinite(), torch.ones(1, 14, dtype=torch.bool))


def test_another_order_gives_the_same_rows_and_the_cache_the_same_bits(tmp_path):
    data = modicum.load("digits", limit=150)
    order = np.random.default_rng(0).permutation(len(data.train))
    ctx = Context(cache=tmp_path)
    first = Statistics().measure(data, Recipe(), ctx)
    second = Statistics().measure(data._replace(train=data.train[order]), Recipe(), Context())
    assert torch.equal(first.train[order], second.train)
    again = Statistics().measure(data, Recipe(), ctx)
    assert torch.equal(first.train, again.train)
    assert again.names == first.names == second.names
    assert len(first.names) == first.train.shape[1]
