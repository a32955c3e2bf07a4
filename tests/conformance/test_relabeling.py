"""What every relabeling method that trains promises, checked on every one there is, on made-up images."""

import math

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

N, BATCH, EPOCHS = 48, 16, 4
STEPS = N // BATCH * EPOCHS
RECIPE = Recipe("convnet(width=8)", epochs=EPOCHS, batch_size=BATCH, optimizer="adamw", lr=1e-3, weight_decay=0.01)
BASE = "simclr(hidden=16, dimension=8)"

LINES = {"rela": f"rela(base={BASE!r}, switch='constant', until=0.5)"}
SWITCHES = [f"rela(base={BASE!r}, switch={kind!r})" for kind in ("adaptive", "scaled", "blend", "always", "never")]

METHODS = {key: kind for key, kind in table().items() if family_of(kind) == "relabeling"}


def splits(**columns):
    draw = torch.Generator().manual_seed(0)
    info = Info(modality="image", classes=("a", "b", "c"), mean=(0.5,) * 3, std=(0.3,) * 3)
    inputs = columns.pop("inputs", torch.rand(N, 3, 8, 8, generator=draw))
    data = Dataset(inputs, torch.arange(len(inputs)) % 3, info=info, **columns)
    return Splits(data, data[:9], data[:9])


def learned(method, data=None, ctx=None, recorder=None, recipe=RECIPE):
    return pretrain(data or splits(), method, recipe, ctx, recorder=recorder)


def bits(done):
    return {name: value.clone() for name, value in done.learner.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Killed(Exception):
    """The process dies here."""


class Killer:
    """Dies after some batches."""

    def __init__(self, at=None):
        self.at, self.seen = at, 0

    def record(self, epoch, indices, outputs, losses):
        assert losses.shape == indices.shape
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
    assert set(LINES) == set(METHODS), "add one line to LINES for each relabeling method"


@pytest.mark.parametrize("method", [*LINES.values(), *SWITCHES])
class TestRelabeling:
    def test_is_a_pretraining_method(self, method):
        made = make(method)
        assert isinstance(made, Pretraining)
        assert isinstance(made.published, Recipe)
        assert make(spec(made)) == made

    def test_gives_an_encoder(self, method):
        data = splits().train
        done = learned(method)
        features = done.encoder(data.prepare(data.inputs[:5]))
        assert features.shape == (5, done.encoder.width)
        assert bool(features.isfinite().all())
        assert not any(module.training for module in done.encoder.modules())
        assert all(math.isfinite(loss) for loss in done.history["loss"])

    def test_same_seed_same_bits_and_another_seed_others(self, method):
        a, b, c = learned(method), learned(method), learned(method, ctx=Context(seed=1))
        assert equal(bits(a), bits(b))
        assert a.history["loss"] == b.history["loss"] != c.history["loss"]

    def test_data_are_not_written_to_and_labels_not_read(self, method):
        data = splits(ids=np.arange(N) * 3 + 5)
        before = data.train.inputs.clone()
        first = learned(method, data)
        assert torch.equal(data.train.inputs, before)
        other = data.train.replace(targets=data.train.targets.flip(0))
        assert equal(bits(first), bits(learned(method, data._replace(train=other))))
        assert first.ledger.total().labels == 0

    @pytest.mark.parametrize("stops", [(2,), (6,), (3, 7, STEPS)], ids=str)
    def test_interrupted_and_resumed_equals_uninterrupted(self, method, stops, tmp_path):
        whole = learned(method, recorder=Killer())
        for stop in stops:
            with pytest.raises(Killed):
                learned(method, ctx=Context(store=Store(tmp_path), checkpoint_seconds=0), recorder=Killer(stop))
        resumed = learned(method, ctx=Context(store=Store(tmp_path), checkpoint_seconds=0), recorder=Killer())
        assert equal(bits(resumed), bits(whole))
        for name in whole.history:
            assert name == "seconds" or resumed.history[name] == whole.history[name]
        for name in ("samples", "labels", "forward_flops", "backward_flops", "extra_flops"):
            assert getattr(resumed.ledger.total(), name) == getattr(whole.ledger.total(), name)

    def test_ledger_only_grows_and_adds_up(self, method):
        ctx = Context(ledger=Ledger())
        for _ in range(2):
            before = list(ctx.ledger.charges)
            done = learned(method, ctx=ctx)
            assert ctx.ledger.charges[: len(before)] == before
            assert ctx.ledger.charges[len(before) :] == done.ledger.charges
        total = done.ledger.total()
        assert total.forward_flops >= done.history["forward_flops"][-1] > 0
        assert (total.forward_flops > done.history["forward_flops"][-1]) == bool(make(method).needs())
        assert (total.extra_flops > 0) == bool(make(method).needs())
        assert ctx.ledger.total().flops == 2 * total.flops

    def test_mixed_precision(self, method):
        from dataclasses import replace

        done = learned(method, recipe=replace(RECIPE, precision="bfloat16"))
        assert all(math.isfinite(loss) for loss in done.history["loss"])
        assert {p.dtype for p in done.learner.parameters()} == {torch.float32}

    def test_inputs_that_are_not_finite(self, method):
        inputs = splits().train.inputs.clone()
        inputs[3, 0, 0, 0] = math.nan
        with pytest.raises(ModicumError, match="inputs hold NaN or infinite values"):
            learned(method, splits(inputs=inputs))

    def test_too_few_samples(self, method):
        data = splits()
        with pytest.raises(ModicumError, match="a batch has 1 samples; expected at least 2"):
            learned(method, data._replace(train=data.train[:1]))

    def test_another_kind_of_data(self, method):
        data = splits()
        table_ = data.train.replace(
            inputs=data.train.inputs.flatten(1), info=Info(classes=("a", "b", "c"), modality="tabular")
        )
        with pytest.raises(ModicumError, match="works on image data, but this data set is tabular"):
            learned(method, data._replace(train=table_))
