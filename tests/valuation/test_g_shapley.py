import math
import time

import numpy as np
import pytest
import torch
from torch import nn

from modicum.context import Context
from modicum.data import load
from modicum.errors import DataError
from modicum.store import Store
from modicum.training.recipe import Recipe
from modicum.valuation import GShapley, g_shapley
from modicum.valuation.g_shapley import RATES, OnePass


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(n=20, m=15, seed=0):
    draw = np.random.default_rng(seed)
    centers, y, wanted = 3 * draw.normal(size=(3, 4)), np.arange(n) % 3, np.arange(m) % 3
    x, q = (centers[t] + draw.normal(size=(len(t), 4)) for t in (y, wanted))
    return tuple(torch.from_numpy(a) for a in (x, y, q, wanted))


def iris():
    data = load("iris")
    return data._replace(train=data.train[::3])


def network(seed):
    torch.manual_seed(seed % (1 << 31))
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def scored(method, data, ctx=None):
    ctx = ctx or Context()
    return method.score(data, ctx, method.needs()[0].measure(data, Recipe(), ctx))


def orders_of(n, b, seed=5):
    return torch.stack([torch.randperm(n, generator=seeded(seed + i)) for i in range(b)])


@pytest.mark.parametrize("model", [None, network])
def test_steps_are_those_of_a_loop_with_autograd(model):
    x, y, q, wanted = problem()
    rate, orders = 0.1, orders_of(20, 3)
    game = OnePass(x, y, q, wanted, seeded(), rate, model)
    values, length = game.prefixes(orders)
    assert (length == 20).all()
    for b, order in enumerate(orders):
        seeds = torch.randint(1 << 62, (3,), generator=seeded())
        if model is None:
            module = nn.Linear(4, 3).double()
            start = 2 * torch.rand(5, 3, generator=seeded(int(seeds[b])), dtype=torch.float64) - 1
            with torch.no_grad():
                module.weight.copy_(start[:4].T / 2)
                module.bias.copy_(start[4] / 2)
        else:
            module = model(int(seeds[b]))
        step = torch.optim.SGD(module.parameters(), lr=rate)
        expected = [float((module(q).argmax(1) == wanted).double().mean())]
        for i in order.tolist():
            step.zero_grad()
            nn.functional.cross_entropy(module(x[i : i + 1]), y[i : i + 1]).backward()
            step.step()
            expected.append(float((module(q).argmax(1) == wanted).double().mean()))
        assert values[b].tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("model", [None, network])
def test_each_permutation_adds_up_to_the_gain_of_the_epoch(model):
    case = problem()
    game = OnePass(*case, seeded(), 0.1, model)
    values, _ = game.prefixes(orders_of(20, 7))
    found = g_shapley(*case, seeded(), 7, 0.1, model, antithetic=False)
    again = OnePass(*case, seeded(), 0.1, model)
    draw = again.generator
    orders = torch.stack([torch.randperm(20, generator=draw) for _ in range(7)])
    values, _ = again.prefixes(orders)
    gain = values[:, -1] - values[:, 0]
    assert found.values.sum() == pytest.approx(float(gain.mean()), abs=1e-12)
    firsts = values[:, 1] - values[:, 0]
    expected = torch.zeros(7, 20, dtype=torch.float64).scatter_(1, orders, values.diff(dim=1))
    torch.testing.assert_close(expected.sum(1), gain, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.values, expected.mean(0), atol=1e-12)
    assert bool((expected.gather(1, orders[:, :1])[:, 0] == firsts).all())
    assert bool((firsts != 0).any())  # the first of a permutation is not left out


def test_learning_rate_is_the_best_of_one_pass():
    assert [round(math.log10(rate), 1) for rate in RATES] == [-1, -1.5, -2, -2.5, -3, -3.5, -4, -4.5]
    case = problem(24, 60)
    game = OnePass(*case, seeded())
    draw = seeded()
    orders = torch.stack([torch.randperm(24, generator=draw) for _ in range(10)])
    state = draw.get_state()
    worth = {}
    for rate in RATES:
        draw.set_state(state)
        last = OnePass(*case, draw, rate).prefixes(orders)[0][:, -1]
        worth[rate] = float(last.mean() - last.std())
    assert game.learning_rate == max(worth, key=worth.__getitem__)


def test_wrong_labels_are_worth_less():
    x, y, q, wanted = problem(40, 60)
    wrong = torch.arange(40) % 5 == 0
    found = g_shapley(x, torch.where(wrong, (y + 1) % 3, y), q, wanted, seeded(), 64, 0.1).values
    assert found[wrong.numpy()].mean() < 0 < found[~wrong.numpy()].mean()


def test_arrays_and_tensors_are_the_same_and_float32_is_allowed():
    case = problem()
    a = g_shapley(*case, seeded(), 4, 0.1).values
    b = g_shapley(*(part.numpy() for part in case), seeded(), 4, 0.1).values
    assert np.array_equal(a, b)
    x, y, q, wanted = case
    c = g_shapley(x.float(), y, q.float(), wanted, seeded(), 4, 0.1).values
    np.testing.assert_allclose(a, c, atol=0.1)


def test_interrupted_and_resumed_is_uninterrupted(tmp_path):
    method = GShapley(permutations=80)
    whole = scored(method, iris())
    late = Context(store=Store(tmp_path), deadline=time.monotonic() - 1)
    stopped = scored(method, iris(), late)
    assert stopped.note.startswith("stopped after 32 of 80 permutations; 960 utilities; learning rate 0.")
    assert np.isfinite(stopped.errors).all()
    found = scored(method, iris(), late.with_(deadline=None))
    assert np.array_equal(found.values, whole.values)
    assert np.array_equal(found.errors, whole.errors)
    assert found.note == whole.note


@pytest.mark.parametrize(
    "spoil, text",
    [
        (lambda x, y, q, w: (x[:, :, None], y, q, w), r"train_inputs has shape \(20, 4, 1\); expected \(n, d\)"),
        (lambda x, y, q, w: (x * math.nan, y, q, w), r"train_inputs\[0, 0\] is nan; expected finite"),
        (lambda x, y, q, w: (x, y[:5], q, w), r"train_targets has shape \(5,\); expected \(20,\)"),
        (lambda x, y, q, w: (x, y, q[:, :2], w), r"valid_inputs have shape \(15, 2\) but train_inputs \(20, 4\)"),
        (lambda x, y, q, w: (x, y, q, w.double()), "valid_targets has dtype float64"),
    ],
)
def test_errors(spoil, text):
    with pytest.raises(DataError, match=text):
        g_shapley(*spoil(*problem()), seeded(), 2)


def test_errors_of_options():
    with pytest.raises(DataError, match="learning_rate=0; expected a number > 0"):
        g_shapley(*problem(), seeded(), 2, 0)
    with pytest.raises(DataError, match="permutations=0; expected at least 1"):
        g_shapley(*problem(), seeded(), 0, 0.1)
