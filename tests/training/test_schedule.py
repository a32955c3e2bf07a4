import math

import numpy as np
import pytest
import torch

from modicum.errors import TrainingError
from modicum.training.recipe import Recipe
from modicum.training.schedule import learning_rate, make_optimizer

SHARES = [i / 40 for i in range(41)]


def test_cosine_is_the_closed_form():
    recipe = Recipe(lr=0.3, schedule="cosine")
    for t in SHARES:
        assert learning_rate(recipe, t) == pytest.approx(0.15 * (1 + math.cos(math.pi * t)), abs=1e-15)
    assert learning_rate(recipe, 0) == 0.3
    assert learning_rate(recipe, 1) == pytest.approx(0, abs=1e-15)


def test_one_cycle_rises_for_three_tenths_and_falls_linearly():
    recipe = Recipe(lr=2.0, schedule="one-cycle")
    for t in SHARES[1:]:
        expected = 2 * t / 0.3 if t < 0.3 else 2 * (1 - t) / 0.7
        assert learning_rate(recipe, t) == pytest.approx(expected, abs=1e-12)
    assert learning_rate(Recipe(lr=2.0, schedule="one-cycle", warmup=0.5), 0.25) == pytest.approx(1)


def test_constant_is_constant_from_the_first_step_to_the_last():
    assert {learning_rate(Recipe(lr=0.7, schedule="constant"), t) for t in SHARES} == {0.7}


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "constant"])
def test_warm_up_rises_linearly_to_lr_and_the_first_step_still_moves(schedule):
    recipe = Recipe(lr=0.5, schedule=schedule, warmup=0.2)
    for t in (0.02, 0.1, 0.19):
        assert learning_rate(recipe, t) == pytest.approx(0.5 * t / 0.2)
    assert learning_rate(recipe, 0.2) == pytest.approx(0.5)
    assert 0 < learning_rate(recipe, 0) < 0.5 * 0.02 / 0.2
    end = 0.5 if schedule == "constant" else 0
    assert learning_rate(recipe, 1) == pytest.approx(end, abs=1e-15)


def steps(recipe, gradients, start):
    parameter = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    optimizer = make_optimizer(recipe, iter([parameter]))
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
    return parameter.detach().numpy()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_nesterov_with_l2(momentum):
    random = np.random.default_rng(0)
    start, gradients = random.normal(size=5), random.normal(size=(6, 5))
    theta, velocity = start.copy(), None
    for gradient in gradients:
        gradient = gradient + 0.01 * theta
        velocity = gradient if velocity is None else momentum * velocity + gradient
        theta = theta - 0.1 * (gradient + momentum * velocity)
    recipe = Recipe(lr=0.1, momentum=momentum, weight_decay=0.01)
    np.testing.assert_allclose(steps(recipe, gradients, start), theta, rtol=0, atol=1e-6)


def test_adamw_decays_apart_from_the_gradient():
    random = np.random.default_rng(1)
    start, gradients = random.normal(size=5), random.normal(size=(6, 5))
    theta, m, v = start.copy(), np.zeros(5), np.zeros(5)
    for t, gradient in enumerate(gradients, 1):
        theta = theta * (1 - 0.1 * 0.05)
        m, v = 0.8 * m + 0.2 * gradient, 0.999 * v + 0.001 * gradient**2
        theta = theta - 0.1 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    recipe = Recipe(optimizer="adamw", lr=0.1, momentum=0.8, weight_decay=0.05)
    np.testing.assert_allclose(steps(recipe, gradients, start), theta, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"epochs": 0}, "recipe epochs=0; expected a number > 0"),
        ({"epochs": float("inf")}, "recipe epochs=inf"),
        ({"steps": 0}, "recipe steps=0; expected an integer >= 1"),
        ({"steps": 2.5}, "recipe steps=2.5; expected an integer >= 1"),
        ({"batch_size": 0}, "recipe batch_size=0; expected an integer >= 1"),
        ({"batch_size": 16.0}, "recipe batch_size=16.0; expected an integer >= 1"),
        ({"optimizer": "adam"}, "recipe optimizer='adam'; expected 'sgd', 'adamw' or 'lars'"),
        ({"lr": 0}, "recipe lr=0; expected a number > 0"),
        ({"lr": float("nan")}, "recipe lr=nan"),
        ({"momentum": 1}, r"recipe momentum=1; expected a number in \[0, 1\)"),
        ({"weight_decay": -1}, "recipe weight_decay=-1"),
        ({"schedule": "stairs"}, "recipe schedule='stairs'; expected one of 'cosine', 'one-cycle', 'step', 'constant'"),
        ({"rates": (0.1, -1.0), "steps": 2}, "recipe rates"),
        ({"rates": (0.1,), "steps": 2}, "recipe has 1 rates and steps=2; expected one rate a step"),
        ({"loss": "mae"}, "recipe loss='mae'; expected 'cross-entropy' or 'mse'"),
        ({"warmup": 1}, "recipe warmup=1"),
        ({"label_smoothing": 1}, "recipe label_smoothing=1"),
        ({"ema": 1}, "recipe ema=1"),
        ({"precision": "float16"}, "recipe precision='float16'; expected 'float32' or 'bfloat16'"),
        ({"clip": -1}, "recipe clip=-1"),
        ({"augment": "flip"}, r"recipe augment='flip'; expected a tuple such as \('flip',\)"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(options, text):
    with pytest.raises(TrainingError, match=text):
        Recipe(**options)


def test_steps_and_whole_epochs():
    assert Recipe(epochs=3, batch_size=10).steps_for(25) == 9
    assert Recipe(epochs=1.5, batch_size=10).steps_for(40) == 6
    assert Recipe(epochs=0.01, batch_size=10).steps_for(40) == 1
    assert Recipe(epochs=3, steps=7, batch_size=10).steps_for(10**6) == 7
    assert Recipe(epochs=10, batch_size=64).whole_epochs(100, 0.2) == 2  # 128 of 100 fit in two batches: not 12.8
    assert Recipe(epochs=10, batch_size=512).whole_epochs(100, 0.5) == 5
    assert Recipe(epochs=2.9, batch_size=10).whole_epochs(100) == 2
    assert Recipe(epochs=0.5, batch_size=10).whole_epochs(100) == 1
