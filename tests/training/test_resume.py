"""A run that is stopped and started again equals one that was never stopped, to the bit."""

import dataclasses

import pytest
import torch

from modicum.context import Context
from modicum.dataset import Dataset, Info
from modicum.selection import InfoBatchSampler
from modicum.store import Store
from modicum.training.fit import fit
from modicum.training.order import Mixture
from modicum.training.recipe import Recipe

N, BATCH, EPOCHS = 22, 8, 4  # three steps an epoch, the last of six samples: twelve steps
STOPS = {"first": [1], "mid-epoch": [5], "epoch": [6], "last": [11], "twice": [2, 7], "thrice": [1, 1, 9]}


def images(side=8):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(N, 2, side, side, generator=draw)
    return Dataset(x, torch.arange(N) % 3, info=Info(modality="image", classes=("a", "b", "c")))


def table(**columns):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(N, 5, generator=draw)
    sources = torch.arange(N) % 2
    info = Info(classes=("a", "b", "c"), sources=("even", "odd"))
    return Dataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0), sources=sources, info=info, **columns)


class Killed(Exception):
    """The process dies here."""


class Recorder:
    """Keeps all it sees, and kills the run at the step it is told to."""

    def __init__(self, kill_at=None):
        self.kill_at, self.steps = kill_at, 0
        self.seen, self.ends = torch.zeros(EPOCHS, N, 3), []

    def record(self, epoch, indices, outputs, losses):
        if self.steps == self.kill_at:
            raise Killed
        self.steps += 1
        self.seen[epoch, indices] = outputs.float()

    def end_epoch(self, epoch, model):
        self.ends.append((epoch, float(sum(p.detach().double().sum() for p in model.parameters()))))

    def state_dict(self):
        return {"steps": self.steps, "seen": self.seen, "ends": self.ends}

    def load_state_dict(self, state):
        self.steps, self.seen, self.ends = state["steps"], state["seen"], state["ends"]


class Keeper:
    """Holds the state of a run so that it can be compared: what `fit` saves at its last step."""

    def __init__(self, monkeypatch):
        from modicum.training import fit as module

        runs = self.runs = []
        plain = module._Run.__post_init__

        def remember(run):
            runs.append(run)
            plain(run)

        monkeypatch.setattr(module._Run, "__post_init__", remember)


def outcome(done, run, recorder):
    """All that must be equal: seconds and peak memory are left out."""
    history = {key: value for key, value in done.history.items() if key != "seconds"}
    charges = [dataclasses.replace(c, seconds=0, peak_bytes=0) for c in done.ledger.charges]
    return {
        "weights": done.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "sampler": run.sampler.state_dict(),
        "recorder": recorder.state_dict(),
        "average": list(run.average),
        "history": history,
        "charges": [dataclasses.asdict(c) for c in charges],
    }


def flat(value, path=""):
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in flat(part, f"{path}/{key}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, part in enumerate(value) for k, v in flat(part, f"{path}/{i}").items()}
    return {path: value}


def assert_same_bits(a, b):
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    for path in a:
        if isinstance(a[path], torch.Tensor):
            assert a[path].dtype == b[path].dtype, path
            assert torch.equal(a[path].nan_to_num(-1), b[path].nan_to_num(-1)), path
        else:
            assert a[path] == b[path], path


def check(data, recipe, stops, folder, monkeypatch, sampler=lambda: None):
    keeper = Keeper(monkeypatch)
    recorder = Recorder()
    done = fit(data, recipe, Context(seed=5), sampler=sampler(), recorder=recorder)
    whole = outcome(done, keeper.runs[-1], recorder)
    assert len(done.history["loss"]) == EPOCHS

    def again(kill_at=None):
        recorder, ctx = Recorder(kill_at), Context(seed=5, store=Store(folder), checkpoint_seconds=0)
        return fit(data, recipe, ctx, sampler=sampler(), recorder=recorder), recorder

    for kill_at in stops:
        with pytest.raises(Killed):
            again(kill_at)
    done, recorder = again()
    assert_same_bits(whole, outcome(done, keeper.runs[-1], recorder))
    assert Store(folder).verify() == []


def dropout():
    return torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3))


def fourier():
    class Fourier(torch.nn.Linear):
        def forward(self, x):
            return super().forward(torch.fft.fft(x).real)

    return Fourier(5, 3)


PLAIN = Recipe(model="mlp(hidden=8)", epochs=EPOCHS, batch_size=BATCH, lr=0.05)


def recipe_with(**options):
    return dataclasses.replace(PLAIN, **options)


CASES = {
    "sgd": (table(), PLAIN),
    "adamw": (table(), recipe_with(optimizer="adamw", lr=0.01, schedule="one-cycle")),
    "lars": (table(), recipe_with(optimizer="lars", lr=0.5)),
    "ema": (table(), recipe_with(ema=0.9, clip=0.5, label_smoothing=0.1)),
    "bfloat16": (table(), recipe_with(precision="bfloat16")),
    "weights": (table(weights=torch.linspace(0.5, 1.5, N)), PLAIN),
    "mixup": (table(), recipe_with(augment=("mixup(alpha=0.5)",))),
    "dropout": (table(), recipe_with(model=dropout)),
    "uncounted": (table(), recipe_with(model=fourier)),
    "batch-norm": (images(), recipe_with(model="resnet9(width=2)", optimizer="adamw", lr=0.01)),
    "everything": (
        images(),
        recipe_with(
            model="resnet9(width=2)",
            ema=0.8,
            precision="bfloat16",
            channels_last=True,
            augment=("crop(padding=1)", "flip", "cutout(size=2)", "mixup"),
        ),
    ),
    "channels-last": (images(), recipe_with(model="convnet(width=4, depth=1)", channels_last=True, ema=0.9)),
    "channels-last-adamw": (
        images(),
        recipe_with(model="convnet(width=4, depth=1)", channels_last=True, optimizer="adamw", lr=0.01),
    ),
}


