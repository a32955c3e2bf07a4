import dataclasses

import pytest
import torch

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import StoreError, TrainingError
from modicum.measurement import Traces
from modicum.measurement import traces as module
from modicum.models import build
from modicum.training.evaluate import forward
from modicum.training.fit import fit
from modicum.training.recipe import Recipe
from modicum.valuation import forgetting

N, EPOCHS = 30, 10
RECIPE = Recipe(model="mlp(hidden=8)", epochs=EPOCHS, batch_size=8, lr=0.1)
FIELDS = ("loss", "margin", "correct", "probability", "error", "gap", "entropy", "top")


def splits(n=N):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2 * n, 5, generator=draw)
    y = ((x[:, :3] + 0.8 * torch.randn(2 * n, 3, generator=draw)).argmax(1)).long()
    data = Dataset(x, y, info=Info(classes=("a", "b", "c")))
    return Splits(data[:n], data[n:], data[:0])


def measure(until=1.0, runs=1, recipe=RECIPE, data=None, **options):
    ctx = Context(seed=4, **options)
    return Traces(runs, until).measure(data or splits(), recipe, ctx), ctx.ledger


def assert_same(a, b):
    for field in FIELDS:
        assert torch.equal(getattr(a, field), getattr(b, field)), field


def charges(ledger):
    return [dataclasses.replace(c, seconds=0, peak_bytes=0) for c in ledger.charges]


@pytest.mark.parametrize("runs, until, epochs", [(1, 1.0, 10), (2, 0.2, 2), (3, 0.01, 1), (1, 0.55, 6)])
def test_shapes_and_what_it_counts_as(runs, until, epochs):
    table, _ = measure(until, runs)
    for field in FIELDS[:4]:
        assert getattr(table, field).shape == (runs, epochs, N)
    for field in FIELDS[4:]:
        assert getattr(table, field).shape == (runs, N)
    assert table.correct.dtype == torch.bool
    assert Traces(runs, until).trainings() == runs * until


class Looker:
    """Recomputes what was presented, by the definitions."""

    def __init__(self, data):
        self.labels, self.rows = data.labels, {}

    def record(self, epoch, indices, outputs, losses):
        for i, z, loss in zip(indices.tolist(), outputs.double(), losses.double()):
            y, p = int(self.labels[i]), z.softmax(0)
            others = [float(z[c]) for c in range(3) if c != y]
            row = (float(loss), float(z[y]) - max(others), int(z.argmax()) == y, float(p[y]))
            self.rows[epoch, i] = row

    def end_epoch(self, epoch, model):
        pass


def test_everything_equals_its_definition():
    data = splits()
    table, _ = measure(data=data)
    looker = Looker(data.train)
    done = fit(data.train, RECIPE, Context(seed=4), recorder=looker)
    for (epoch, i), row in looker.rows.items():
        for field, value in zip(FIELDS, row):
            assert float(getattr(table, field)[0, epoch, i]) == pytest.approx(float(value), abs=1e-5)
    probabilities = forward(done.model, data.train, Context()).double().softmax(1)
    off = probabilities - torch.eye(3, dtype=torch.float64)[data.train.labels]
    torch.testing.assert_close(table.error[0].double(), off.norm(dim=1), rtol=0, atol=1e-5)
    top = probabilities.sort(1, descending=True).values
    torch.testing.assert_close(table.gap[0].double(), top[:, 0] - top[:, 1], rtol=0, atol=1e-5)
    torch.testing.assert_close(table.top[0].double(), top[:, 0], rtol=0, atol=1e-5)
    nats = -(probabilities * probabilities.log()).sum(1)
    torch.testing.assert_close(table.entropy[0].double(), nats, rtol=0, atol=1e-5)
    # the loss is the negative logarithm of the probability of the label, and right means a positive margin
    torch.testing.assert_close(table.loss, -table.probability.log(), rtol=1e-4, atol=1e-4)
    assert torch.equal(table.correct, table.margin > 0)


