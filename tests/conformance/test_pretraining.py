"""What every pretraining method promises, checked on every one there is, on made-up images and texts."""

import dataclasses
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import ModicumError
from modicum.ledger import Ledger
from modicum.methods import Pretraining, family_of, make, spec, table
from modicum.pretraining import pretrain
from modicum.store import Store
from modicum.training.recipe import Recipe

N, BATCH, EPOCHS, VOCABULARY = 48, 16, 2, 30
STEPS = N // BATCH * EPOCHS
MODELS = {"image": "convnet(width=8)", "text": "transformer(width=16, heads=2, layers=1)"}


@dataclass(frozen=True)
class Line:
    """How a method is tried: with which options, on which kind of data, and with which model if not the usual one."""

    method: str
    data: str = "image"
    model: str = ""

    @property
    def recipe(self):
        model = self.model or MODELS[self.data]
        return Recipe(model, epochs=EPOCHS, batch_size=BATCH, optimizer="adamw", lr=1e-3, weight_decay=0.01)


LINES = {
    "barlow-twins": Line("barlow-twins(hidden=16, dimension=8)"),
    "byol": Line("byol(hidden=16, dimension=8)"),
    "dino": Line("dino(momentum=0.99, hidden=16, bottleneck=8, prototypes=12)"),
    "electra": Line("electra", "text"),
    "isogclr": Line("isogclr(hidden=16, dimension=8)"),
    "masked-lm": Line("masked-lm", "text"),
    "moco-v2": Line("moco-v2(queue=20, hidden=16, dimension=8)"),
    "moe-embeddings": Line("moe-embeddings(routing='token', experts=2, auxiliary='balance')", "text"),
    "npid": Line("npid(dimension=8)"),
    "scatsimclr": Line("scatsimclr(hidden=16, dimension=8)", model="scatnet(angles=2)"),
    "simclr": Line("simclr(hidden=16, dimension=8)"),
    "simsiam": Line("simsiam(hidden=16, dimension=8, bottleneck=4)"),
    "sogclr": Line("sogclr(hidden=16, dimension=8)"),
    "sqrtkl": Line("sqrtkl(negatives=20, hidden=16, dimension=8)"),
    "vicreg": Line("vicreg(hidden=16, dimension=8)"),
}

METHODS = {key: kind for key, kind in table().items() if family_of(kind) == "pretraining"}


def images(**columns):
    draw = torch.Generator().manual_seed(0)
    info = Info(modality="image", classes=("a", "b", "c"), mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3))
    inputs = columns.pop("inputs", torch.rand(N, 3, 8, 8, generator=draw))
    return Dataset(inputs, torch.arange(len(inputs)) % 3, info=info, **columns)


def texts(**columns):
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randint(2, VOCABULARY, (N, 12), generator=draw)
    inputs[torch.arange(12) >= torch.randint(6, 13, (N, 1), generator=draw)] = 0
    words = ("", "?", *(f"w{i}" for i in range(2, VOCABULARY)))
    info = Info(modality="text", classes=("a", "b", "c"), vocabulary=words)
    return Dataset(inputs, torch.arange(N) % 3, info=info, **columns)


def splits(key, **columns):
    data = (texts if LINES[key].data == "text" else images)(**columns)
    return Splits(data, data[:9], data[:9])


def learned(key, data=None, ctx=None, recorder=None, **changes):
    recipe = replace(LINES[key].recipe, **changes)
    return pretrain(data or splits(key), LINES[key].method, recipe, ctx, recorder=recorder)


