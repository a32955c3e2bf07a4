"""Many models at once are the models that `fit` trains one after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from modicum.context import Context
from modicum.dataset import Dataset, Info
from modicum.errors import TrainingError
from modicum.store import Store
from modicum.training.chain import chain_of
from modicum.training.fit import Fit, fit
from modicum.training.many import fit_many
from modicum.training.recipe import Recipe


def data(n: int = 50, kind: str = "labels", seed: int = 0) -> Dataset:
    rng = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 6, generator=rng)
    logits = inputs[:, :3] + 0.5 * torch.randn(n, 3, generator=rng)
    info = Info(classes=("a", "b", "c"), mean=(0.1,) * 6, std=(1.1,) * 6)
    weights = torch.rand(n, generator=rng) if kind == "weights" else None
    if kind == "regression":
        return Dataset(inputs, logits[:, 0], info=Info("regression", target_mean=3.0, target_std=2.0))
    return Dataset(inputs, logits.softmax(1) if kind == "soft" else logits.argmax(1), weights=weights, info=info)


def images(n: int = 21) -> Dataset:
    rng = torch.Generator().manual_seed(0)
    return Dataset(
        torch.rand(n, 1, 8, 8, generator=rng),
        torch.arange(n) % 3,
        info=Info("classification", "image", ("a", "b", "c")),
    )


def assert_same(together: list[Fit], alone: list[Fit], atol: float = 1e-5) -> None:
    assert len(together) == len(alone)
    for ours, theirs in zip(together, alone):
        assert not ours.model.training
        for (name, a), b in zip(ours.model.named_parameters(), theirs.model.parameters()):
            assert torch.allclose(a, b, atol=atol, rtol=0), (name, float((a - b).abs().max()))
        for key in ("samples", "forward_flops", "backward_flops"):
            assert ours.history[key] == theirs.history[key], key
        for key in ("loss", "lr"):
            assert ours.history[key] == pytest.approx(theirs.history[key], abs=max(1e-5, atol))
        a, b = ours.ledger.total(), theirs.ledger.total()
        for key in ("samples", "labels", "forward_flops", "backward_flops", "parameters", "bits", "uncounted"):
            assert getattr(a, key) == getattr(b, key), key


def alone(datasets: list[Dataset], recipe: Recipe, seeds: Any) -> list[Fit]:
    return [fit(dataset, recipe, Context(seed=seed)) for dataset, seed in zip(datasets, seeds)]


class Own(nn.Module):
    """A network that is no chain, with a parameter that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        self.norm, self.scale = nn.LayerNorm(8), nn.Parameter(torch.tensor(0.5), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(self.norm(self.first(x)).tanh() * self.scale)
        return out


def sequence() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


RECIPES: dict[str, dict[str, Any]] = {
    "nesterov, cosine": {},
    "no momentum, constant": {"momentum": 0.0, "schedule": "constant", "weight_decay": 0.0},
    "adamw, one-cycle": {"optimizer": "adamw", "lr": 0.01, "schedule": "one-cycle", "weight_decay": 0.1},
    "lars": {"optimizer": "lars", "lr": 0.5, "weight_decay": 0.1},
    "smoothed, clipped, averaged, warm": {"label_smoothing": 0.2, "clip": 0.3, "ema": 0.8, "warmup": 0.2},
    "steps": {"steps": 7},
    "part of an epoch": {"epochs": 1.4},
    "one batch an epoch": {"batch_size": 500},
}


@pytest.mark.parametrize("model", ["mlp(hidden=8)", "linear", sequence, Own])
@pytest.mark.parametrize("options", RECIPES.values(), ids=RECIPES)
def test_seeds(options: dict[str, Any], model: Any) -> None:
    recipe = Recipe(**{"model": model, "epochs": 3, "batch_size": 16, **options})
    assert_same(fit_many(data(), recipe, seeds=[3, 1, 4]), alone([data()] * 3, recipe, [3, 1, 4]))


@pytest.mark.parametrize("model", ["mlp(hidden=8)", Own])
@pytest.mark.parametrize("kind", ["labels", "soft", "weights"])
@pytest.mark.parametrize("options", [{}, {"steps": 11, "label_smoothing": 0.1}, {"clip": 0.1, "ema": 0.9}])
def test_subsets_of_different_sizes(kind: str, options: dict[str, Any], model: Any) -> None:
    # epochs of different lengths, last batches of different sizes, one smaller than a batch, one of a single sample
    whole = data(kind=kind)
    subsets = [range(10, 50), [1, 5, 7], torch.arange(33), [4], range(16), torch.arange(50) % 2 == 0, [2, 2, 3]]
    recipe = Recipe(**{"model": model, "epochs": 3, "batch_size": 16, "lr": 0.05, **options})
    seeds = [5, 0, 2, 2, 9, 1, 7]
    together = fit_many(whole, recipe, subsets=subsets, seeds=seeds, together=5)
    assert_same(together, alone([whole[at] for at in subsets], recipe, seeds))


@pytest.mark.parametrize("model", ["mlp(hidden=8)", "linear"])
def test_regression_and_lists_of_data_sets(model: str) -> None:
    sets = [data(20, "regression", 1), data(30, "regression", 2)]
    sets = [sets[0], sets[1], sets[0]]
    recipe = Recipe(model=model, epochs=4, batch_size=8, lr=0.01)
    assert_same(fit_many(sets, recipe, seeds=[0, 1, 2]), alone(sets, recipe, [0, 1, 2]))
    sets = [data(20, seed=1), data(31, "weights", 2)]
    assert_same(fit_many(sets, recipe, Context(seed=6)), alone(sets, recipe, [6, 7]))


@pytest.mark.parametrize("augment", [(), ("flip", "crop(padding=1)"), ("mixup",)])
def test_images_with_augmentation(augment: tuple[str, ...]) -> None:
    recipe = Recipe(model="convnet(width=4, depth=1)", epochs=2, batch_size=8, lr=0.01, augment=augment)
    subsets = [range(21), range(13)]
    assert_same(fit_many(images(), recipe, subsets=subsets), alone([images()[at] for at in subsets], recipe, [0, 1]))


def test_bfloat16_is_close() -> None:
    recipe = Recipe(model="mlp(hidden=8)", epochs=2, batch_size=16, precision="bfloat16")
    assert_same(fit_many(data(), recipe, seeds=[0, 1]), alone([data()] * 2, recipe, [0, 1]), atol=0.02)


def test_the_ledger_gets_every_charge_and_seconds_are_shared_out() -> None:
    ctx = Context()
    fits = fit_many(data(), Recipe(model="linear", epochs=2), ctx, seeds=range(4), phase="choose", name="utilities")
    assert len(ctx.ledger.charges) == 4
    assert ctx.ledger.total("choose").samples == 4 * 2 * 50
    assert {c.what for c in ctx.ledger.charges} == {"utilities"}
    assert sum(f.ledger.total().seconds for f in fits) == pytest.approx(ctx.ledger.total().seconds)
    # one linear layer: forward and the gradient of its weights
    assert ctx.ledger.total().forward_flops == ctx.ledger.total().backward_flops == 400 * 2 * 6 * 3


def test_data_are_not_written_to() -> None:
    whole = data(kind="weights")
    before = whole.fingerprint
    fit_many(whole, Recipe(model="mlp(hidden=8)", epochs=1), seeds=[0, 1])
    assert data(kind="weights").fingerprint == before
    assert torch.equal(whole.inputs, data(kind="weights").inputs)


@pytest.mark.parametrize("stop", [1, 6, 11])
@pytest.mark.parametrize("model", ["mlp(hidden=8)", Own])
def test_interrupted_and_resumed_is_uninterrupted(tmp_path: Path, stop: int, model: Any) -> None:
    recipe = Recipe(model=model, epochs=4, batch_size=16, optimizer="adamw", lr=0.01, ema=0.9)
    subsets = [range(50), range(30), range(45)]
    whole = fit_many(data(), recipe, subsets=subsets)
    from modicum.training import many

    with pytest.MonkeyPatch.context() as patch:
        real, left = many._Stack.step, [stop]

        def step(self: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            real(self)

        patch.setattr(many._Stack, "step", step)
        with pytest.raises(KeyboardInterrupt):
            fit_many(data(), recipe, Context(store=Store(tmp_path), checkpoint_seconds=0), subsets=subsets)
    assert Store(tmp_path).has("fit-many.state")
    resumed = fit_many(data(), recipe, Context(store=Store(tmp_path), checkpoint_seconds=0), subsets=subsets)
    assert_same(resumed, whole, atol=0.0)


def test_chains() -> None:
    assert chain_of(sequence()) == ["1", "3"]
    assert chain_of(nn.Sequential(nn.Linear(2, 2))) == ["0"]
    for other in (
        Own(), nn.Sequential(), nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2, bias=False)),
        nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
    ):  # fmt: skip
        assert chain_of(other) == []


