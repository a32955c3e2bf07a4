import dataclasses

import pytest
import torch

import modicum
from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import ModicumError
from modicum.measurement import Features
from modicum.measurement import features as module
from modicum.models import build
from modicum.training.evaluate import forward
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="mlp(hidden=8)", epochs=10, batch_size=32, lr=0.05)


def digits():
    splits = modicum.load("digits")
    return Splits(splits.train[:100], splits.valid[:40], splits.test[:1])


def texts(n=60, length=9, words=50):
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, words, (n, length), generator=draw, dtype=torch.int32)
    tokens[:, -2:] = 0  # padding
    info = Info(modality="text", classes=("a", "b"), vocabulary=tuple(f"w{i}" for i in range(words)))
    data = Dataset(tokens, torch.arange(n) % 2, info=info)
    return Splits(data[:40], data[40:], data[:1])


def test_inputs_are_the_standardized_pixels():
    data, ctx = digits(), Context()
    table = Features().measure(data, RECIPE, ctx)
    mean, std = (torch.tensor(v)[:, None, None] for v in (data.train.info.mean, data.train.info.std))
    for found, dataset in zip((table.train, table.valid), data):
        expected = ((dataset.inputs.float() - mean) / std).flatten(1)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    (charge,) = ctx.ledger.charges
    assert (charge.phase, charge.labels, charge.flops) == ("choose", 0, 0)
    assert Features().trainings() == 0


def test_a_trained_encoder_is_the_last_hidden_layer_of_the_stopped_run():
    data, ctx = digits(), Context(seed=2)
    table = Features("trained", until=0.3).measure(data, RECIPE, ctx)
    assert table.train.shape == (100, 8)
    assert table.valid.shape == (40, 8)
    model = fit(data.train, RECIPE, Context(seed=2), stop_after=3).model
    expected = forward(model, data.valid, Context(), function=lambda m, x: m.features(x))
    torch.testing.assert_close(table.valid, expected, rtol=0, atol=0)
    assert Features("trained", until=0.3).trainings() == 0.3
    training, *passes = ctx.ledger.charges
    assert training.samples == 300
    assert [c.samples for c in passes] == [100, 40]
    assert {c.phase for c in ctx.ledger.charges} == {"choose"}


@pytest.mark.parametrize("batch, n", [(32, 33), (512, 100), (64, 100)])
def test_a_trained_encoder_trains_for_its_share_whatever_the_batch(batch, n):
    data, ctx = digits(), Context()
    data = data._replace(train=data.train[:n])
    Features("trained", until=0.2).measure(data, dataclasses.replace(RECIPE, batch_size=batch), ctx)
    assert ctx.ledger.charges[0].samples == 2 * n


@pytest.mark.parametrize(
    "features, data", [(Features("trained"), digits()), (Features(), texts())], ids=["trained", "lsa"]
)
def test_same_seed_same_bits_with_a_cache_or_without(features, data, tmp_path, monkeypatch):
    ledgers = []

    def measure(seed=1, **options):
        ctx = Context(seed=seed, **options)
        table = features.measure(data, RECIPE, ctx)
        ledgers.append(ctx.ledger)
        return table

    plain, stored = measure(), measure(cache=tmp_path)
    other, other_stored = measure(seed=2), measure(seed=2, cache=tmp_path)
    for name in ("fit", "_latent_semantics"):
        monkeypatch.setattr(module, name, None)
    read = measure(cache=tmp_path)
    for table in (stored, read):
        assert torch.equal(plain.train, table.train)
        assert torch.equal(plain.valid, table.valid)
    assert torch.equal(other.train, other_stored.train)
    assert ledgers[-1].charges == ledgers[1].charges
    assert {c.phase for c in ledgers[-1].charges} == {"choose"}


def test_latent_semantics_of_texts():
    data = texts()
    table = Features().measure(data, RECIPE, Context())
    assert table.train.shape == (40, 39)
    assert table.valid.shape == (20, 39)
    assert table.train.dtype == torch.float32
    # padding and unknown tokens do not count, nor does the order of the words
    shuffled = data.train.inputs[:, [3, 1, 0, 2, 6, 5, 4, 7, 8]]
    same = Features().measure(data._replace(train=data.train.replace(inputs=shuffled)), RECIPE, Context())
    torch.testing.assert_close(same.train, table.train, rtol=0, atol=1e-5)
    # full rank keeps the geometry: rows of tf-idf are of length one
    torch.testing.assert_close(table.train.norm(dim=1), torch.ones(40), rtol=0, atol=0.05)


def test_validation_samples_are_encoded_by_what_was_learned_on_the_training_samples():
    data = texts()
    table = Features().measure(data._replace(valid=data.train), RECIPE, Context())
    torch.testing.assert_close(table.train, table.valid)


def test_a_text_encoder_can_be_trained():
    data = texts()
    table = Features("trained").measure(data, Recipe(model="bag(width=4)", epochs=5, lr=0.01), Context())
    assert table.train.shape == (40, 4)
    assert torch.isfinite(table.train).all()
    assert not torch.equal(table.train, build("bag(width=4)", data.train).features(data.train.inputs.long()))


def test_an_unknown_encoder_is_refused():
    with pytest.raises(ModicumError, match=r"encoder='clip'; expected one of \('inputs', 'trained'\)"):
        Features("clip")