def bits(done):
    """Everything that was learned, by name."""
    return {name: value.clone() for name, value in done.learner.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Killed(Exception):
    """The process dies here."""


class Killer:
    """Looks at every batch, and dies after some."""

    def __init__(self, at=None):
        self.at, self.seen = at, 0

    def record(self, epoch, indices, outputs, losses):
        assert losses.shape == indices.shape
        assert outputs.ndim == 2
        assert len(outputs) == len(indices)
        self.seen += 1
        if self.seen == self.at:
            raise Killed

    def end_epoch(self, epoch, model):
        pass

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def test_every_method_has_a_line():
    assert set(LINES) == set(METHODS), "add one line to LINES for each pretraining method"


@pytest.mark.parametrize("key", METHODS)
class TestPretraining:
    def test_is_a_frozen_dataclass_with_a_card(self, key):
        kind = METHODS[key]
        assert isinstance(kind(), Pretraining)
        assert isinstance(kind.published, Recipe)
        assert kind.__dataclass_params__.frozen
        assert all(f.default is not dataclasses.MISSING for f in dataclasses.fields(kind))
        assert kind.card.key == key
        assert LINES[key].data in kind.card.modalities
        assert "unlabeled" in kind.card.tasks
        assert spec(kind()) == key
        assert make(spec(make(LINES[key].method))) == make(LINES[key].method)

    def test_an_option_that_makes_no_sense_is_refused_by_name(self, key):
        for field in dataclasses.fields(METHODS[key]):
            if type(field.default) in (int, float):
                with pytest.raises(ModicumError, match=rf"{field.name}=(-1|nan); expected"):
                    METHODS[key](**{field.name: -1 if isinstance(field.default, int) else math.nan})

    def test_gives_an_encoder(self, key):
        data = splits(key).train
        done = learned(key)
        features = done.encoder(data.prepare(data.inputs[:5]))
        assert features.shape == (5, done.encoder.width)
        assert bool(features.isfinite().all())
        assert features.std(0).max() > 0
        assert not any(module.training for module in done.encoder.modules())
        assert len(done.history["loss"]) == EPOCHS
        assert all(math.isfinite(loss) for loss in done.history["loss"])

    def test_learns_something(self, key):
        before, after = bits(learned(key, steps=1)), bits(learned(key))
        assert before.keys() == after.keys()
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert any(name.startswith("backbone.") for name in moved)

    def test_same_seed_same_bits_and_another_seed_others(self, key):
        a, b, c = learned(key), learned(key), learned(key, ctx=Context(seed=1))
        assert equal(bits(a), bits(b))
        assert a.history["loss"] == b.history["loss"] != c.history["loss"]

    def test_no_global_generator_is_read_or_moved(self, key):
        first = learned(key, steps=2)
        torch.manual_seed(7)
        before = torch.get_rng_state()
        assert equal(bits(first), bits(learned(key, steps=2)))
        assert torch.equal(torch.get_rng_state(), before)

    def test_data_are_not_written_to(self, key):
        data = splits(key, ids=np.arange(N) * 3 + 5)
        before = data.train.fingerprint
        inputs, targets, ids = data.train.inputs.clone(), data.train.targets.clone(), data.train.ids.copy()
        learned(key, data)
        assert torch.equal(data.train.inputs, inputs)
        assert torch.equal(data.train.targets, targets)
        assert np.array_equal(data.train.ids, ids)
        assert splits(key, ids=ids).train.fingerprint == before

    def test_labels_are_not_read(self, key):
        data = splits(key)
        info = replace(data.train.info, task="unlabeled", classes=())
        bare = data.train.replace(targets=None, info=info)
        assert equal(bits(learned(key, Splits(bare, bare, bare))), bits(learned(key)))

    @pytest.mark.parametrize("stops", [(2,), (4,), (3, STEPS)], ids=str)
    def test_interrupted_and_resumed_equals_uninterrupted(self, key, stops, tmp_path):
        whole = learned(key, recorder=Killer())
        for stop in stops:
            with pytest.raises(Killed):
                learned(key, ctx=Context(store=Store(tmp_path), checkpoint_seconds=0), recorder=Killer(stop))
        resumed = learned(key, ctx=Context(store=Store(tmp_path), checkpoint_seconds=0), recorder=Killer())
        assert equal(bits(resumed), bits(whole))
        for name in whole.history:
            assert name == "seconds" or resumed.history[name] == whole.history[name]
        for name in ("samples", "labels", "forward_flops", "backward_flops"):
            assert getattr(resumed.ledger.total(), name) == getattr(whole.ledger.total(), name)

    def test_ledger_only_grows_and_adds_up(self, key):
        ctx = Context(ledger=Ledger())
        for _ in range(2):
            before = list(ctx.ledger.charges)
            done = learned(key, ctx=ctx)
            assert ctx.ledger.charges[: len(before)] == before
            assert ctx.ledger.charges[len(before) :] == done.ledger.charges
        total = done.ledger.total()
        assert total.labels == 0
        assert total.samples >= STEPS * BATCH
        assert total.seconds > 0
        assert total.forward_flops >= done.history["forward_flops"][-1] > 0
        assert total.backward_flops >= done.history["backward_flops"][-1] > 0
        if not make(LINES[key].method).needs():
            assert total.forward_flops == done.history["forward_flops"][-1]
        assert ctx.ledger.total().flops == 2 * total.flops

    def test_mixed_precision(self, key):
        done = learned(key, precision="bfloat16")
        assert all(math.isfinite(loss) for loss in done.history["loss"])
        assert {p.dtype for p in done.learner.parameters()} == {torch.float32}
        assert all(bool(value.isfinite().all()) for value in bits(done).values())

    def test_a_share_of_the_samples_an_epoch(self, key):
        done = pretrain(splits(key), LINES[key].method, LINES[key].recipe, share=0.5)
        assert done.history["samples"] == [BATCH] * EPOCHS

    def test_inputs_that_are_not_finite(self, key):
        if LINES[key].data == "text":
            pytest.skip("token numbers are always finite")
        inputs = images().inputs
        inputs[3, 0, 0, 0] = math.nan
        with pytest.raises(ModicumError, match="inputs hold NaN or infinite values; expected finite numbers"):
            learned(key, splits(key, inputs=inputs))

    def test_too_few_samples(self, key):
        data = splits(key)
        with pytest.raises(ModicumError, match="a batch has 1 samples; expected at least 2"):
            learned(key, data._replace(train=data.train[:1]))
        with pytest.raises(ModicumError, match="a batch has 1 samples; expected at least 2"):
            learned(key, batch_size=1)
        with pytest.raises(ModicumError, match="a batch has 0 samples; expected at least 2"):
            learned(key, data._replace(train=data.train[[]]))

    def test_another_kind_of_data(self, key):
        rows = Dataset(torch.rand(N, 4), torch.arange(N) % 3, info=Info(classes=("a", "b", "c")))
        allowed = " and ".join(METHODS[key].card.modalities)
        if "tabular" in METHODS[key].card.modalities:
            pytest.skip("it works on tables too")
        with pytest.raises(ModicumError, match=f"'{key}' works on {allowed} data, but this data set is tabular"):
            learned(key, Splits(rows, rows, rows))