def test_forgetting_read_from_the_table_is_forgetting_counted_along_the_way():
    class Counter:
        def __init__(self):
            self.last, self.events, self.ever = torch.zeros(N, dtype=bool), torch.zeros(N), torch.zeros(N, dtype=bool)

        def record(self, epoch, indices, outputs, losses):
            right = outputs.argmax(1) == data.train.labels[indices]
            self.events[indices] += (self.last[indices] & ~right).float()
            self.last[indices] = right
            self.ever[indices] |= right

        def end_epoch(self, epoch, model):
            pass

    data, counter = splits(), Counter()
    recipe = dataclasses.replace(RECIPE, lr=0.5)
    fit(data.train, recipe, Context(seed=4), recorder=counter)
    table, _ = measure(recipe=recipe, data=data)
    events = counter.events.double().masked_fill(~counter.ever, torch.inf)
    assert torch.equal(forgetting(table.correct[0]).double(), events)
    assert events[events.isfinite()].sum() > 0


def test_runs_differ_and_the_first_is_that_of_one_run():
    one, _ = measure(0.2)
    three, ledger = measure(0.2, runs=3)
    for field in FIELDS:
        assert torch.equal(getattr(one, field)[0], getattr(three, field)[0])
    assert not torch.equal(three.loss[0], three.loss[1])
    assert sum(c.what == "traces" for c in ledger.charges) == 3