def batch_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.1), nn.Linear(4, 3))


@pytest.mark.parametrize(
    "arguments,text",
    [
        ({"recipe": Recipe(model=batch_norm)}, r"cannot stack a model with buffers \(1\.running_mean of Sequential\)"),
        ({"recipe": Recipe(model=dropout)}, r"cannot stack a model with dropout \(1\): each model draws its own"),
        ({"data": data().replace(targets=None)}, "dataset has no targets; fit_many needs labels"),
        ({"subsets": [[0], []]}, "the data of model 1 are empty; every model needs at least one sample"),
        (
            {"subsets": [[0], [1]], "seeds": [1]},
            "there are 2 data sets or subsets and 1 seeds; expected one seed a model",
        ),
        ({"seeds": []}, "there are 0 data sets or subsets and 0 seeds"),
        ({"data": [data()], "subsets": [[0]]}, "subsets are positions in one data set, but data is a list"),
        ({"data": [data(), data(kind="soft")]}, "data sets differ: .* need the same input shape, classes and kind"),
        ({"together": 0}, "together=0; expected an integer >= 1"),
        (
            {"recipe": Recipe(model="mlp", lr=1e20, schedule="constant", epochs=2, batch_size=8), "seeds": [0]},
            r"the loss of model 0 is (nan|inf) after step \d+; try a lower lr than 1e\+20, clip=1\.0",
        ),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(TrainingError, match=text):
        fit_many(**{"data": data(), "recipe": Recipe(model="mlp(hidden=8)", epochs=1), **arguments})