@pytest.mark.parametrize("stops", STOPS.values(), ids=STOPS)
@pytest.mark.parametrize("data, recipe", CASES.values(), ids=CASES)
def test_stopped_and_started_again_is_never_stopped(data, recipe, stops, tmp_path, monkeypatch):
    check(data, recipe, stops, tmp_path, monkeypatch)


@pytest.mark.parametrize("stops", [[k] for k in range(1, 12)], ids=str)
def test_every_step_is_a_place_to_stop(stops, tmp_path, monkeypatch):
    check(table(), PLAIN, stops, tmp_path, monkeypatch)


SAMPLERS = {
    "infobatch": lambda: InfoBatchSampler(N, EPOCHS, ratio=0.5, delta=0.75, seed=5),
    "mixture": lambda: Mixture(table(), {"even": 3, "odd": 1}, seed=5),
}


@pytest.mark.parametrize("stops", [[1], [4], [3], [6], [2, 6]], ids=str)
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_samplers_go_on_with_what_they_learned(sampler, stops, tmp_path, monkeypatch):
    check(table(), PLAIN, stops, tmp_path, monkeypatch, sampler)


def killed(folder, data=None, recipe=PLAIN, at=7, seed=5, sampler=None, **options):
    with pytest.raises(Killed):
        fit(
            data or table(),
            recipe,
            Context(seed=seed, store=Store(folder), checkpoint_seconds=0),
            recorder=Recorder(at),
            sampler=sampler,
            **options,
        )


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": recipe_with(lr=0.04)},
        {"recipe": recipe_with(epochs=8)},
        {"data": table().replace(targets=table().targets.flip(0))},
        {"seed": 6},
        {"stop_after": 3},
        {"sampler": InfoBatchSampler(N, EPOCHS)},
    ],
    ids=["lr", "epochs", "data", "seed", "stop_after", "sampler"],
)
def test_a_checkpoint_of_other_work_is_not_continued(other, tmp_path):
    killed(tmp_path, **other)
    store = Store(tmp_path)
    assert store.has("fit.state")
    recorder = Recorder()
    resumed = fit(table(), PLAIN, Context(seed=5, store=store), recorder=recorder)
    assert recorder.steps == 12
    assert_same_bits(resumed.model.state_dict(), fit(table(), PLAIN, Context(seed=5)).model.state_dict())


def test_a_sampler_with_other_options_is_other_work(tmp_path):
    killed(tmp_path, sampler=InfoBatchSampler(N, EPOCHS, ratio=0.3))
    sampler, recorder = InfoBatchSampler(N, EPOCHS, ratio=0.7), Recorder()
    fit(table(), PLAIN, Context(seed=5, store=Store(tmp_path)), sampler=sampler, recorder=recorder)
    plain = Recorder()
    fit(table(), PLAIN, Context(seed=5), sampler=InfoBatchSampler(N, EPOCHS, ratio=0.7), recorder=plain)
    assert_same_bits(recorder.state_dict(), plain.state_dict())


def test_resuming_does_not_repeat_what_was_done(tmp_path):
    killed(tmp_path, at=9)
    calls = []

    def objective(model, inputs, targets, indices):
        calls.append(len(indices))
        outputs = model(inputs)
        return torch.nn.functional.cross_entropy(outputs, targets, reduction="none"), outputs

    killed(tmp_path / "own", at=9, objective=objective)
    calls.clear()
    store = Store(tmp_path / "own")
    fit(table(), PLAIN, Context(seed=5, store=store), recorder=Recorder(), objective=objective)
    assert calls == [8, 8, 6]


def test_an_objective_with_a_state_goes_on_with_it(tmp_path):
    class Centered(torch.nn.Module):
        """Cross-entropy of the outputs less their running mean."""

        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, model, inputs, targets, indices):
            outputs = model(inputs)
            self.mean.lerp_(outputs.detach().mean(0), 0.3)
            return torch.nn.functional.cross_entropy(outputs - self.mean, targets, reduction="none"), outputs

    killed(tmp_path, at=7, objective=Centered())
    resumed = fit(table(), PLAIN, Context(seed=5, store=Store(tmp_path)), recorder=Recorder(), objective=Centered())
    whole = fit(table(), PLAIN, Context(seed=5), objective=Centered())
    assert_same_bits(resumed.model.state_dict(), whole.model.state_dict())


def test_two_works_of_one_store_do_not_meet(tmp_path):
    killed(tmp_path, name="a")
    killed(tmp_path, recipe=recipe_with(lr=0.01), name="b")
    store = Store(tmp_path)
    a = fit(table(), PLAIN, Context(seed=5, store=store), name="a", recorder=(first := Recorder()))
    b = fit(table(), recipe_with(lr=0.01), Context(seed=5, store=store), name="b", recorder=Recorder())
    assert first.steps == 12
    assert_same_bits(a.model.state_dict(), fit(table(), PLAIN, Context(seed=5)).model.state_dict())
    assert_same_bits(b.model.state_dict(), fit(table(), recipe_with(lr=0.01), Context(seed=5)).model.state_dict())
