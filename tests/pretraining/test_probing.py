"""The table of probes: controls, transfer, costs."""

from __future__ import annotations

import pytest
import torch

import modicum
from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError
from modicum.pretraining import probe
from modicum.pretraining.learner import backbone_for
from modicum.pretraining.probes import knn_probe
from modicum.training.recipe import Recipe

RECIPE = Recipe("convnet(width=8)")


@pytest.fixture(scope="module")
def digits() -> Splits:
    data = modicum.load("digits")
    return Splits(data.train[:300], data.valid[:50], data.test[:200])


def colored(n: int = 60, side: int = 12) -> Splits:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    images = torch.rand(n, 3, side, side, generator=draw) * 100 + 100 * labels[:, None, None, None]
    info = Info("classification", "image", ("dark", "light"), (150.0,) * 3, (60.0,) * 3)
    whole = Dataset(images.to(torch.uint8), labels, info=info)
    return Splits(whole[: n // 2], whole[:0], whole[n // 2 :])


def test_rows_controls_and_costs(digits: Splits) -> None:
    ctx = Context(seed=1)
    encoder = backbone_for(RECIPE, digits.train, 1)
    table = probe(encoder, digits, ctx, recipe=RECIPE, shots=(1, 5), draws=2)
    assert len(table.rows) == 3 * (3 + 4)
    assert table.tested == {"": 200}
    for name in ("k-NN", "linear", "naive Bayes"):  # the encoder is the untrained network itself
        assert table.accuracy("encoder", name) == table.accuracy("untrained network", name)
    assert table.accuracy("encoder", "linear", 5) == table.accuracy("untrained network", "linear", 5)
    x, xt = (d.prepare(d.inputs).flatten(1) for d in (digits.train, digits.test))
    assert table.accuracy("raw inputs", "k-NN") == knn_probe(x, digits.train.labels, xt, digits.test.labels)
    assert [r.labels for r in table.rows if r.probe == "nearest mean"] == [10, 50] * 3
    assert {r.error is None for r in table.rows if r.shots} == {False}
    assert {r.error for r in table.rows if not r.shots} == {None}
    total = ctx.ledger.total()
    assert ctx.ledger.total("evaluate") == table.ledger.total("evaluate")
    assert total.samples == 2 * 500  # two networks
    assert total.forward_flops > 0
    assert total.extra_flops == 2 * 300 * 200 * (2 * encoder.width + 64)
    assert len(table.to_rows()) == len(table.rows)


def test_the_same_again(digits: Splits) -> None:
    encoder = backbone_for(RECIPE, digits.train, 1)
    first, second = (
        [(r.probe, r.shots, r.accuracy) for r in probe(encoder, digits, controls=False, shots=(1,), draws=3).rows]
        for _ in range(2)
    )
    assert first == second
    assert {name for name, *_ in first} == {"k-NN", "linear", "naive Bayes", "nearest mean"}


def test_transfer_resizes_and_grays(digits: Splits) -> None:
    other = colored()
    encoder = backbone_for(RECIPE, digits.train, 1)
    table = probe(encoder, digits, transfer={"colors": other}, recipe=RECIPE, probes=("knn", "linear"), k=5)
    assert {(r.data, r.representation) for r in table.rows} == {
        (data, name) for data in ("", "colors") for name in ("encoder", "untrained network", "raw inputs")
    }
    assert table.accuracy("raw inputs", "linear", data="colors") == 1.0
    assert table.tested["colors"] == 30
    back = probe(
        backbone_for(RECIPE, other.train, 0), other, transfer={"digits": digits}, probes=("knn",), controls=False
    )
    assert back.accuracy("encoder", "k-NN", data="digits") > 0.3


def test_texts_have_latent_semantics_as_their_raw_inputs() -> None:
    words = torch.tensor([[2, 3, 0], [2, 4, 3], [5, 6, 0], [6, 5, 7], [3, 2, 2], [7, 7, 5]])
    info = Info("classification", "text", ("a", "b"), vocabulary=("", "?", *"abcdef"))
    whole = Dataset(words, torch.tensor([0, 0, 1, 1, 0, 1]), info=info)
    data = Splits(whole[:4], whole[:0], whole[4:])
    table = probe(backbone_for(Recipe("bag(width=4)"), data.train, 0), data, probes=("knn",), k=2)
    assert table.accuracy("raw inputs", "k-NN") == 1.0


def test_errors(digits: Splits) -> None:
    encoder = torch.nn.Flatten()
    with pytest.raises(ModicumError, match=r"probes=\('svm',\); expected some of \('knn', 'linear'"):
        probe(encoder, digits, probes=("svm",))
    with pytest.raises(ModicumError, match="is for regression; probes need class labels"):
        probe(encoder, modicum.load("diabetes"))
    with pytest.raises(DataError, match=r"transfer to 'iris': tabular of shape \(4,\); the encoder reads image"):
        probe(encoder, digits, transfer={"iris": modicum.load("iris")})
    with pytest.raises(ModicumError, match="no row for"):
        probe(encoder, digits, probes=("knn",)).accuracy("encoder", "linear")