@pytest.mark.parametrize("until", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("epochs", [10, 7])
def test_a_prefix_of_a_stored_run_is_measuring_the_prefix(until, epochs, tmp_path, monkeypatch):
    recipe = dataclasses.replace(RECIPE, epochs=epochs)
    alone, cost = measure(until, recipe=recipe)
    measure(1.0, recipe=recipe, cache=tmp_path)
    monkeypatch.setattr(module, "fit", None)  # no training from here on
    read, charge = measure(until, recipe=recipe, cache=tmp_path)
    assert_same(alone, read)
    assert charges(charge) == charges(cost)
    assert charge.total().flops == cost.total().flops > 0
    assert {c.phase for c in charge.charges} == {"choose"}


def test_a_share_that_was_not_evaluated_is_measured_anew(tmp_path):
    measure(1.0, cache=tmp_path)
    table, cost = measure(0.3, cache=tmp_path)
    alone, expected = measure(0.3)
    assert_same(table, alone)
    assert charges(cost) == charges(expected)


def test_the_charge_is_the_training_and_one_evaluation():
    _, ledger = measure(0.5)
    training, evaluation = ledger.charges
    flops = 2 * (5 * 8 + 8 * 8 + 8 * 3)
    assert (training.what, training.samples, training.forward_flops) == ("traces", 5 * N, 5 * N * flops)
    assert (evaluation.what, evaluation.samples, evaluation.forward_flops) == ("snapshot", N, N * flops)
    assert training.labels == N


def test_a_second_reading_trains_nothing_and_is_charged_in_full(tmp_path, monkeypatch):
    first, cost = measure(runs=2, cache=tmp_path)
    monkeypatch.setattr(module, "fit", None)
    second, again = measure(runs=2, cache=tmp_path)
    assert_same(first, second)
    assert again.charges == cost.charges
    assert again.total("choose").seconds == cost.total("choose").seconds > 0


def test_other_data_recipe_or_seed_is_another_measurement(tmp_path):
    first, _ = measure(cache=tmp_path)
    for other in (
        measure(recipe=dataclasses.replace(RECIPE, lr=0.05), cache=tmp_path)[0],
        measure(data=splits(N)._replace(train=splits(N).train[list(range(N))[::-1]]), cache=tmp_path)[0],
        Traces().measure(splits(), RECIPE, Context(seed=5, cache=tmp_path)),
    ):
        assert not torch.equal(first.loss, other.loss)


def test_what_an_earlier_version_kept_is_measured_again(tmp_path, monkeypatch):
    whole, cost = measure(0.5)
    with monkeypatch.context() as patch:  # a version that recorded less, of a whole run and of half of it
        plain = module._Watch.end_epoch

        def end_epoch(self, epoch, model):
            self.tensors |= {"entropy": torch.zeros(9, N), "top": torch.zeros(9, N)}
            plain(self, epoch, model)
            del self.tensors["entropy"], self.tensors["top"]

        patch.setattr(module._Watch, "end_epoch", end_epoch)
        patch.setattr(module, "EVALUATED", ("error", "gap"))
        for until in (0.5, 1.0):
            with pytest.raises(TypeError, match="missing 2 required positional arguments: 'entropy' and 'top'"):
                measure(until, cache=tmp_path)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    table, ledger = measure(0.5, cache=tmp_path)
    assert_same(table, whole)
    assert charges(ledger) == charges(cost)


class Killed(Exception):
    """The process dies here."""


@pytest.mark.parametrize("stops", [[1], [6], [8], [20], [39], [5, 25]], ids=str)
def test_interrupted_and_resumed_is_uninterrupted(stops, tmp_path, monkeypatch):
    whole, cost = measure()
    options = {"cache": tmp_path, "checkpoint_seconds": 0}
    for stop in stops:
        with monkeypatch.context() as patch:
            plain, steps = module._Watch.record, []

            def record(self, *batch, plain=plain, steps=steps, stop=stop):
                if len(steps) == stop:
                    raise Killed
                steps.append(1)
                plain(self, *batch)

            patch.setattr(module._Watch, "record", record)
            with pytest.raises(Killed):
                measure(**options)
    table, ledger = measure(**options)
    assert_same(whole, table)
    assert charges(ledger) == charges(cost)
    assert list(tmp_path.rglob("*.state")) == []


def test_a_damaged_measurement_is_refused_by_name(tmp_path):
    measure(cache=tmp_path)
    (file,) = tmp_path.rglob("epochs-10.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(StoreError, match=r"epochs-10\.safetensors is damaged: its sha256 is .* delete it and run"):
        measure(cache=tmp_path)
    file.unlink()  # as the message says
    assert_same(measure(cache=tmp_path)[0], measure()[0])
    (file,) = tmp_path.rglob("epochs-10.json")
    file.write_text(file.read_text().replace("1", "2"))
    with pytest.raises(StoreError, match=r"epochs-10\.json is damaged"):
        measure(cache=tmp_path)
    file.unlink()
    assert_same(measure(cache=tmp_path)[0], measure()[0])


def test_fractions_of_an_epoch_are_left_out_and_a_run_of_less_than_one_is_refused():
    table, _ = measure(recipe=dataclasses.replace(RECIPE, epochs=2.75))
    assert table.loss.shape == (1, 2, N)
    assert (table.loss > 0).all()  # every sample was presented in every epoch
    with pytest.raises(
        TrainingError,
        match="the recipe visits 16 of 30 samples; traces need each of them at least once: use epochs=1 or steps=4 or more",
    ):
        measure(recipe=dataclasses.replace(RECIPE, epochs=0.5))


def test_soft_targets_are_traced_at_their_most_probable_class():
    data = splits()
    soft = torch.nn.functional.one_hot(data.train.targets, 3).float() * 0.7 + 0.1
    table, _ = measure(data=data._replace(train=data.train.replace(targets=soft)))
    assert torch.equal(table.correct, table.margin > 0)


def test_the_network_is_left_in_training_mode_between_epochs():
    data = splits()
    recipe = Recipe(
        model=lambda: torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3)),
        epochs=3,
        batch_size=10,
    )
    table, _ = measure(recipe=recipe, data=data)
    looker = Looker(data.train)
    fit(data.train, recipe, Context(seed=4), recorder=looker)
    assert float(table.loss[0, 2, 7]) == pytest.approx(looker.rows[2, 7][0], abs=1e-6)
    assert build(recipe.model, data.train).training
