"""Dataset distillation by back-propagation: the order, the steps, one initialization or any."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.distillation import DD, Distilled, flat_network, train_and_test
from modicum.errors import BudgetError, ModicumError
from modicum.methods import make, spec
from modicum.models import build
from modicum.scores import Budget
from modicum.training.fit import fit
from modicum.training.recipe import Recipe

MODEL = "mlp(hidden=8, layers=1)"
FAST = DD(iterations=3, passes=2, networks=2, batch_real=20, lr=0.1, model=MODEL)


def blobs(n: int = 60, classes: int = 3) -> Splits:
    draw = np.random.default_rng(0)
    targets = torch.arange(n) % classes
    centers = 3 * torch.from_numpy(draw.normal(size=(classes, 5))).float()
    inputs = centers[targets] + torch.from_numpy(draw.normal(size=(n, 5))).float()
    data = Dataset(inputs, targets, info=Info(classes=tuple("abc"[:classes])))
    return Splits(data, data, data)


def distilled(method: DD = FAST, budget: Budget | None = None, seed: int = 0) -> Distilled:
    return method.distill(blobs(), budget or Budget(per_class=4), Recipe(), Context(seed=seed))


def test_samples_come_in_the_order_of_their_steps() -> None:
    made = distilled(replace(FAST, steps=2))
    assert made.recipe.steps == len(made.recipe.rates) == 4
    assert made.recipe.batch_size == 6
    assert not made.recipe.shuffle
    assert made.dataset.labels.tolist() == [0, 0, 1, 1, 2, 2] * 2
    assert [text.split("-")[1] for text in made.dataset.ids] == [str(c) for c in made.dataset.labels.tolist()]
    assert distilled().recipe.batch_size == 3


def test_the_recipe_takes_the_very_steps_that_were_differentiated() -> None:
    made = distilled(replace(FAST, fixed=True, steps=2, iterations=5))
    assert made.seed == 0
    theta, call = flat_network(build(MODEL, made.dataset, 0))
    x, y = made.dataset.prepare(made.dataset.inputs), made.dataset.labels
    for n, rate in enumerate(made.recipe.rates):
        part = slice(6 * (n % 2), 6 * (n % 2) + 6)
        theta.requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(call(theta, x[part]), y[part]), theta)
        theta = theta.detach() - rate * slope
    trained = fit(made.dataset, made.recipe, Context(seed=0)).model
    torch.testing.assert_close(flat_network(trained)[0], theta, rtol=1e-5, atol=1e-6)


def test_a_set_for_one_initialization_is_for_no_other() -> None:
    method = DD(40, steps=1, passes=3, fixed=True, batch_real=60, lr=0.5, lr_img=0.1, model=MODEL)
    made, data = distilled(method, Budget(per_class=1)), blobs().test

    def loss(seed: int) -> float:
        outputs = fit(made.dataset, made.recipe, Context(seed=seed)).model(data.inputs)
        return float(F.cross_entropy(outputs, data.labels).detach())

    promised = made.history["loss"]
    assert promised[-1] < 0.5 * promised[0]
    assert loss(0) == pytest.approx(promised[-1], rel=0.05)
    assert all(abs(loss(seed) - promised[-1]) > 0.01 for seed in range(1, 4))
    # the evaluator tests it on its own initialization, whatever its seed
    assert len(train_and_test(made, data, Context(seed=7), networks=3).accuracies) == 1


def test_any_initialization() -> None:
    made = distilled()
    assert made.seed is None
    assert made.method.startswith("dd(")
    assert len(made.snapshots) == 3
    assert made.snapshots[0].recipe.rates == pytest.approx([0.1] * 8)


def test_the_step_sizes_start_as_asked_and_are_learned() -> None:
    made = distilled(replace(FAST, iterations=2))
    assert made.snapshots[-1].recipe.rates != made.snapshots[0].recipe.rates
    assert all(rate > 0 for rate in made.recipe.rates)


def test_real_samples_to_start_from() -> None:
    start = distilled(replace(FAST, init="real")).snapshots[0].dataset
    rows = {tuple(row) for row in blobs().train.inputs.tolist()}
    assert all(tuple(row) in rows for row in start.inputs.tolist())


def test_learning_rates_halve_ten_times(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def note(self: Any, closure: Any = None) -> None:
        seen.append(self.param_groups[0]["lr"])

    monkeypatch.setattr(torch.optim.Adam, "step", note)
    distilled(replace(FAST, iterations=20, networks=1, passes=1), Budget(per_class=1))
    assert seen[::4] == pytest.approx([0.01 * 0.5**k for k in range(10)])


def test_errors() -> None:
    with pytest.raises(BudgetError, match=r"makes 4 samples a class, .* each of its 3 steps .* of steps=3"):
        distilled(replace(FAST, steps=3))
    with pytest.raises(BudgetError, match="makes 2 to 3 samples a class"):
        distilled(budget=Budget(keep=8))
    for options, message in (
        ({"iterations": 0}, "'dd' option iterations=0; expected an integer > 0"),
        ({"lr": 0.0}, "'dd' option lr=0.0; expected a number > 0"),
        ({"passes": 0}, "'dd' option passes=0"),
        ({"init": "zero"}, "'dd' option init='zero'; expected 'noise', 'real'"),
    ):
        with pytest.raises(ModicumError, match=message):
            DD(**options)  # type: ignore[arg-type]


def test_it_has_a_key() -> None:
    assert spec(make("dd(iterations=7, fixed=True)")) == "dd(iterations=7, fixed=True)"
